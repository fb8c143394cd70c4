"""Train, validation and test sets that share no prompt text.

Everything here depends on the prompt text and the seed only, never on the order of rows, so a row
that is added or moved changes no other row's split.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lora_detox.errors import DataError
from lora_detox.prompts.rows import PromptRow
from lora_detox.prompts.sources import SPLITS

Rows = list[PromptRow]
Fractions = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ToxicRows:
    """What the toxicity filter kept of one source.

    Attributes:
        rows: rows whose toxicity is above the threshold.
        null_toxicity: how many were dropped because it is unknown.
        below_threshold: how many were dropped because it is not above.
        above_limit: how many were dropped because it is above the upper limit.
    """

    rows: Rows
    null_toxicity: int
    below_threshold: int
    above_limit: int = 0


def prompt_key(prompt: str) -> str:
    """The text by which prompts are the same: white space is no difference."""
    return " ".join(prompt.split())


def prompt_position(prompt: str, seed: int) -> float:
    """Where a prompt stands in [0, 1): uniform over prompts, the same on every machine."""
    text = f"{seed}\n{prompt_key(prompt)}".encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def keep_toxic(
    rows: Sequence[PromptRow],
    min_toxicity: float | None,
    split: str,
    max_toxicity: float | None = None,
) -> ToxicRows:
    """Keep prompts that are more toxic than a threshold (strictly), and at most an upper limit.

    Args:
        rows: rows of one source.
        min_toxicity: threshold in the data set's own unit; None keeps everything.
        split: name of the source, for the message.
        max_toxicity: upper limit in the same unit; None has none.

    Returns:
        The rows above it, and how many were dropped and why.

    Raises:
        DataError: if nothing is left of a source that had rows.
    """
    if min_toxicity is None and max_toxicity is None:
        return ToxicRows(rows=list(rows), null_toxicity=0, below_threshold=0)
    known = [row.toxicity for row in rows if row.toxicity is not None]
    low = -math.inf if min_toxicity is None else min_toxicity
    high = math.inf if max_toxicity is None else max_toxicity
    kept = [row for row in rows if row.toxicity is not None and low < row.toxicity <= high]
    if rows and not kept:
        highest = f"the highest toxicity is {max(known):.4g}" if known else "every toxicity is null"
        raise DataError(
            f"none of the {len(rows)} {split} rows has a toxicity above {low:g}"
            f"{'' if max_toxicity is None else f' and at most {max_toxicity:g}'}: {highest} "
            f"({len(rows) - len(known)} are null); lower `data.min_toxicity`"
            f"{'' if max_toxicity is None else ' or raise `data.max_toxicity`'}"
        )
    return ToxicRows(
        rows=kept,
        null_toxicity=len(rows) - len(known),
        below_threshold=sum(one <= low for one in known),
        above_limit=sum(one > high for one in known),
    )


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
    missing = [split for split in SPLITS if split == "train" or split not in sets]
    fraction_of = {split: fractions[SPLITS.index(split)] for split in missing}
    parts = _divide(sets["train"], fraction_of, seed) if len(missing) > 1 else {}
    return {split: parts.get(split, sets.get(split, [])) for split in SPLITS}


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise DataError unless these are three fractions that sum to 1."""
    if len(fractions) == len(SPLITS) and min(fractions) >= 0 and math.isclose(sum(fractions), 1):
        return
    raise DataError(
        f"split fractions {tuple(fractions)}: want three numbers >= 0 that sum to 1 "
        "(train, validation, test); change `data.split_fractions`"
    )


def _divide(rows: Rows, fraction_of: dict[str, float], seed: int) -> dict[str, Rows]:
    total = sum(fraction_of.values())
    if total == 0:
        return {"train": rows}
    split_of: dict[str, str] = {}
    for row in rows:
        key = prompt_key(row.prompt)
        if key not in split_of:
            split_of[key] = _split_at(prompt_position(key, seed) * total, fraction_of)
    _fill_empty(split_of, fraction_of, seed)
    parts: dict[str, Rows] = {split: [] for split in fraction_of}
    for row in rows:
        parts[split_of[prompt_key(row.prompt)]].append(row)
    return parts


def _split_at(position: float, fraction_of: dict[str, float]) -> str:
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
    if sets["train"] and not kept["train"]:
        raise DataError(
            f"every prompt of the {len(sets['train'])} training rows also stands in validation or "
            "test: want other rows to train on; change `data.path`"
        )
    removed = sum(len(sets[split]) - len(kept[split]) for split in SPLITS)
    return {split: kept[split] for split in SPLITS}, removed


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
