"""Train, validation and test sets that share no prompt text.

Everything here depends on the prompt text and the seed only, never on the order of rows, so a row
that is added or moved changes no other row's split.
"""

import hashlib
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from lora_detox.errors import DataError
from lora_detox.prompts.rows import PromptRow
from lora_detox.prompts.sources import SPLITS

Rows = list[PromptRow]
Fractions = tuple[float, float, float]


@dataclass(kw_only=True)
class ToxicityFilter:
    """Keeps prompts that are more toxic than a threshold (strictly), and at most an upper limit.

    Attributes:
        low: threshold in the data set's own unit; None keeps everything that `high` does.
        high: upper limit in the same unit; None has none.
        seen: rows that were asked about.
        kept: those that are kept.
        null_toxicity: how many were dropped because it is unknown.
        below_threshold: how many were dropped because it is not above.
        above_limit: how many were dropped because it is above the upper limit.
        highest: the highest toxicity that was met, None before any.
    """

    low: float | None = None
    high: float | None = None
    seen: int = 0
    kept: int = 0
    null_toxicity: int = 0
    below_threshold: int = 0
    above_limit: int = 0
    highest: float | None = None

    def keeps(self, row: PromptRow) -> bool:
        """Whether a row is kept; it is counted."""
        self.seen += 1
        if self.low is None and self.high is None:
            self.kept += 1
            return True
        toxicity = row.toxicity
        if toxicity is None:
            self.null_toxicity += 1
            return False
        self.highest = toxicity if self.highest is None else max(self.highest, toxicity)
        if self.low is not None and toxicity <= self.low:
            self.below_threshold += 1
        elif self.high is not None and toxicity > self.high:
            self.above_limit += 1
        else:
            self.kept += 1
            return True
        return False

    def check(self, split: str) -> None:
        """Raise DataError if nothing is left of a source that had rows."""
        if not self.seen or self.kept:
            return
        known = self.highest is not None
        highest = (
            f"the highest toxicity is {self.highest:.4g}" if known else "every toxicity is null"
        )
        low = -math.inf if self.low is None else self.low
        raise DataError(
            f"none of the {self.seen} {split} rows has a toxicity above {low:g}"
            f"{'' if self.high is None else f' and at most {self.high:g}'}: {highest} "
            f"({self.null_toxicity} are null); lower `data.min_toxicity`"
            f"{'' if self.high is None else ' or raise `data.max_toxicity`'}"
        )


def prompt_key(prompt: str) -> str:
    """The text by which prompts are the same: white space is no difference."""
    return " ".join(prompt.split())


def prompt_position(prompt: str, seed: int) -> float:
    """Where a prompt stands in [0, 1): uniform over prompts, the same on every machine."""
    return prompt_digest(prompt, seed) / 2**64


def prompt_digest(prompt: str, seed: int) -> int:
    """The same as a whole number of 64 bits."""
    text = f"{seed}\n{prompt_key(prompt)}".encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "big")


def complete_splits(sets: dict[str, Rows], fractions: Fractions, seed: int) -> dict[str, Rows]:
    """Make the splits that a source lacks out of its training rows.

    Args:
        sets: split -> rows; "train" is there, the others may be.
        fractions: fractions of train, validation and test in [0, 1], summing to 1.
        seed: another seed gives another split.

    Returns:
        The three splits. Rows with the same prompt text land in one split.

    Raises:
        DataError: if the fractions do not sum to 1, or "train" is missing.
    """
    check_fractions(fractions)
    if "train" not in sets:
        raise DataError(
            f"the data has {' and '.join(sets)} but no training split; "
            "change `data.path` or `data.split_names`"
        )
    fraction_of = parts_of_train(sets, fractions)
    parts = _divide(sets["train"], fraction_of, seed) if len(fraction_of) > 1 else {}
    return {split: parts.get(split, sets.get(split, [])) for split in SPLITS}


