"""Texts as token windows that a classifier can read, batched by length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lora_detox.errors import ScorerError
from lora_detox.machine import bound_word_cache
from lora_detox.positions import position_limit
from lora_detox.special_tokens import is_inside, tokens_around

_NO_LIMIT_ABOVE = 1_000_000  # tokenizers without a limit say 1e30
_DEFAULT_WINDOW = 512
_OVERLAP = 4  # neighbouring windows have a quarter in common


@dataclass(frozen=True, kw_only=True)
class TokenWindow:
    """A piece of one text with the special tokens around it.

    Attributes:
        text_index: which text it is of.
        ids: token ids.
    """

    text_index: int
    ids: list[int]


@dataclass(frozen=True, kw_only=True)
class WindowBatch:
    """Windows of about one length, padded right.

    Attributes:
        window_indices: places [W] of its rows in the list of windows.
        input_ids: token ids [W, T].
        attention_mask: 1 at real tokens [W, T].
    """

    window_indices: Int[Tensor, "W"]
    input_ids: Int[Tensor, "W T"]
    attention_mask: Int[Tensor, "W T"]

    def part(self, rows: range) -> "WindowBatch":
        """Some rows that follow each other, padded as they are."""
        place = slice(rows.start, rows.stop)
        return WindowBatch(
            window_indices=self.window_indices[place],
            input_ids=self.input_ids[place],
            attention_mask=self.attention_mask[place],
        )


def window_length(model: Any, tokenizer: PreTrainedTokenizerBase, max_tokens: int | None) -> int:
    """Longest input of a classifier in tokens, special tokens included.

    RoBERTa counts positions from its padding id + 1, so 514 positions hold 512 tokens.

    Args:
        model: a sequence classifier.
        tokenizer: its tokenizer.
        max_tokens: a shorter limit, or None.

    Returns:
        The smallest of the limits that are known; 512 where none is.
    """
    limits = [limit for limit in (position_limit_of(model), max_tokens) if limit]
    stated = getattr(tokenizer, "model_max_length", None)
    if stated and stated < _NO_LIMIT_ABOVE:
        limits.append(int(stated))
    return min(limits, default=_DEFAULT_WINDOW)


def position_limit_of(model: Any) -> int | None:
    """Tokens that a classifier has positions for, by its tables and its configuration.

    Args:
        model: a sequence classifier.

    Returns:
        The smaller where both say one; None where neither does.
    """
    limits = [limit for limit in (position_limit(model.config),) if limit]
    for name, module in model.named_modules():
        if name.endswith(("position_embeddings", "wpe")) and isinstance(module, nn.Embedding):
            padding = -1 if module.padding_idx is None else module.padding_idx
            limits.append(int(module.num_embeddings) - padding - 1)
            break
    return min(limits, default=None)


def by_length(windows: Sequence[TokenWindow]) -> list[int]:
    """Places of windows, the longest first, equal ones in their order."""
    return sorted(range(len(windows)), key=lambda i: (-len(windows[i].ids), i))


class Windower:
    """Cuts texts into overlapping windows of at most `length` tokens.

    Args:
        tokenizer: of the classifier.
        length: longest window, special tokens included.
        key: settings group of the scorer, for messages.
        rows: of the model's embedding; None where that is not known.
        path_key: setting that names the model, for messages; None is `{key}.path`.

    Raises:
        ScorerError: if the special tokens leave no room.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        key: str,
        rows: int | None = None,
        *,
        path_key: str | None = None,
    ) -> None:
        self._tokenizer, self._rows = tokenizer, rows
        bound_word_cache(tokenizer)
        self._path_key = path_key or f"{key}.path"
        self._prefix, self._suffix = tokens_around(tokenizer)
        self._room = length - len(self._prefix) - len(self._suffix)
        if self._room < 1:
            raise ScorerError(
                f"a window of {length} tokens holds no text beside "
                f"{len(self._prefix) + len(self._suffix)} special tokens; "
                + (f"change `{path_key}`" if path_key else f"raise `{key}.max_tokens`")
            )

    def windows(self, texts: Sequence[str]) -> list[TokenWindow]:
        """Windows of each text in order, at least one per text, an empty text included."""
        windows = []
        for index, ids in enumerate(self._encode(texts)):
            for start in self._starts(len(ids)):
                piece = [*self._prefix, *ids[start : start + self._room], *self._suffix]
                windows.append(TokenWindow(text_index=index, ids=piece or [self._stand_in()]))
        return windows

    def batches(
        self, windows: Sequence[TokenWindow], batch_size: int, batch_tokens: int | None = None
    ) -> Iterator[WindowBatch]:
        """Batches of windows, longest first: little padding, and memory fails early if it does.

        Args:
            windows: what to read.
            batch_size: most windows in a batch.
            batch_tokens: most tokens in a batch, padding included, None for no limit; a longer
                window is a batch of its own.

        Yields:
            Each window in exactly one batch.
        """
        order = by_length(windows)
        pad_id = self._tokenizer.pad_token_id or 0
        first = 0
        while first < len(order):
            rows = batch_size
            if batch_tokens is not None:
                longest = len(windows[order[first]].ids)
                rows = max(1, min(batch_size, batch_tokens // longest))
            chosen = order[first : first + rows]
            first += rows
            lengths = torch.tensor([len(windows[i].ids) for i in chosen])
            mask = torch.arange(int(lengths.max())) < lengths[:, None]
            input_ids = torch.full(mask.shape, pad_id)
            input_ids[mask] = torch.tensor([token for i in chosen for token in windows[i].ids])
            self._check_inside(int(input_ids.max()))
            yield WindowBatch(
                window_indices=torch.tensor(chosen),
                input_ids=input_ids,
                attention_mask=mask.long(),
            )

    def _check_inside(self, highest: int) -> None:
        if not is_inside(highest, self._rows):
            raise ScorerError(
                f"a text holds the token {self._tokenizer.convert_ids_to_tokens(highest)!r}, id "
                f"{highest}, but the model's embedding has {self._rows} rows; want one that "
                f"was resized to its tokenizer; change `{self._path_key}`"
            )

    def _starts(self, length: int) -> list[int]:
        if length <= self._room:
            return [0]
        stride = max(1, self._room - self._room // _OVERLAP)
        last = length - self._room
        return [*range(0, last, stride), last]  # the last window is full as well

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, in one call: fast tokenizers read a list on all cores."""
        if not texts:
            return []
        # Stored tokenizers may carry a truncation of their own: a long text would end unread.
        encoded: Any = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=False,
            padding=False,
            verbose=False,
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def _stand_in(self) -> int:
        tokenizer = self._tokenizer
        candidates = (tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id, 0)
        return next(int(one) for one in candidates if one is not None)
