"""From a path to three sets of prompt rows."""

import codecs
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lora_detox.choices import Turns
from lora_detox.errors import DataError
from lora_detox.progress import track
from lora_detox.prompts.columns import FieldMap, field_map
from lora_detox.prompts.fields import read_source
from lora_detox.prompts.rows import BadRowLog, FileRules, LoadReport, PromptRow, PromptSets
from lora_detox.prompts.sources import SPLITS, Source, open_sources, open_split
from lora_detox.prompts.splits import (
    Fractions,
    ToxicRows,
    check_fractions,
    choose_rows,
    complete_splits,
    keep_toxic,
    prompt_key,
    prompt_position,
    remove_overlap,
)
from lora_detox.prompts.stored import read_sets, sets_key, write_sets

_WORTH_CACHING_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class PromptRules:
    """What becomes of the rows that were read.

    Attributes:
        fields: column of each of prompt, references, toxicity and id; dotted for nested rows,
            `a|b` for alternatives; None or absent where there is none. `prompt` is needed; a single
            name has to exist (except `id`), alternatives of the others need not.
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
    """

    fields: Mapping[str, str | None]
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


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """Usable rows of every source before filters, with what was met on the way."""

    rows: dict[str, list[PromptRow]]
    read: int
    bad_rows: BadRowLog
    skipped: int = 0


def load_prompt_sets(
    *,
    path: str,
    validation_path: str | None = None,
    test_path: str | None = None,
    config_name: str | None = None,
    revision: str | None = None,
    split_names: Sequence[str] = SPLITS,
    cache: bool = True,
    **rules: Any,
) -> PromptSets:
    """Read, filter and split the prompts of a run; what took long is kept for the next one.

    Args:
        path: `embedded:dialogues`, `embedded:comments`, a local file (`files.KINDS_OF_FILES`), a
            local folder, or the id of a hub data set.
        validation_path: another source of validation rows, of any kind that `path` may be.
        test_path: another source of test rows.
        config_name: configuration of a hub data set.
        revision: revision of a hub data set.
        split_names: what the source calls train, validation and test.
        cache: whether sets of unchanged files may come from the cache, and go there.
        **rules: those of PromptRules.

    Returns:
        Three sets that share no prompt text, and a report of what was dropped.

    Raises:
        DataError: if a source is missing, unreadable, empty, without the named columns, with too
            many bad rows, or if a filter leaves nothing.
    """
    checked = _checked_rules(PromptRules(**rules))
    columns = field_map(checked.fields)
    names, files = _three_names(split_names), file_rules(columns, checked)
    sources = open_sources(
        path, config_name=config_name, revision=revision, split_names=names, rules=files
    )
    for split, other in (("validation", validation_path), ("test", test_path)):
        if other is not None:
            sources[split] = open_split(other, split, split_names=names, rules=files)
    key = sets_key(sources, asdict(checked)) if cache else None
    if key is not None and (kept := read_sets(key)) is not None:
        return kept
    begin = time.monotonic()
    sets = _make_sets(sources, columns, checked)
    if key is not None and time.monotonic() - begin > _WORTH_CACHING_SECONDS:
        write_sets(key, sets)
    return sets


def file_rules(columns: FieldMap, rules: PromptRules) -> FileRules:
    """How the files behind a path are read."""
    return FileRules(
        columns=frozenset(columns.top_level_columns()),
        encoding=rules.encoding,
        delimiter=rules.delimiter,
    )


def _make_sets(sources: Mapping[str, Source], columns: FieldMap, rules: PromptRules) -> PromptSets:
    """Read every source, then filter, split and choose."""
    low, high = rules.min_toxicity, rules.max_toxicity
    reading = _read_all(
        sources,
        columns,
        BadRowLog(limit=rules.bad_row_limit),
        rules,
        needs_toxicity=low is not None or high is not None,
    )
    toxic = {split: keep_toxic(rows, low, split, high) for split, rows in reading.rows.items()}
    fractions = _three_fractions(rules.split_fractions)
    split_rows = complete_splits(
        {name: kept.rows for name, kept in toxic.items()}, fractions, rules.seed
    )
    disjoint, removed = remove_overlap(split_rows)
    chosen = {split: choose_rows(rows, rules.limit, rules.seed) for split, rows in disjoint.items()}
    report = _report(reading, toxic, disjoint, chosen, removed)
    train, validation, test = (
        [_prefixed(row, rules.prefixes, rules.seed) for row in chosen[split]] for split in SPLITS
    )
    return PromptSets(train=train, validation=validation, test=test, report=report)


def _checked_rules(rules: PromptRules) -> PromptRules:
    columns = field_map(rules.fields)
    _three_fractions(rules.split_fractions)
    _pattern(rules.skip)
    _check_reading(rules)
    _check_plain(columns, rules.min_toxicity, rules.max_toxicity, rules.limit, rules.bad_row_limit)
    return rules


