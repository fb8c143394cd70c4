"""From a path to three sets of prompt rows."""

import codecs
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lora_detox.choices import Turns
from lora_detox.errors import DataError
from lora_detox.prompts.columns import FieldMap, field_map
from lora_detox.prompts.reading import (
    PromptRules,
    Reading,
    check_split_head,
    file_rules,
    pattern,
    read_all,
    three_fractions,
)
from lora_detox.prompts.rows import LoadReport, PromptRow, PromptSets
from lora_detox.prompts.sources import SPLITS, Source, open_sources, open_split
from lora_detox.prompts.splits import (
    choose_rows,
    complete_splits,
    prompt_key,
    prompt_position,
    remove_overlap,
)

_WORTH_CACHING_SECONDS = 1.0


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
    from lora_detox.prompts.stored import (  # noqa: PLC0415 - Arrow, which checks do without
        read_sets,
        sets_key,
        write_sets,
    )

    checked = _checked_rules(PromptRules(**rules))
    columns = field_map(checked.fields)
    paths = _Paths(path, validation_path, test_path, config_name, revision, split_names)
    sources = _opened(paths, columns, checked)
    key = sets_key(sources, asdict(checked)) if cache else None
    if key is not None and (kept := read_sets(key)) is not None:
        return kept
    begin = time.monotonic()
    sets = _make_sets(sources, columns, checked)
    if key is not None and time.monotonic() - begin > _WORTH_CACHING_SECONDS:
        write_sets(key, sets)
    return sets


def check_prompt_heads(
    *,
    path: str,
    validation_path: str | None = None,
    test_path: str | None = None,
    config_name: str | None = None,
    split_names: Sequence[str] = SPLITS,
    **rules: Any,
) -> None:
    """Raise what the first rows of files show to be wrong, within a second.

    Data sets of the hub, and folders laid out for `datasets`, are passed over.

    Args:
        path: as in `load_prompt_sets`, and so is what follows.
        validation_path: another source of validation rows.
        test_path: another source of test rows.
        config_name: configuration of a hub data set.
        split_names: what the source calls train, validation and test.
        **rules: those of PromptRules.

    Raises:
        DataError: as `load_prompt_sets` would raise it.
    """
    checked = _checked_rules(PromptRules(**rules))
    columns = field_map(checked.fields)
    paths = _Paths(path, validation_path, test_path, config_name, None, split_names)
    for split, source in _opened(paths, columns, checked, files_only=True).items():
        check_split_head(source, split, columns, checked)


@dataclass(frozen=True)
class _Paths:
    """Where the rows are; see `load_prompt_sets`."""

    path: str
    validation_path: str | None
    test_path: str | None
    config_name: str | None
    revision: str | None
    split_names: Sequence[str]


def _opened(
    paths: _Paths, columns: FieldMap, rules: PromptRules, *, files_only: bool = False
) -> dict[str, Source]:
    """The sources by split, not read yet."""
    names, files = _three_names(paths.split_names), file_rules(columns, rules)
    sources = open_sources(
        paths.path,
        config_name=paths.config_name,
        revision=paths.revision,
        split_names=names,
        rules=files,
        files_only=files_only,
    )
    for split, other in (("validation", paths.validation_path), ("test", paths.test_path)):
        if other is not None:
            sources |= open_split(
                other, split, split_names=names, rules=files, files_only=files_only
            )
    return sources


def _make_sets(sources: Mapping[str, Source], columns: FieldMap, rules: PromptRules) -> PromptSets:
    """Read every source, then filter, split and choose."""
    reading = read_all(sources, columns, rules)
    split_rows = complete_splits(reading.rows, three_fractions(rules.split_fractions), rules.seed)
    disjoint, removed = remove_overlap(split_rows)
    chosen = {split: choose_rows(rows, rules.limit, rules.seed) for split, rows in disjoint.items()}
    report = _report(reading, disjoint, chosen, removed)
    train, validation, test = (
        [_prefixed(row, rules.prefixes, rules.seed) for row in chosen[split]] for split in SPLITS
    )
    return PromptSets(train=train, validation=validation, test=test, report=report)


def _checked_rules(rules: PromptRules) -> PromptRules:
    columns = field_map(rules.fields)
    three_fractions(rules.split_fractions)
    pattern(rules.skip)
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
    for name in ("max_line_mb", "max_total_mb"):
        if getattr(rules, name) < 1:
            raise DataError(f"`data.{name}` is {getattr(rules, name)}: want 1 or more MiB")
    try:
        codecs.lookup(rules.encoding or "utf-8")
        "".encode(rules.encoding or "utf-8")  # a codec of bytes, such as base64, is no encoding
    except (LookupError, TypeError, UnicodeError, ValueError) as error:
        raise DataError(
            f"`data.encoding` is {rules.encoding!r}, which Python does not know; want a name like "
            "utf-8, utf-16 or windows-1252, or null"
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


def _report(
    reading: Reading,
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
        null_toxicity=sum(one.null_toxicity for one in reading.filters.values()),
        below_threshold=sum(one.below_threshold for one in reading.filters.values()),
        above_limit=sum(one.above_limit for one in reading.filters.values()),
        overlap_removed=reading.overlap_removed + overlap_removed,
        duplicates=duplicates,
        over_limit=reading.over_limit
        + sum(len(disjoint[split]) - len(chosen[split]) for split in chosen),
        sizes={split: len(rows) for split, rows in chosen.items()},
    )
