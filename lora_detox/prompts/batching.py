"""Prompt rows -> PromptBatch: which rows an iteration reads, cut, padded and masked."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lora_detox.errors import DataError
from lora_detox.prompts.rows import PromptRow
from lora_detox.prompts.splits import choose_rows
from lora_detox.prompts.templates import (
    EncodedPrompt,
    PromptTemplate,
    apply_template,
    parse_template,
)
from lora_detox.special_tokens import tokens_around
from lora_detox.types import PromptBatch

PaddingSide = Literal["left", "right"]


@dataclass(frozen=True, kw_only=True)
class _Encoder:
    """How rows become ids; the same for training and evaluation."""

    tokenizer: PreTrainedTokenizerBase
    template: PromptTemplate
    max_query_tokens: int
    query_tokens: tuple[int, int] | None
    padding_side: PaddingSide
    add_special_tokens: bool

    @cached_property
    def prefix(self) -> list[int]:
        """What the tokenizer puts before a text."""
        return tokens_around(self.tokenizer)[0]

    def encode(self, rows: Sequence[PromptRow], draws: Sequence[random.Random]) -> PromptBatch:
        """Encode B rows, each with its own source of chance for the cut."""
        encoded = [self._encode_row(row, draw) for row, draw in zip(rows, draws, strict=True)]
        query_ids, query_mask = self._pad([one.ids for one in encoded])
        return PromptBatch(
            texts=[one.text for one in encoded],
            query_ids=query_ids,
            query_mask=query_mask,
            references=[list(row.references) for row in rows],
            row_ids=[row.row_id for row in rows],
            sources=[one.source for one in encoded],
            columns=[dict(row.columns) for row in rows],
        )

    def _encode_row(self, row: PromptRow, draw: random.Random) -> EncodedPrompt:
        return apply_template(
            row.prompt,
            self.tokenizer,
            template=self.template,
            max_query_tokens=self.max_query_tokens,
            prompt_tokens=None if self.query_tokens is None else draw.randint(*self.query_tokens),
            add_special_tokens=self.add_special_tokens,
            prefix=self.prefix,
        )

    def _pad(self, ids: list[list[int]]) -> tuple[Int[Tensor, "B Q"], Bool[Tensor, "B Q"]]:
        """Masks come from lengths: the padding id is often a real token's id too."""
        lengths = torch.tensor([len(one) for one in ids])
        width = int(lengths.max())
        query_ids = torch.full((len(ids), width), self._pad_id())
        positions = torch.arange(width)
        if self.padding_side == "left":
            query_mask = positions >= (width - lengths)[:, None]
        else:
            query_mask = positions < lengths[:, None]
        query_ids[query_mask] = torch.tensor([token for one in ids for token in one])
        return query_ids, query_mask

    def _pad_id(self) -> int:
        candidates = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(int(one) for one in candidates if one is not None)


class PromptSampler:
    """Training prompts by iteration, without state.

    Batch i holds places i*B to (i+1)*B of an endless row of epochs, each a fresh permutation of
    all rows: every row is read once per epoch and batches cross the border between epochs. With
    fewer rows than the batch holds, a batch reads rows several times.

    Args:
        rows: training rows, at least one.
        tokenizer: of the policy; a fast one.
        template: text with one `{prompt}`, or such a text parsed, with its chat.
        max_query_tokens: longest query, special tokens included.
        query_tokens: each prompt is cut to a number of tokens drawn uniformly from this range,
            both ends included; None leaves prompts whole. TRL's detoxification drew 10 to 15.
        padding_side: "left" for decoder-only, "right" for encoder-decoder models.
        batch_size: prompts per iteration (B).
        seed: of the permutations and the cuts.
        add_special_tokens: True for encoder-decoder models; False puts only BOS before a prompt.

    Raises:
        DataError: if there are no rows, or an argument is out of its range.
    """

    def __init__(  # noqa: PLR0913 - flat arguments, one per setting
        self,
        rows: Sequence[PromptRow],
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: str | PromptTemplate = "{prompt}",
        max_query_tokens: int,
        query_tokens: tuple[int, int] | None = None,
        padding_side: PaddingSide,
        batch_size: int,
        seed: int,
        add_special_tokens: bool,
    ) -> None:
        if not rows:
            raise DataError("there are no training prompts; want at least one: see `data.path`")
        if batch_size < 1:
            raise DataError(
                f"a rollout batch of {batch_size} prompts: want at least 1; "
                "change `algorithm.rollout_batch_size`"
            )
        self._rows = list(rows)
        self._batch_size = batch_size
        self._seed = seed
        self._permutations: dict[int, list[int]] = {}
        self._encoder = _Encoder(
            tokenizer=tokenizer,
            template=_parsed(template),
            max_query_tokens=max_query_tokens,
            query_tokens=_checked_range(query_tokens),
            padding_side=padding_side,
            add_special_tokens=add_special_tokens,
        )

    def batch(self, iteration: int) -> PromptBatch:
        """Prompts of one iteration: the same for the same seed and iteration, whatever came before.

        Args:
            iteration: 0 for the first.

        Returns:
            B prompts.

        Raises:
            DataError: if the window leaves no room for a prompt.
        """
        first = iteration * self._batch_size
        places = range(first, first + self._batch_size)
        rows = [self._row_at(place) for place in places]
        draws = [random.Random(f"cut {self._seed} {place}") for place in places]
        return self._encoder.encode(rows, draws)

    def _row_at(self, place: int) -> PromptRow:
        epoch, index = divmod(place, len(self._rows))
        return self._rows[self._permutation(epoch)[index]]

    def _permutation(self, epoch: int) -> list[int]:
        if epoch not in self._permutations:
            order = list(range(len(self._rows)))
            random.Random(f"epoch {self._seed} {epoch}").shuffle(order)
            # Only a cache: a batch reads neighbouring epochs, older ones are not read again.
            recent = {one: kept for one, kept in self._permutations.items() if one == epoch - 1}
            self._permutations = {**recent, epoch: order}
        return self._permutations[epoch]


