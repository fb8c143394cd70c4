"""Between the lists that old programs pass and the padded tensors that the engine takes.

The classic layout is [B, T-1]: position t speaks of token t+1 of what the model reads (query and
response for decoder-only models, start token and response for encoder-decoders). In it a row's
actions stand side by side, from column `first`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some queries and responses, padded for the engine.

    Attributes:
        query_ids: token ids [B, Q], padded on the family's side.
        query_mask: True at real tokens [B, Q].
        response_ids: sampled token ids [B, R], padded right; no start token.
        response_mask: True at them [B, R].
        first: column of each row's first action in the classic layout [B].
    """

    query_ids: Tensor
    query_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor
    first: Tensor

    def spread(self, packed: Tensor, width: int) -> Tensor:
        """One number (or vector) per action as [B, width, ...], 0 elsewhere, gradient kept.

        Args:
            packed: of the actions in order of rows [N, ...].
            width: columns of the classic layout, T-1.

        Returns:
            The classic layout.
        """
        row, position = self.response_mask.nonzero(as_tuple=True)
        whole = packed.new_zeros((len(self.first), width, *packed.shape[1:]))
        return whole.index_put((row, self.first[row] + position), packed)


def actions_of(response: Tensor, start_id: int | None) -> Tensor:
    """The sampled tokens of a response.

    `generate` of an encoder-decoder puts the start token before them, and many programs leave it
    there; it is state, not action.

    Args:
        response: token ids [R].
        start_id: the decoder start token, None for decoder-only models.

    Returns:
        The response without a leading start token, unless nothing would remain.
    """
    starts = start_id is not None and len(response) > 1 and int(response[0]) == start_id
    return response[1:] if starts else response


def pad(
    rows: Sequence[Tensor], value: int, side: str, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Rows of different length as one tensor [B, W] and the mask (bool) of what is real.

    Args:
        rows: token ids, each one-dimensional.
        value: fills the padding.
        side: "left" or "right" is where padding goes.
        width: W; None for the longest row.

    Returns:
        Ids and mask.
    """
    device, longest = rows[0].device, max(len(row) for row in rows)
    columns = torch.arange(width or longest, device=device)[None]
    lengths = torch.tensor([len(row) for row in rows], device=device)[:, None]
    mask = columns < lengths if side == "right" else columns >= columns.shape[1] - lengths
    ids = torch.full(mask.shape, value, dtype=rows[0].dtype, device=device)
    return ids.masked_scatter(mask, torch.cat(list(rows))), mask


def lay_out(
    queries: Sequence[Tensor],
    actions: Sequence[Tensor],
    *,
    encoder_decoder: bool,
    width: int,
    padding_side: str,
    pad_id: int,
) -> Rows:
    """Pad some rows for the engine and say where their actions stand in the classic layout.

    Args:
        queries: token ids of each query.
        actions: sampled token ids of each response.
        encoder_decoder: the family.
        width: T-1 of the classic layout.
        padding_side: where the classic layout of a decoder-only model pads.
        pad_id: fills the padding.

    Returns:
        The padded rows.
    """
    query_ids, query_mask = pad(queries, pad_id, "right" if encoder_decoder else "left")
    response_ids, response_mask = pad(actions, pad_id, "right")
    q, r = query_mask.sum(dim=1), response_mask.sum(dim=1)
    if encoder_decoder:
        first = torch.zeros_like(q)
    else:
        first = q - 1 if padding_side == "right" else width - r
    return Rows(
        query_ids=query_ids,
        query_mask=query_mask,
        response_ids=response_ids,
        response_mask=response_mask,
        first=first,
    )


def mask_of(
    rows: Rows, width: int, responses: Sequence[Tensor], own: Sequence[Tensor] | None
) -> Tensor:
    """1 at the actions that count, in the classic layout [B, width].

    Args:
        rows: the padded rows.
        width: T-1.
        responses: as the program passed them; a mask may be as long as these.
        own: the program's response masks, or None where every action counts.

    Returns:
        A mask of integers, as old programs expect.

    Raises:
        ValueError: a mask of another length than its response.
    """
    if own is None:
        counts = torch.ones_like(rows.response_ids)[rows.response_mask]
        return rows.spread(counts, width)
    parts = []
    for mask, response, real in zip(own, responses, rows.response_mask, strict=True):
        actions = int(real.sum())
        if len(mask) not in (actions, len(response)):
            raise ValueError(f"response mask of {len(mask)} for a response of {len(response)}")
        parts.append(mask[len(mask) - actions :].long())
    return rows.spread(torch.cat(parts), width)
