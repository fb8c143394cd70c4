"""The records of this stage: a row of data, the three sets of rows, and what was dropped."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lora_detox.errors import DataError

MIB = 2**20
NAMED_BAD_ROWS = 5
ALL = "*"
"""Stands for every column among those that are carried along."""
_MOSTLY = 10
"""Rows fail alike where at most one in ten does not."""
_READ_PAST_THE_LIMIT = 1000
"""So many more bad rows are read, to tell whether all fail alike."""


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """One usable row of a data set.

    Attributes:
        row_id: stable name of the row, for reports.
        prompt: the prompt text, never blank.
        references: reference responses, empty where there are none.
        toxicity: toxicity of the prompt as the data set states it, None where it does not.
        columns: further columns, by which nothing is chosen; they go into samples.jsonl.
    """

    row_id: str
    prompt: str
    references: list[str]
    toxicity: float | None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RawRow:
    """A row as its source has it.

    Attributes:
        where: file and line, or split and index.
        columns: column name -> value, possibly nested.
        is_text: whether the source has nothing but text, so that a value may have been written as
            such (CSV, Excel).
        unread: names of columns that the source has too, whose values were left out.
    """

    where: str
    columns: Mapping[str, Any]
    is_text: bool = False
    unread: Sequence[str] = ()


class Rows(Iterable[Any]):
    """Rows that are read anew each time somebody iterates over them, so that none need be held.

    Args:
        read: begins to read.
    """

    def __init__(self, read: Callable[[], Iterator[Any]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Any]:
        return self._read()


class ColumnsTwice(dict[str, Any]):
    """Columns of which some stand twice in the source; the last one's value is kept.

    Args:
        columns: column name -> value.
        twice: names that stand twice here; none where that is so deeper inside.
    """

    def __init__(self, columns: Mapping[str, Any], twice: frozenset[str]) -> None:
        super().__init__(columns)
        self.twice = twice


def columns_of(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Columns of a row of a table, marked where a name stands twice.

    Args:
        names: of the columns.
        values: as many.

    Returns:
        Column name -> value.
    """
    columns = dict(zip(names, values, strict=True))
    if len(columns) == len(names):
        return columns
    twice = frozenset(name for name, count in Counter(names).items() if count > 1)
    return ColumnsTwice(columns, twice)


