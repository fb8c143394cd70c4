"""Sources -> rows that pass the filter: all of them, or as many as a limit may choose."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from lora_detox.choices import Turns
from lora_detox.errors import DataError
from lora_detox.progress import track
from lora_detox.prompts.columns import FieldMap, carried_names
from lora_detox.prompts.fields import stream_source
from lora_detox.prompts.heads import check_head
from lora_detox.prompts.holding import StreamedSplits, held, is_large
from lora_detox.prompts.rows import BadRow, BadRowLog, FileRules, PromptRow, RawRow, Rows
from lora_detox.prompts.sources import SPLITS, Source
from lora_detox.prompts.splits import (
    Fractions,
    ToxicityFilter,
    check_fractions,
    part_at,
    parts_of_train,
)


@dataclass(frozen=True, kw_only=True)
class PromptRules:
    """What becomes of the rows that were read.

    Attributes:
        fields: column of each of prompt, references, toxicity and id; dotted for nested rows,
            `a|b` for alternatives; None or absent where there is none. `prompt` is needed; a single
            name has to exist (except `id`), alternatives of the others need not.
        columns: further columns that each row keeps where it has them; "*" is all of them.
        min_toxicity: keep prompts whose toxicity is strictly greater, in the data set's unit.
        max_toxicity: keep prompts whose toxicity is at most this.
        turns: what a list in the prompt column is: "dialogue" (its turns), "prompts" (one each),
            "last" (its last message of the user is the prompt), or "auto" (see `dialogues`).
        encoding: of text files; None is told by the first bytes, else UTF-8.
        delimiter: between the cells of CSV files; None is told by the line of names.
        skip: leave out prompts that match this regular expression from end to end.
        prefixes: texts of which each prompt gets one in front, by a hash of its own text.
        split_fractions: fractions of train, validation and test where one source is split.
        limit: at most this many rows in each split, > 0; a stable choice by `seed`.
        bad_row_limit: malformed rows skipped before it is an error, >= 0.
        seed: of the split by fractions and of `limit`.
        max_line_mb: longest line of a text file, > 0, MiB.
        max_total_mb: most memory for the rows of one source, > 0, MiB.
    """

    fields: Mapping[str, str | None]
    columns: Sequence[str] = ()
    min_toxicity: float | None = None
    max_toxicity: float | None = None
    turns: Turns = Turns.auto
    encoding: str | None = None
    delimiter: str | None = None
    skip: str | None = None
    prefixes: Sequence[str] = ()
    split_fractions: Sequence[float] = (0.8, 0.1, 0.1)
    limit: int | None = None
    bad_row_limit: int = 100
    seed: int = 0
    max_line_mb: int = 64
    max_total_mb: int = 4096


@dataclass(kw_only=True)
class Reading:
    """Rows of every source that pass the filter, with what was met on the way.

    Attributes:
        rows: by split; of a large source with a limit, those that it may choose.
        filters: by split, with their counts.
        read: rows met.
        skipped: rows left out by the pattern.
        over_limit: rows of large sources that no limit can choose.
        overlap_removed: rows of large sources whose prompt stands in a later split.
        bad_rows: those that could not be read.
    """

    rows: dict[str, list[PromptRow]] = field(default_factory=dict)
    filters: dict[str, ToxicityFilter] = field(default_factory=dict)
    read: int = 0
    skipped: int = 0
    over_limit: int = 0
    overlap_removed: int = 0
    bad_rows: BadRowLog


def file_rules(columns: FieldMap, rules: PromptRules) -> FileRules:
    """How the files behind a path are read."""
    return FileRules(
        columns=frozenset(columns.top_level_columns()),
        carried=carried_names(rules.columns),
        encoding=rules.encoding,
        delimiter=rules.delimiter,
        max_line_mb=rules.max_line_mb,
        max_total_mb=rules.max_total_mb,
    )


def pattern(skip: str | None) -> re.Pattern[str] | None:
    """`data.skip`, compiled; DataError where it is no regular expression."""
    try:
        return None if skip is None else re.compile(skip)
    except re.error as error:
        raise DataError(
            f"`data.skip` is {skip!r}, which is no regular expression ({error}); want one, or null"
        ) from error


def three_fractions(split_fractions: Sequence[float]) -> Fractions:
    """`data.split_fractions`, checked; DataError where they are not three that sum to 1."""
    fractions = tuple(float(fraction) for fraction in split_fractions)
    check_fractions(fractions)
    return (fractions[0], fractions[1], fractions[2])


def read_all(sources: Mapping[str, Source], columns: FieldMap, rules: PromptRules) -> Reading:
    """Read every source; with a limit, large ones row by row.

    Args:
        sources: opened, by split.
        columns: which column is what.
        rules: what becomes of the rows.

    Returns:
        The rows and what was counted.

    Raises:
        DataError: a source is unreadable, without the named columns or usable rows, has too many
            bad rows, does not fit into memory, or the filter leaves nothing of it.
    """
    reading = Reading(bad_rows=BadRowLog(limit=rules.bad_row_limit))
    if rules.limit is not None and any(is_large(one) for one in sources.values()):
        _stream(sources, columns, rules, reading, rules.limit)
        return reading
    for split, source in sources.items():
        rows = held(_tracked(source), file_rules(columns, rules), source.name)
        reading.rows[split] = list(_usable_rows(rows, split, columns, rules, reading, source.name))
        reading.filters[split].check(split)
    return reading


def check_split_head(source: Source, split: str, columns: FieldMap, rules: PromptRules) -> None:
    """Raise what the first rows of one source show to be wrong.

    Args:
        source: opened, not read.
        split: that it is for.
        columns: which column is what.
        rules: what becomes of the rows.

    Raises:
        DataError: as `read_all` would raise it.
    """
    reading = Reading(bad_rows=BadRowLog(limit=rules.bad_row_limit))
    check_head(
        source,
        columns,
        lambda head: next(_usable_rows(head, split, columns, rules, reading, source.name), None),
        needs_toxicity=_needs_toxicity(rules),
    )


def _needs_toxicity(rules: PromptRules) -> bool:
    return rules.min_toxicity is not None or rules.max_toxicity is not None


def _stream(
    sources: Mapping[str, Source],
    columns: FieldMap,
    rules: PromptRules,
    reading: Reading,
    limit: int,
) -> None:
    """Read sources row by row; later splits come first, as no row may stand in two."""
    streamed = StreamedSplits(limit, rules.seed)
    fraction_of = parts_of_train(sources, three_fractions(rules.split_fractions))
    of_train = partial(part_at, fraction_of=fraction_of)
    if "validation" in sources and "test" not in sources:  # test is made of training rows
        first = Reading(bad_rows=BadRowLog(limit=rules.bad_row_limit))
        train = sources["train"]
        rows = _usable_rows(_tracked(train), "train", columns, rules, first, train.name)
        streamed.know(rows, "test", of_train)
    for split in (one for one in reversed(SPLITS) if one in sources):
        source = sources[split]
        rows = _usable_rows(_tracked(source), split, columns, rules, reading, source.name)
        parts = of_train if split == "train" else partial(part_at, fraction_of={split: 1.0})
        more = split != "train" and len(sources) > 1
        reading.rows[split] = streamed.add(rows, split, parts, know=more)
        reading.filters[split].check(split)
    reading.over_limit = streamed.seen - sum(map(len, reading.rows.values()))
    reading.overlap_removed = streamed.overlap_removed


def _tracked(source: Source) -> Rows:
    return Rows(lambda: track(source.rows, f"reading {source.name}", source.count))


def _usable_rows(
    source: Sequence[RawRow | BadRow] | Rows,
    split: str,
    columns: FieldMap,
    rules: PromptRules,
    reading: Reading,
    name: str,
) -> Iterator[PromptRow]:
    """Rows of one source that pass the filter; what is met on the way is counted."""
    low, high = rules.min_toxicity, rules.max_toxicity
    reading.filters[split] = chosen = ToxicityFilter(low=low, high=high)
    outcome = stream_source(
        source,
        columns,
        reading.bad_rows,
        turns=Turns(rules.turns),
        skip=pattern(rules.skip),
        needs_toxicity=_needs_toxicity(rules),
        carried=rules.columns,
    )
    usable = 0
    for _, row in outcome.rows:
        usable += 1
        if chosen.keeps(row):
            yield row
    reading.read += outcome.read
    reading.skipped += outcome.skipped
    if not usable:
        key = "data.path" if split == "train" else f"data.path` or `data.{split}_path"
        bad = reading.bad_rows
        examples = f" ({'; '.join(bad.examples)})" if bad.examples else ""
        raise DataError(
            bad.in_common()
            or f"the {split} data ({name}) has no usable row{examples}: want at least one; change "
            f"`{key}`"
        )