def _check_plain(
    columns: FieldMap,
    min_toxicity: float | None,
    max_toxicity: float | None,
    limit: int | None,
    bad_row_limit: int,
) -> None:
    for name, bound in (("min_toxicity", min_toxicity), ("max_toxicity", max_toxicity)):
        if bound is not None and not columns.toxicity:
            raise DataError(
                f"`data.{name}` is {bound:g} but no column is named for the toxicity; "
                f"set `data.fields.toxicity`, or `data.{name}=null`"
            )
    if limit is not None and limit <= 0:
        raise DataError(f"a limit of {limit} rows: want at least 1, or null; change `data.limit`")
    if bad_row_limit < 0:
        raise DataError(
            f"a limit of {bad_row_limit} bad rows: want 0 or more; change `data.bad_row_limit`"
        )


def _check_reading(rules: PromptRules) -> None:
    if rules.turns not in list(Turns):
        raise DataError(f"`data.turns` is {rules.turns!r}: want {', '.join(Turns)}")
    if rules.delimiter is not None and (len(rules.delimiter) != 1 or rules.delimiter in '"\r\n'):
        raise DataError(
            f"`data.delimiter` is {rules.delimiter!r}: want one character, as in "
            "'data.delimiter=\";\"', or null"
        )
    try:
        codecs.lookup(rules.encoding or "utf-8")
    except LookupError as error:
        raise DataError(
            f"`data.encoding` is {rules.encoding!r}, which Python does not know; want a name like "
            "utf-8, utf-16 or windows-1252, or null"
        ) from error


def _pattern(skip: str | None) -> re.Pattern[str] | None:
    try:
        return None if skip is None else re.compile(skip)
    except re.error as error:
        raise DataError(
            f"`data.skip` is {skip!r}, which is no regular expression ({error}); want one, or null"
        ) from error


def _prefixed(row: PromptRow, prefixes: Sequence[str], seed: int) -> PromptRow:
    if not prefixes:
        return row
    place = int(prompt_position(row.prompt, seed + 1) * len(prefixes))
    return replace(row, prompt=prefixes[place] + row.prompt)


def _three_names(split_names: Sequence[str]) -> tuple[str, str, str]:
    if isinstance(split_names, str) or len(split_names) != len(SPLITS):
        raise DataError(
            f"split names {split_names!r}: want three, for train, validation and test; "
            "change `data.split_names`"
        )
    return (split_names[0], split_names[1], split_names[2])


def _three_fractions(split_fractions: Sequence[float]) -> Fractions:
    fractions = tuple(float(fraction) for fraction in split_fractions)
    check_fractions(fractions)
    return (fractions[0], fractions[1], fractions[2])


def _read_all(
    sources: Mapping[str, Source],
    columns: FieldMap,
    bad_rows: BadRowLog,
    rules: PromptRules,
    *,
    needs_toxicity: bool,
) -> _Reading:
    rows: dict[str, list[PromptRow]] = {}
    read = skipped = 0
    for split, source in sources.items():
        outcome = read_source(
            track(source.rows, f"reading {source.name}", source.count),
            columns,
            bad_rows,
            turns=Turns(rules.turns),
            skip=_pattern(rules.skip),
            needs_toxicity=needs_toxicity,
        )
        read += outcome.read
        skipped += outcome.skipped
        rows[split] = [row for _, row in outcome.rows]
        if not rows[split]:
            key = "data.path" if split == "train" else f"data.path` or `data.{split}_path"
            examples = f" ({'; '.join(bad_rows.examples)})" if bad_rows.examples else ""
            raise DataError(
                bad_rows.in_common()
                or f"the {split} data has no usable row{examples}: want at least one; "
                f"change `{key}`"
            )
    return _Reading(rows=rows, read=read, bad_rows=bad_rows, skipped=skipped)


def _report(
    reading: _Reading,
    toxic: Mapping[str, ToxicRows],
    disjoint: Mapping[str, list[PromptRow]],
    chosen: Mapping[str, list[PromptRow]],
    overlap_removed: int,
) -> LoadReport:
    duplicates = sum(
        len(rows) - len({prompt_key(row.prompt) for row in rows}) for rows in chosen.values()
    )
    return LoadReport(
        read=reading.read,
        bad=reading.bad_rows.count,
        bad_examples=tuple(reading.bad_rows.examples),
        skipped=reading.skipped,
        null_toxicity=sum(kept.null_toxicity for kept in toxic.values()),
        below_threshold=sum(kept.below_threshold for kept in toxic.values()),
        above_limit=sum(kept.above_limit for kept in toxic.values()),
        overlap_removed=overlap_removed,
        duplicates=duplicates,
        over_limit=sum(len(disjoint[split]) - len(chosen[split]) for split in chosen),
        sizes={split: len(rows) for split, rows in chosen.items()},
    )
