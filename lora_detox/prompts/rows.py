"""The records of this stage: a row of data, the three sets of rows, and what was dropped."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_detox.errors import DataError

NAMED_BAD_ROWS = 5


@dataclass(frozen=True)
class Twice:
    """Stands in for the value of a column that stands twice."""


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """One usable row of a data set.

    Attributes:
        row_id: stable name of the row, for reports.
        prompt: the prompt text, never blank.
        references: reference responses, empty where there are none.
        toxicity: toxicity of the prompt as the data set states it, None where it does not.
    """

    row_id: str
    prompt: str
    references: list[str]
    toxicity: float | None


@dataclass(frozen=True, kw_only=True)
class RawRow:
    """A row as its source has it.

    Attributes:
        where: file and line, or split and index.
        columns: column name -> value, possibly nested.
    """

    where: str
    columns: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that could not be read.

    Attributes:
        where: file and line, or split and index.
        reason: what is wrong with it.
    """

    where: str
    reason: str


@dataclass
class BadRowLog:
    """Counts bad rows, names the first few, and stops the run past a limit.

    Attributes:
        limit: how many are skipped before DataError; 0 tolerates none.
        count: how many were met so far.
        examples: the first few as "file:line: reason".
        reasons: every reason that was met, numbers left out.
    """

    limit: int
    count: int = 0
    examples: list[str] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)

    def add(self, bad: BadRow, usable: int) -> None:
        """Count one bad row.

        Args:
            bad: the row.
            usable: rows of the same source that were read well before it.

        Raises:
            DataError: past the limit.
        """
        self.count += 1
        self.reasons.add(re.sub(r"\d+", "N", bad.reason))
        if len(self.examples) < NAMED_BAD_ROWS:
            self.examples.append(f"{bad.where}: {bad.reason}")
        if self.count > self.limit:
            raise DataError(self._too_many(usable))

    def _too_many(self, usable: int) -> str:
        """To skip more rows is no advice where not a single one can be read."""
        if usable == 0 and len(self.reasons) == 1:
            return (
                f"all of the first {self.count} rows are bad alike ({self.examples[0]}): the "
                "source is not what it is read as; look at its first lines and at "
                "`data.fields`, `data.path`"
            )
        return (
            f"more than {self.limit} bad rows (the first: {'; '.join(self.examples)}); "
            "repair the data, or skip more of them with `data.bad_row_limit`"
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
