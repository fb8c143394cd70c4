"""Between the lists that old programs pass and the padded tensors that the engine takes.

The classic layout is [B, T-1]: position t is about token t+1 of what the model reads (query and
response for decoder-only models, start token and response for encoder-decoders). In it a row's
actions stand side by side, from column `first`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BatchEncoding


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How queries and responses are padded for one model and tokenizer.

    Attributes:
        start_id: the decoder's start token; None for decoder-only models.
        pad_id: fills the padding; masks never come from it.
        padding_side: where the classic layout of a decoder-only model pads, "left" or "right".
        trl_masks: reproduce TRL's encoder-decoder mask, which leaves out the first response token.
    """

    start_id: int | None
    pad_id: int
    padding_side: str
    trl_masks: bool

    @property
    def encoder_decoder(self) -> bool:
        """The model's family."""
        return self.start_id is not None


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


def pad(rows: Sequence[Tensor], value: int, side: str) -> tuple[Tensor, Tensor]:
    """Rows of different length as one tensor [B, W] and the mask (bool) of what is real.

    Args:
        rows: token ids, each one-dimensional; the longest has W.
        value: fills the padding.
        side: "left" or "right" is where padding goes.

    Returns:
        Ids and mask.
    """
    device, longest = rows[0].device, max(len(row) for row in rows)
    columns = torch.arange(longest, device=device)[None]
    lengths = torch.tensor([len(row) for row in rows], device=device)[:, None]
    mask = columns < lengths if side == "right" else columns >= columns.shape[1] - lengths
    ids = torch.full(mask.shape, value, dtype=rows[0].dtype, device=device)
    return ids.masked_scatter(mask, torch.cat(list(rows))), mask


def model_inputs(
    queries: Sequence[Tensor], responses: Sequence[Tensor], layout: Layout
) -> BatchEncoding:
    """Padded ids and masks that the model reads, whole rows.

    The decoder of an encoder-decoder model reads the start token and then the response, whether or
    not the program left the start token in the response.

    Args:
        queries: token ids of each query.
        responses: token ids of each response.
        layout: how to pad.

    Returns:
        `input_ids` and `attention_mask`, and `decoder_*` for encoder-decoder models.
    """
    if layout.start_id is None:
        both = [torch.cat(pair) for pair in zip(queries, responses, strict=True)]
        ids, mask = pad(both, layout.pad_id, layout.padding_side)
        return BatchEncoding({"input_ids": ids, "attention_mask": mask.long()})
    ids, mask = pad(queries, layout.pad_id, "right")
    decoded = list(responses)
    if not layout.trl_masks:
        actions = [actions_of(response, layout.start_id) for response in responses]
        decoded = [torch.cat([row.new_tensor([layout.start_id]), row]) for row in actions]
    decoder_ids, decoder_mask = pad(decoded, layout.pad_id, "right")
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    inputs |= {"decoder_input_ids": decoder_ids, "decoder_attention_mask": decoder_mask.long()}
    return BatchEncoding(inputs)


def width_of(inputs: Mapping[str, Tensor]) -> int:
    """Columns of the classic layout, T-1, of what `model_inputs` gave."""
    key = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    return int(inputs[key].shape[1]) - 1


def lay_out(
    queries: Sequence[Tensor], responses: Sequence[Tensor], layout: Layout, width: int
) -> Rows:
    """Pad some rows for the engine and note where their actions stand in the classic layout.

    Args:
        queries: token ids of each query.
        responses: token ids of each response, with or without a start token.
        layout: how the classic layout pads.
        width: T-1 of the classic layout.

    Returns:
        The padded rows.
    """
    actions = [actions_of(response, layout.start_id) for response in responses]
    side = "right" if layout.encoder_decoder else "left"
    query_ids, query_mask = pad(queries, layout.pad_id, side)
    response_ids, response_mask = pad(actions, layout.pad_id, "right")
    q, r = query_mask.sum(dim=1), response_mask.sum(dim=1)
    if layout.encoder_decoder:
        first = torch.zeros_like(q)
    else:
        first = q - 1 if layout.padding_side == "right" else width - r
    return Rows(
        query_ids=query_ids,
        query_mask=query_mask,
        response_ids=response_ids,
        response_mask=response_mask,
        first=first,
    )


def mask_of(
    rows: Rows, width: int, responses: Sequence[Tensor], response_masks: Sequence[Tensor] | None
) -> Tensor:
    """1 at the actions that count, in the classic layout [B, width].

    Args:
        rows: the padded rows.
        width: T-1.
        responses: as the program passed them; a mask may be as long as these.
        response_masks: the program's, or None where every action counts.

    Returns:
        A mask of integers, as old programs expect.

    Raises:
        ValueError: a mask of another length than its response.
    """
    if response_masks is None:
        counts = torch.ones_like(rows.response_ids)[rows.response_mask]
        return rows.spread(counts, width)
    parts = []
    for mask, response, real in zip(response_masks, responses, rows.response_mask, strict=True):
        actions = int(real.sum())
        if len(mask) not in (actions, len(response)):
            raise ValueError(
                f"step: got a response mask of {len(mask)} for a response of {len(response)} "
                "tokens; give one number per token, 1 where it counts"
            )
        parts.append(mask[len(mask) - actions :].long())
    return rows.spread(torch.cat(parts), width)


def trl_mask_of(attention_mask: Tensor, response_masks: Sequence[Tensor] | None) -> Tensor:
    """TRL's mask of an encoder-decoder: from the second position to the last but one.

    Position 0 predicts the first token after the one that stands first in the response, so that
    token is left out of everything.

    Args:
        attention_mask: of what the decoder reads [B, T].
        response_masks: the program's, or None.

    Returns:
        1 at the actions that count [B, T-1].
    """
    mask = attention_mask[:, 1:].clone()
    mask[:, 0] = 0
    for row, own in enumerate(response_masks or ()):
        counts = int(attention_mask[row].sum()) - 1
        mask[row, :counts] *= own[len(own) - counts :].long()
    return mask
