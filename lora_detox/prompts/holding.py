"""How much of a source is held at a time: all of a small one, no more than is chosen of a large."""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from lora_detox.errors import DataError
from lora_detox.prompts.files import data_suffix, is_plain_text
from lora_detox.prompts.rows import MIB, BadRow, ColumnsTwice, FileRules, PromptRow, RawRow
from lora_detox.prompts.sources import Source
from lora_detox.prompts.splits import check_disjoint, prompt_digest

_SMALL_BYTES = 64 * MIB
_ROW_BYTES, _VALUE_BYTES = 300, 60
"""What Python needs for a row and for a value in it, beside the characters of texts."""
_WHOLE_ROWS = 100
"""First rows that keep every column: messages about columns list what these have."""


def is_large(source: Source) -> bool:
    """Whether a source may not fit into memory: big files, and those that unfold as they are read.

    Args:
        source: opened, not read.

    Returns:
        False where rows are generated, or plain text of at most 64 MiB in all.
    """
    if not all(data_suffix(path) and is_plain_text(path) for path in source.files):
        return True
    return sum(path.stat().st_size for path in source.files) > _SMALL_BYTES


def held(rows: Iterable[RawRow | BadRow], rules: FileRules, name: str) -> list[RawRow | BadRow]:
    """All rows of a source, as long as they fit.

    Args:
        rows: as they are read.
        rules: the columns that may be read, others are let go; and the memory there is.
        name: of the source, for the message.

    Returns:
        The rows.

    Raises:
        DataError: they take more memory than the rules allow.
    """
    kept: list[RawRow | BadRow] = []
    size = 0
    for raw in rows:
        row = raw if len(kept) < _WHOLE_ROWS else _slim(raw, rules)
        kept.append(row)
        size += _ROW_BYTES + (bytes_of(row.columns) if isinstance(row, RawRow) else 0)
        if size > rules.max_total_mb * MIB:
            raise DataError(
                f"{name} holds more than {rules.max_total_mb} MiB of rows (data.max_total_mb), of "
                f"which {len(kept):,} were read; set `data.limit` to hold a choice of so many rows "
                "alone, or raise `data.max_total_mb`"
            )
    return kept


def _slim(raw: RawRow | BadRow, rules: FileRules) -> RawRow | BadRow:
    """A row without the columns that nobody reads."""
    if isinstance(raw, BadRow) or isinstance(raw.columns, ColumnsTwice):
        return raw
    columns = {name: value for name, value in raw.columns.items() if rules.reads(str(name))}
    return replace(raw, columns=columns) if columns else raw


def bytes_of(value: Any) -> int:
    """About what a value takes; what is nested beyond reason is counted by its outside."""
    size, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        size += _VALUE_BYTES
        if isinstance(one, (str, bytes)):
            size += len(one)
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, (list, tuple)):
            waiting += one
    return size


_LATER = {"train": ("validation", "test"), "validation": ("test",), "test": ()}
"""The splits that a prompt may not stand in as well."""


class StreamedSplits:
    """Of rows that come one by one, those that `choose_rows` would choose of all of them.

    Rows whose prompt stands in a later split are passed over, as `remove_overlap` does, so that
    later splits have to be known first.

    Args:
        count: rows that are chosen at most, in each split.
        seed: of positions.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._taken: dict[str, set[int]] = {"validation": set(), "test": set()}
        self._train_rows = self._train_kept = 0
        self.seen = self.overlap_removed = 0

    def know(self, rows: Iterable[PromptRow], split: str, part_at: Callable[[float], str]) -> None:
        """Know the prompts of a split out of a source that is read once more for its rows."""
        digests = (prompt_digest(row.prompt, self._seed) for row in rows)
        self._taken[split] |= {one for one in digests if part_at(one / 2**64) == split}

    def add(
        self, rows: Iterable[PromptRow], source: str, part_at: Callable[[float], str], *, know: bool
    ) -> list[PromptRow]:
        """Read a source.

        Args:
            rows: that pass the filter.
            source: the split that it is for, or is divided from.
            part_at: the split of a row by the position of its prompt.
            know: whether other sources follow, whose rows may have the same prompts.

        Returns:
            What may be chosen, in the order in which it came.
        """
        heaps: dict[str, list[tuple[int, int, PromptRow]]] = {}
        for row in rows:
            digest = prompt_digest(row.prompt, self._seed)
            part = part_at(digest / 2**64)
            self._train_rows += part == "train"
            if any(digest in self._taken[later] for later in _LATER[part]):
                self.overlap_removed += 1
                continue
            self._train_kept += part == "train"
            if know and part != "train":
                self._taken[part].add(digest)
            self._keep(heaps.setdefault(part, []), (-digest, -self.seen, row))
            self.seen += 1
        if source == "train":
            check_disjoint(self._train_rows, self._train_kept)
        entries = (entry for heap in heaps.values() for entry in heap)
        return [row for _, _, row in sorted(entries, key=lambda entry: -entry[1])]

    def _keep(
        self, heap: list[tuple[int, int, PromptRow]], entry: tuple[int, int, PromptRow]
    ) -> None:
        """Keep an entry while it is among the first; the last of them is on top."""
        if len(heap) < self._count:
            heapq.heappush(heap, entry)
        elif entry[:2] > heap[0][:2]:
            heapq.heapreplace(heap, entry)
