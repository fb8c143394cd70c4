"""Which column of a source is the prompt, the references, the toxicity, the id.

A column name may be dotted for nested rows (`prompt.text`) and may list alternatives
(`summaries|summary`): the first that a row has is read. One name alone is a statement, so it has to
be right; alternatives are guesses, so for references and toxicity it is fine if none is there.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any

from lora_detox.errors import DataError
from lora_detox.prompts.rows import ALL, ColumnsTwice, RawRow
from lora_detox.prompts.values import is_missing, written_value

FIELD_NAMES = ("prompt", "references", "toxicity", "id")
_ROWS_SEARCHED_FOR_COLUMNS = 100
_TEXT_KEYS = ("text", "content", "value", "prompt", "utterance", "body")
_FEW_KEYS = 10
# Marks a column that a row does not have, which None does not.
ABSENT: Any = object()


@dataclass(frozen=True, kw_only=True)
class FieldMap:
    """Column names of the four fields; None where the source has no such column.

    Attributes:
        prompt: column of the prompt text.
        references: column of the reference responses (a string or a list of strings).
        toxicity: column of the prompt's toxicity (a number or null).
        id: column of the row's name.
    """

    prompt: str
    references: str | None = None
    toxicity: str | None = None
    id: str | None = None

    def named(self) -> dict[str, str]:
        """Field -> column, for the fields that have one."""
        columns = {name: getattr(self, name) for name in FIELD_NAMES}
        return {name: column for name, column in columns.items() if column}

    def top_level_columns(self) -> set[str]:
        """Outermost column names that any field may read."""
        alternatives = [one for column in self.named().values() for one in column.split("|")]
        return set(alternatives) | {one.split(".")[0] for one in alternatives}


def field_map(fields: Mapping[str, str | None]) -> FieldMap:
    """Check the keys of `data.fields`.

    Args:
        fields: field -> column name or None.

    Returns:
        The same, typed.

    Raises:
        DataError: on an unknown field, or where `prompt` has no column.
    """
    unknown = sorted(set(fields) - set(FIELD_NAMES))
    if unknown:
        raise DataError(
            f"unknown fields {', '.join(unknown)}: want {', '.join(FIELD_NAMES)}; "
            "change `data.fields`"
        )
    prompt = fields.get("prompt")
    if not prompt:
        raise DataError("no column is named for the prompt; set `data.fields.prompt`")
    return FieldMap(
        prompt=prompt,
        references=fields.get("references"),
        toxicity=fields.get("toxicity"),
        id=fields.get("id"),
    )


def look_up(columns: Mapping[str, Any], column: str) -> Any:
    """Value of the first alternative that is there, else ABSENT.

    Args:
        columns: of a row.
        column: a name, dotted for nested rows, or several as `a|b`.

    Returns:
        The value as it stands; an object written as text is opened for a dotted name.
    """
    if column in columns:
        return columns[column]
    for alternative in column.split("|"):
        value = _look_up_one(columns, alternative)
        if value is not ABSENT:
            return value
    return ABSENT


def name_read(columns: Mapping[str, Any], column: str) -> str:
    """Which of the alternatives `look_up` reads; the first where there is none."""
    alternatives = column.split("|")
    return next(
        (one for one in alternatives if _look_up_one(columns, one) is not ABSENT), alternatives[0]
    )


def carried_names(carried: Sequence[str]) -> frozenset[str]:
    """Outermost names of columns that are carried along, which may be dotted."""
    return frozenset(carried) | {name.split(".")[0] for name in carried}


def carried_columns(
    columns: Mapping[str, Any], fields: FieldMap, carried: Sequence[str]
) -> dict[str, Any]:
    """What a row keeps beside its fields.

    Args:
        columns: of a row.
        fields: whose own columns "*" leaves out.
        carried: names, in any case; a dotted one for nested rows; "*" is every column.

    Returns:
        Name as in `carried` (with "*" as in the row) -> value as JSON would give it back; what a
        row does not have, or has no value of, is left out.
    """
    kept = {name: _look_up_one(columns, name) for name in carried if name != ALL}
    wanted = {name.casefold(): name for name in kept}
    read = fields.top_level_columns()
    for name, value in columns.items():
        plain = str(name).strip()
        spelled = wanted.get(plain.casefold())
        if spelled is not None and kept[spelled] is ABSENT:
            kept[spelled] = value
        elif spelled is None and ALL in carried and plain not in read:
            kept[plain] = value
    return {
        name: json.loads(json.dumps(value, default=str))
        for name, value in kept.items()
        if value is not ABSENT and not is_missing(value)
    }


def as_spelled(raw_rows: Iterable[RawRow], fields: FieldMap) -> FieldMap:
    """The same fields, with column names as the source spells them: `Prompt` for `prompt`.

    Args:
        raw_rows: rows of one source, of which no more are read than are needed.
        fields: which column is what.

    Returns:
        Fields in which a name that no row has is replaced by one that differs in upper and lower
        case alone.

    Raises:
        DataError: if several columns differ from a name in that alone.
    """
    spelled: dict[str, str] = {}
    names = _names_found(raw_rows)
    for name, column in fields.named().items():
        alternatives = column.split("|")
        for place, wanted in enumerate(alternatives):
            alike = [one for one in names if one.casefold() == wanted.casefold()]
            if wanted in names or not alike:
                continue
            if any(_look_up_one(raw.columns, wanted) is not ABSENT for raw in raw_rows):
                continue
            if len(alike) > 1:
                first = next(iter(raw_rows)).where
                raise DataError(
                    f"the {name} column `{wanted}` could be {' or '.join(f'`{a}`' for a in alike)} "
                    f"(first row: {first}); name the one with `data.fields.{name}`"
                )
            alternatives[place] = alike[0]
        spelled[name] = "|".join(alternatives)
    return field_map(spelled)


def check_columns(raw_rows: Iterable[RawRow], fields: FieldMap, needs_toxicity: bool) -> None:
    """A column that no row has is a wrong name, not a bad row.

    Args:
        raw_rows: rows of one source, of which no more are read than are needed.
        fields: which column is what.
        needs_toxicity: True if rows will be chosen by it, so that some row must have it.

    Raises:
        DataError: if a column that is read is missing in all rows.
    """
    missing = {}
    for name, column in fields.named().items():
        is_needed = name == "prompt" or (name == "toxicity" and needs_toxicity)
        if name != "id" and ("|" not in column or is_needed):  # without id, its place names a row
            missing[name] = column
    first = None
    for raw in raw_rows:
        first = first or raw
        absent = {n: c for n, c in missing.items() if look_up(raw.columns, c) is ABSENT}
        if not absent:
            return
        missing = absent
    for name, column in missing.items() if first is not None else ():
        names = " (the first line has to hold their names)" if first and first.is_text else ""
        found = _columns_found(raw_rows)
        raise DataError(
            f"no row has the column `{column}` for the {name} (first row: "
            f"{first.where if first else ''}); columns found: "
            f"{', '.join(found)}; change `data.fields.{name}`{_meant(column, found)}{names}"
        )


def _meant(column: str, found: Sequence[str]) -> str:
    """The column that a mistyped name may have meant."""
    close = [one for name in column.split("|") for one in get_close_matches(name, found, 1)]
    return f"; did you mean `{close[0]}`?" if close else ""


def nested_advice(field: str, column: str, value: Mapping[str, Any]) -> str:
    """What to set where a column holds objects.

    Args:
        field: "prompt", "references" or "toxicity".
        column: the column that was read.
        value: an object out of it.

    Returns:
        Advice that names the key.
    """
    is_wanted = (int, float) if field == "toxicity" else str
    keys = [key for key, one in value.items() if isinstance(one, is_wanted)]
    likely = [key for key in (field, *_TEXT_KEYS) if key in keys] or keys[: len(keys) <= _FEW_KEYS]
    if not likely:
        return f"name a column that holds text with `data.fields.{field}`"
    return f"set data.fields.{field}={column}.{likely[0]}"


def check_once(raw: RawRow, fields: FieldMap) -> None:
    """Raise DataError if a column that is read stands twice in a row."""
    if not isinstance(raw.columns, ColumnsTwice):
        return
    for name, column in fields.named().items():
        read = name_read(raw.columns, column)
        value: Any = raw.columns
        for part in [read] if read in raw.columns else read.split("."):
            if isinstance(value, ColumnsTwice) and part in value.twice:
                raise DataError(
                    f"the column `{read}` stands twice in {raw.where.rpartition(':')[0]} (first "
                    f"row: {raw.where}) and is read as the {name}: want one; rename the other, or "
                    f"name another column with `data.fields.{name}`"
                )
            value = value.get(part) if isinstance(value, Mapping) else None


def _look_up_one(columns: Mapping[str, Any], column: str) -> Any:
    if column in columns:
        return columns[column]
    if "." not in column:
        return ABSENT
    value: Any = columns
    for part in column.split("."):
        if isinstance(value, str):
            value = written_value(value)
        if not isinstance(value, Mapping) or part not in value:
            return ABSENT
        value = value[part]
    return value


def _names_found(raw_rows: Iterable[RawRow]) -> list[str]:
    """Names of columns, also of those that hold others."""
    names: dict[str, None] = {}
    for raw in islice(raw_rows, _ROWS_SEARCHED_FOR_COLUMNS):
        for name, value in raw.columns.items():
            names[str(name)] = None
            names.update(dict.fromkeys(_inner_names(name, value)))
    return list(names)


def _columns_found(raw_rows: Iterable[RawRow]) -> list[str]:
    columns: dict[str, None] = {}
    for raw in islice(raw_rows, _ROWS_SEARCHED_FOR_COLUMNS):
        for name, value in raw.columns.items():
            columns.update(dict.fromkeys(_inner_names(name, value) or [str(name)]))
        columns.update(dict.fromkeys(raw.unread))
    return list(columns)


def _inner_names(name: str, value: Any) -> list[str]:
    if isinstance(value, str):
        value = written_value(value)
    return [f"{name}.{inner}" for inner in value] if isinstance(value, Mapping) else []