def fixed_batches(  # noqa: PLR0913 - flat arguments, one per setting
    rows: Sequence[PromptRow],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: str | PromptTemplate = "{prompt}",
    max_query_tokens: int,
    query_tokens: tuple[int, int] | None = None,
    padding_side: PaddingSide,
    batch_size: int,
    seed: int = 0,
    add_special_tokens: bool,
    count: int | None = None,
) -> list[PromptBatch]:
    """Encode a fixed list of rows for evaluation: the same prompts in every run.

    Args:
        rows: validation or test rows.
        tokenizer: of the policy; a fast one.
        template: text with one `{prompt}`, or such a text parsed, with its chat.
        max_query_tokens: longest query, special tokens included.
        query_tokens: as in PromptSampler; the cut of a row depends on the seed and the row alone.
        padding_side: "left" for decoder-only, "right" for encoder-decoder models.
        batch_size: prompts per batch; the last batch may be smaller.
        seed: of the cuts and of the choice of `count` rows.
        add_special_tokens: True for encoder-decoder models; False puts only BOS before a prompt.
        count: choose this many rows; None takes all. A smaller count is a subset of a larger.

    Returns:
        Batches in the order of the rows.

    Raises:
        DataError: if there are no rows, or an argument is out of its range.
    """
    if not rows:
        raise DataError("there are no prompts to evaluate on; want at least one: see `data.path`")
    if batch_size < 1:
        raise DataError(
            f"a batch of {batch_size} prompts: want at least 1; change `generation.batch_size`"
        )
    encoder = _Encoder(
        tokenizer=tokenizer,
        template=_parsed(template),
        max_query_tokens=max_query_tokens,
        query_tokens=_checked_range(query_tokens),
        padding_side=padding_side,
        add_special_tokens=add_special_tokens,
    )
    chosen = choose_rows(rows, count, seed)
    batches = [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    return [encoder.encode(batch, [_row_draw(row, seed) for row in batch]) for batch in batches]


def _parsed(template: str | PromptTemplate) -> PromptTemplate:
    return parse_template(template) if isinstance(template, str) else template


def _row_draw(row: PromptRow, seed: int) -> random.Random:
    return random.Random(f"row {seed} {row.row_id} {row.prompt}")


def _checked_range(query_tokens: tuple[int, int] | None) -> tuple[int, int] | None:
    if query_tokens is None:
        return None
    low, high = query_tokens
    if not 1 <= low <= high:
        raise DataError(
            f"query lengths from {low} to {high} tokens: want 1 <= first <= second; "
            "change `data.query_tokens`"
        )
    return low, high


def repeat_prompts(prompts: PromptBatch, times: int) -> PromptBatch:
    """Each prompt `times` times in a row, to sample several responses to it."""
    return PromptBatch(
        texts=[text for text in prompts.texts for _ in range(times)],
        query_ids=prompts.query_ids.repeat_interleave(times, dim=0),
        query_mask=prompts.query_mask.repeat_interleave(times, dim=0),
        references=[references for references in prompts.references for _ in range(times)],
        row_ids=[row_id for row_id in prompts.row_ids for _ in range(times)],
        sources=[source for source in prompts.sources for _ in range(times)],
        columns=[columns for columns in prompts.columns for _ in range(times)],
    )