def parts_of_train(sets: Container[str], fractions: Fractions) -> dict[str, float]:
    """The splits that are made out of the training rows, each with its fraction."""
    missing = [split for split in SPLITS if split == "train" or split not in sets]
    return {split: fractions[SPLITS.index(split)] for split in missing}


def part_at(position: float, fraction_of: Mapping[str, float]) -> str:
    """The one of these splits that a prompt belongs to by its position."""
    total = sum(fraction_of.values())
    return _split_at(position * total, fraction_of) if total else "train"


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise DataError unless these are three fractions that sum to 1."""
    if len(fractions) == len(SPLITS) and min(fractions) >= 0 and math.isclose(sum(fractions), 1):
        return
    raise DataError(
        f"split fractions {tuple(fractions)}: want three numbers >= 0 that sum to 1 "
        "(train, validation, test); change `data.split_fractions`"
    )


def _divide(rows: Rows, fraction_of: dict[str, float], seed: int) -> dict[str, Rows]:
    if sum(fraction_of.values()) == 0:
        return {"train": rows}
    split_of: dict[str, str] = {}
    for row in rows:
        key = prompt_key(row.prompt)
        if key not in split_of:
            split_of[key] = part_at(prompt_position(key, seed), fraction_of)
    _fill_empty(split_of, fraction_of, seed)
    parts: dict[str, Rows] = {split: [] for split in fraction_of}
    for row in rows:
        parts[split_of[prompt_key(row.prompt)]].append(row)
    return parts


def _split_at(position: float, fraction_of: Mapping[str, float]) -> str:
    edge = 0.0
    for split, fraction in fraction_of.items():
        edge += fraction
        if position < edge:
            return split
    return max(fraction_of, key=lambda split: fraction_of[split])  # rounding at the upper edge


def _fill_empty(split_of: dict[str, str], fraction_of: dict[str, float], seed: int) -> None:
    """Very small data: each wanted split gets a prompt while there are enough of them."""
    wanted = [split for split, fraction in fraction_of.items() if fraction > 0]
    if len(split_of) < len(wanted):
        return
    for split in wanted:
        members = {one: [key for key in split_of if split_of[key] == one] for one in wanted}
        if not members[split]:
            largest = max(wanted, key=lambda one: len(members[one]))
            moved = min(members[largest], key=lambda key: prompt_position(key, seed))
            split_of[moved] = split


def remove_overlap(sets: dict[str, Rows]) -> tuple[dict[str, Rows], int]:
    """Drop rows whose prompt stands in a later split: test wins over validation over train.

    Args:
        sets: the three splits.

    Returns:
        The splits without overlap, and how many rows were dropped.

    Raises:
        DataError: if no training row is left.
    """
    taken: set[str] = set()
    kept: dict[str, Rows] = {}
    for split in reversed(SPLITS):
        kept[split] = [row for row in sets[split] if prompt_key(row.prompt) not in taken]
        taken |= {prompt_key(row.prompt) for row in kept[split]}
    check_disjoint(len(sets["train"]), len(kept["train"]))
    removed = sum(len(sets[split]) - len(kept[split]) for split in SPLITS)
    return {split: kept[split] for split in SPLITS}, removed


def check_disjoint(rows: int, kept: int) -> None:
    """Raise DataError if of so many training rows none is left."""
    if rows and not kept:
        raise DataError(
            f"every prompt of the {rows} training rows also stands in validation or "
            "test: want other rows to train on; change `data.path`"
        )


def choose_rows(rows: Sequence[PromptRow], count: int | None, seed: int) -> Rows:
    """A stable choice of at most `count` rows: a smaller count gives a subset of a larger one.

    Args:
        rows: rows to choose from.
        count: how many at most; None keeps all.
        seed: another seed gives another choice.

    Returns:
        The chosen rows in their order.
    """
    if count is None or count >= len(rows):
        return list(rows)
    order = sorted(range(len(rows)), key=lambda i: (prompt_position(rows[i].prompt, seed), i))
    return [rows[i] for i in sorted(order[:count])]
