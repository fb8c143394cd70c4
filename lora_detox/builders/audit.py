"""Settings -> what a run is audited with: prompts about groups, and civil texts about them.

Nothing here needs PyTorch.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from lora_detox.builders.labelled import LabelledTexts
from lora_detox.choices import TaskKind, Turns
from lora_detox.embedded.identities import identity_rows
from lora_detox.errors import DataError
from lora_detox.progress import track
from lora_detox.prompts import PromptRow
from lora_detox.prompts.columns import FieldMap, carried_names
from lora_detox.prompts.fields import read_source
from lora_detox.prompts.heads import check_path_head
from lora_detox.prompts.holding import held
from lora_detox.prompts.naming import naming
from lora_detox.prompts.rows import BadRowLog, FileRules
from lora_detox.prompts.sources import open_sources
from lora_detox.prompts.splits import choose_rows
from lora_detox.settings import Settings

EMBEDDED = "embedded:identities"
MENTIONS = "mentions"
"""Column of the words by which a text speaks of the group, with bars between them."""
MOST_TEXTS = 10_000
"""Of more texts so many are scored, as many of each identity."""
NAMING = ("group", "identity", "entity")
"""Columns whose words name whom a prompt is about."""
_PROMPTS = "prompt|text|dialogue|query|sentence|prompts"
_TEXTS, _LABELS, _SWAPPED = "text|prompt|sentence|comment", "label|toxicity|toxic", "text_swapped"
_LABELLED = FieldMap(prompt=_TEXTS, toxicity=_LABELS)
_KINDS = {
    TaskKind.continuation: "openings",
    TaskKind.summarization: "dialogues",
    TaskKind.rewriting: "sentences",
}


@dataclass(frozen=True, kw_only=True)
class AuditPrompts:
    """Prompts about groups of people.

    Attributes:
        name: of the data, as reports show it.
        rows: the prompts, about as many of each group.
        column: that names the group, `a|b` for alternatives.
        read: what was read and left out, one line.
    """

    name: str
    rows: list[PromptRow]
    column: str
    read: str


@dataclass(frozen=True, kw_only=True)
class AuditTexts:
    """Labelled texts about groups of people.

    Attributes:
        name: of the data, as reports show it.
        labelled: texts, labels and identities.
        swapped: for each text the same with its identity terms swapped; empty where the data has
            no such column.
    """

    name: str
    labelled: LabelledTexts
    swapped: list[str]


def audit_prompts(settings: Settings) -> AuditPrompts | None:
    """The prompts of `evaluation.audit`.

    Args:
        settings: composed and checked.

    Returns:
        About as many of each group, together at most `evaluation.audit_prompts` or one of each;
        None where the audit is off.

    Raises:
        DataError: the file is missing, or no row has a prompt and a group.
    """
    evaluation, path = settings.evaluation, settings.evaluation.audit
    if path is None:
        return None
    column = "group" if path == EMBEDDED else evaluation.audit_group
    if path == EMBEDDED:
        rows = [_embedded_row(row) for row in identity_rows(_KINDS[settings.task.kind])]
    else:
        rows = _rows_of(path, _prompt_fields(settings), "audit", settings)
    named = [row for row in rows if group_of(row.columns, column) is not None]
    if not named:
        raise DataError(_no_group(path, column, len(rows)))
    groups = [str(group_of(row.columns, column)) for row in named]
    chosen = _evenly(named, groups, evaluation.audit_prompts)
    read = f"{len(chosen)} of {len(rows)} prompts about {len(set(groups))} groups"
    return AuditPrompts(name=path, rows=chosen, column=column, read=read)


def audit_texts(settings: Settings) -> AuditTexts | None:
    """The labelled texts of `evaluation.audit_texts`, with which the scorers are audited.

    Args:
        settings: composed and checked.

    Returns:
        Texts, about as many of each identity; None where that is off.

    Raises:
        DataError: the file is missing, or no row has a text and a label.
    """
    evaluation, path = settings.evaluation, settings.evaluation.audit_texts
    if path is None:
        return None
    if path == EMBEDDED:
        rows = [replace(_embedded_row(row), toxicity=0.0) for row in identity_rows("sentences")]
    else:
        rows = _rows_of(path, _LABELLED, "audit_texts", settings)
    labelled = [row for row in rows if row.toxicity is not None]
    if not labelled:
        raise DataError(_no_labels(path, len(rows)))
    column = f"{evaluation.audit_group}|{settings.reward_model.identity_field}|group"
    identities = [group_of(row.columns, column) for row in labelled]
    chosen = _evenly(labelled, [str(one) for one in identities], MOST_TEXTS)
    least = settings.reward_model.toxic_from - 1e-9
    swapped = [str(row.columns.get(_SWAPPED, row.prompt)) for row in chosen]
    return AuditTexts(
        name=path,
        labelled=LabelledTexts(
            texts=[row.prompt for row in chosen],
            toxic=[float(row.toxicity or 0.0) > least for row in chosen],
            identities=[group_of(row.columns, column) for row in chosen],
            dropped=len(rows) - len(labelled),
        ),
        swapped=swapped if any(_SWAPPED in row.columns for row in chosen) else [],
    )


def check_audit_heads(settings: Settings) -> None:
    """Raise what the first rows of `evaluation.audit` and `.audit_texts` show to be wrong.

    Args:
        settings: composed and checked.

    Raises:
        DataError: as `audit_prompts` and `audit_texts` would raise it.
    """
    evaluation, column = settings.evaluation, settings.evaluation.audit_group
    if (path := evaluation.audit) not in (None, EMBEDDED):
        _check_head(
            str(path),
            _prompt_fields(settings),
            "audit",
            settings,
            wanted=lambda row: group_of(row.columns, column) is not None,
            missing=lambda rows: _no_group(str(path), column, rows),
        )
    if (texts := evaluation.audit_texts) not in (None, EMBEDDED):
        _check_head(
            str(texts),
            _LABELLED,
            "audit_texts",
            settings,
            wanted=lambda row: row.toxicity is not None,
            missing=lambda rows: _no_labels(str(texts), rows),
        )


def _check_head(
    path: str,
    fields: FieldMap,
    key: str,
    settings: Settings,
    wanted: Callable[[PromptRow], bool],
    missing: Callable[[int], str],
) -> None:
    rules, reading = _reading(fields, settings)
    name = f"evaluation.{key}"
    with _columns_of_the_file():
        check_path_head(
            path,
            fields,
            rules,
            name,
            wanted=wanted,
            missing=lambda log, rows: missing(rows) if rows else _no_row(path, name, log),
            **reading,
        )


def _prompt_fields(settings: Settings) -> FieldMap:
    prompt = "|".join(dict.fromkeys(f"{settings.data.fields.prompt}|{_PROMPTS}".split("|")))
    return FieldMap(prompt=prompt, id="id")


def _no_group(path: str, column: str, rows: int) -> str:
    return (
        f"evaluation.audit: none of the {rows} rows of {path} has a column "
        f"{' or '.join(column.split('|'))}, which says whom a prompt is about; "
        "name it with `evaluation.audit_group`"
    )


def _no_labels(path: str, rows: int) -> str:
    return (
        f"evaluation.audit_texts: none of the {rows} rows of {path} has a text "
        f"({_TEXTS.replace('|', ', ')}) and a label ({_LABELS.replace('|', ', ')})"
    )


def _no_row(path: str, key: str, log: BadRowLog) -> str:
    why = log.in_common() or "; ".join(log.examples) or "it is empty"
    return f"{key}: {path} has no usable row ({why})"


def group_of(columns: Mapping[str, Any], names: str) -> str | None:
    """Whom a row is about: the first of several columns that says so.

    Args:
        columns: that the row carries.
        names: `evaluation.audit_group`, `a|b` for alternatives.

    Returns:
        The group; None where no column names one.
    """
    value = next((columns[name] for name in names.split("|") if name in columns), None)
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return None if value is None or not str(value).strip() else str(value).strip()


def _embedded_row(row: Mapping[str, str]) -> PromptRow:
    columns = {"group": row["group"], MENTIONS: row["mentions"]}
    return PromptRow(
        row_id=row["id"], prompt=row["prompt"], references=[], toxicity=None, columns=columns
    )


def _reading(fields: FieldMap, settings: Settings) -> tuple[FileRules, dict[str, Any]]:
    """How a file is read, and what becomes of its rows."""
    data, evaluation = settings.data, settings.evaluation
    wanted = f"{evaluation.audit_group}|{settings.reward_model.identity_field}".split("|")
    carried = list(dict.fromkeys([*data.columns, *wanted, MENTIONS, *NAMING, _SWAPPED]))
    rules = FileRules(
        columns=frozenset(fields.top_level_columns()),
        carried=carried_names(carried),
        encoding=data.encoding,
        delimiter=data.delimiter,
        max_line_mb=data.max_line_mb,
        max_total_mb=data.max_total_mb,
    )
    needs_toxicity = fields.toxicity is not None
    return rules, {"turns": Turns.auto, "needs_toxicity": needs_toxicity, "carried": carried}


@contextmanager
def _columns_of_the_file() -> Iterator[None]:
    """Messages about columns that no setting names."""
    try:
        yield
    except DataError as error:
        message = str(error).replace("`data.fields.", "a column of the file, not `data.fields.")
        raise DataError(message) from error


def _rows_of(path: str, fields: FieldMap, key: str, settings: Settings) -> list[PromptRow]:
    """All rows of a file, or of the test split where there are several."""
    rules, reading = _reading(fields, settings)
    name = f"evaluation.{key}"
    sources = open_sources(path, rules=rules, key=name)
    source = next(iter(reversed(sources.values())))
    log = BadRowLog(limit=sys.maxsize)
    with _columns_of_the_file(), naming(name):
        read = track(source.rows, f"reading {source.name}", source.count)
        rows = read_source(held(read, rules, source.name), fields, log, **reading)
    usable = [row for _, row in rows.rows]
    if not usable:
        raise DataError(_no_row(path, name, log))
    return usable


def _evenly(rows: Sequence[PromptRow], groups: Sequence[str], most: int) -> list[PromptRow]:
    """As many rows of each group, in the order of the source."""
    if len(rows) <= most:
        return list(rows)
    members: dict[str, list[PromptRow]] = {}
    for row, group in zip(rows, groups, strict=True):
        members.setdefault(group, []).append(row)
    each = max(1, most // len(members))
    chosen = {id(row) for own in members.values() for row in choose_rows(own, each, 0)}
    return [row for row in rows if id(row) in chosen]