@dataclass(frozen=True, kw_only=True)
class FileRules:
    """How files are read.

    Attributes:
        columns: outermost columns that any field may read.
        carried: further columns that are read where they are there; "*" is all of them.
        encoding: of text files; None tells it by the first bytes, UTF-8 where they are silent.
        delimiter: between the cells of a CSV file; None tells it by the line of names.
        max_line_mb: longest line, and record of a CSV file, in MiB (of characters).
        max_total_mb: most memory that the rows of one source may take before they are chosen from,
            in MiB; a file that is read as a whole may have a quarter of it.
    """

    columns: frozenset[str]
    carried: frozenset[str] = frozenset()
    encoding: str | None = None
    delimiter: str | None = None
    max_line_mb: int = 64
    max_total_mb: int = 4096

    @property
    def longest_line(self) -> int:
        """Characters of a line, at most."""
        return self.max_line_mb * MIB

    @property
    def longest_text(self) -> int:
        """Characters, or bytes, of a file that is read as a whole, at most."""
        return self.max_total_mb * MIB // 4

    @cached_property
    def wanted(self) -> frozenset[str]:
        """The columns as they are compared: without regard to case."""
        return frozenset(column.casefold() for column in self.columns)

    @cached_property
    def _carried(self) -> frozenset[str]:
        return frozenset(column.casefold() for column in self.carried)

    def wants(self, name: str) -> bool:
        """Whether a field may read a column of this name."""
        return name.strip().casefold() in self.wanted

    def reads(self, name: str) -> bool:
        """Whether a column of this name is read, by a field or to be carried along."""
        return self.wants(name) or ALL in self.carried or name.strip().casefold() in self._carried


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that could not be read.

    Attributes:
        where: file and line, or split and index.
        reason: what is wrong with it.
        kind: the same without what is its own, by which rows that fail alike are known; empty
            where the reason says just that.
        advice: what to do if every row is like that; empty where nothing is known.
    """

    where: str
    reason: str
    kind: str = ""
    advice: str = ""


@dataclass
class BadRowLog:
    """Counts bad rows, names the first few, and stops the run where a source has too many.

    Attributes:
        limit: how many are skipped before DataError; 0 tolerates none.
        count: how many were met so far.
        good: how many rows of the present source were fine so far.
        examples: the first few as "file:line: reason".
    """

    limit: int
    count: int = 0
    good: int = 0
    examples: list[str] = field(default_factory=list)
    _kinds: Counter[str] = field(default_factory=Counter)
    _first: dict[str, BadRow] = field(default_factory=dict)

    def begin_source(self) -> None:
        """The rows that follow are of another source."""
        self.good = 0
        self._kinds.clear()
        self._first.clear()

    def add(self, bad: BadRow) -> None:
        """Count one bad row; raises DataError far past the limit, without reading to the end."""
        self.count += 1
        kind = bad.kind or bad.reason
        self._kinds[kind] += 1
        self._first.setdefault(kind, bad)
        if len(self.examples) < NAMED_BAD_ROWS:
            self.examples.append(f"{bad.where}: {bad.reason}")
        if self.count > self.limit + _READ_PAST_THE_LIMIT:
            self.check()

    def check(self) -> None:
        """Raise DataError if more rows are bad than the limit allows."""
        if self.count <= self.limit:
            return
        if common := self.in_common():
            raise DataError(common)
        skip = ", or skip more of them with `data.bad_row_limit`" if self.good else ""
        raise DataError(
            f"more than {self.limit} bad rows (the first: {'; '.join(self.examples)}); "
            f"repair the data{skip}"
        )

    def in_common(self) -> str | None:
        """What nearly all rows of the source fail by, and what to do; None where they differ."""
        bad = sum(self._kinds.values())
        if not bad or self.good * _MOSTLY > bad:
            return None
        kind, count = self._kinds.most_common(1)[0]
        if (bad - count) * _MOSTLY > bad:
            return None
        first, rows = self._first[kind], bad + self.good
        amount = f"all {rows}" if count == rows else f"{count} of {rows}"
        advice = first.advice or "repair the data, or change `data.path`"
        return (
            f"{amount} rows that were read fail alike: {kind} (the first: {first.where}: "
            f"{first.reason}); {advice}"
        )


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What was read, and what became of it.

    Attributes:
        read: rows met in every source, bad ones included.
        bad: rows skipped because they are malformed.
        bad_examples: the first few of them as "file:line: reason".
        skipped: rows left out by the pattern `skip`.
        null_toxicity: rows dropped because a threshold is set and their toxicity is unknown.
        below_threshold: rows dropped because their toxicity is not above the threshold.
        above_limit: rows dropped because their toxicity is above `max_toxicity`.
        overlap_removed: rows dropped because their prompt also stands in a later split.
        duplicates: rows kept although an earlier row of their split has the same prompt.
        over_limit: rows left out by `limit`.
        sizes: split -> rows kept.
        kept_in: the cache folder that the sets came from, None where they were read; no part of
            what is compared.
    """

    read: int
    bad: int
    bad_examples: tuple[str, ...]
    null_toxicity: int
    below_threshold: int
    overlap_removed: int
    duplicates: int
    over_limit: int
    sizes: Mapping[str, int]
    skipped: int = 0
    above_limit: int = 0
    kept_in: str | None = field(default=None, compare=False)

    def describe(self) -> str:
        """One line for the console."""
        sizes = ", ".join(f"{size} {split}" for split, size in self.sizes.items())
        parts = [f"prompts: {sizes} (of {self.read} rows read)"]
        counts = {
            "not above the toxicity threshold": self.below_threshold,
            "more toxic than the limit": self.above_limit,
            "of unknown toxicity": self.null_toxicity,
            "skipped by the pattern": self.skipped,
            "removed because validation or test has the same prompt": self.overlap_removed,
            "duplicates kept": self.duplicates,
            "over the limit": self.over_limit,
        }
        parts += [f"{count} {what}" for what, count in counts.items() if count]
        if self.bad:
            parts.append(f"{self.bad} bad rows skipped ({'; '.join(self.bad_examples)})")
        if self.kept_in:
            parts.append(f"from the cache {self.kept_in}")
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class PromptSets:
    """The three sets of rows; no prompt text stands in two of them.

    Attributes:
        train: rows that rollouts draw from.
        validation: rows that are evaluated during training.
        test: rows of the evaluation before and after.
        report: what was read and dropped.
    """

    train: list[PromptRow]
    validation: list[PromptRow]
    test: list[PromptRow]
    report: LoadReport
