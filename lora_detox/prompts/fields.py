"""Which column of a source is the prompt, the references, the toxicity, the id.

A column name may be dotted for nested rows (`prompt.text`) and may list alternatives
(`summaries|summary`): the first that a row has is read. One name alone is a statement, so it has to
be right; alternatives are guesses, so for references and toxicity it is fine if none is there.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_detox.choices import Turns
from lora_detox.errors import DataError
from lora_detox.prompts.dialogues import TEXTS, joined, last_text, reads_as
from lora_detox.prompts.rows import BadRow, BadRowLog, PromptRow, RawRow, Twice
from lora_detox.prompts.values import structured, unfolded

FIELD_NAMES = ("prompt", "references", "toxicity", "id")
_ROWS_SEARCHED = 100


# Marks a column that a row does not have, which None does not.
ABSENT: Any = object()
# Marks a column that a row has twice.
TWICE: Any = object()


class _RowError(Exception):
    """Why one row is bad."""


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


def read_rows(
    raw_rows: Sequence[RawRow],
    fields: FieldMap,
    bad_rows: BadRowLog,
    *,
    needs_toxicity: bool = False,
) -> list[PromptRow]:
    """Turn the rows of one source into prompt rows; bad ones are counted and left out.

    Args:
        raw_rows: rows of one source.
        fields: which column is what.
        bad_rows: counts and names the bad ones.
        needs_toxicity: True if rows will be chosen by it, so that some row must have it.

    Returns:
        The usable rows in their order.

    Raises:
        DataError: if no row has a column that is named, or past the limit of bad rows.
    """
    _check_columns(raw_rows, fields, needs_toxicity)
    _check_prompts(raw_rows, fields)
    rows: list[PromptRow] = []
    for raw in raw_rows:
        try:
            rows.append(_read_row(raw, fields))
        except _RowError as error:
            bad_rows.add(BadRow(where=raw.where, reason=str(error)), len(rows))
    return rows


def unfold_rows(
    raw_rows: Sequence[RawRow], fields: FieldMap, turns: Turns = Turns.auto
) -> list[RawRow]:
    """One row per prompt where a row holds a list of prompts (BOLD); dialogues become one text.

    Args:
        raw_rows: rows of one source.
        fields: which column is what.
        turns: what a list is; `auto` decides by the references and by the name of the column.

    Returns:
        The rows in their order; the others unchanged. Rows out of a list are named "row#place",
        and so are their ids.

    Raises:
        DataError: chat messages that can be meant either way.
    """
    unfolded_rows: list[RawRow] = []
    for raw in raw_rows:
        prompts = unfolded(_look_up(raw.columns, fields.prompt))
        if not isinstance(prompts, list) or not prompts:
            unfolded_rows.append(raw)
            continue
        value = _look_up(raw.columns, fields.references) if fields.references else None
        references = None if value is ABSENT else unfolded(value)
        column = _present(raw.columns, fields.prompt)
        kind = reads_as(prompts, references, column, turns, raw.where)
        if kind is Turns.prompts:
            unfolded_rows += _rows_of_list(raw, prompts, references, fields)
            continue
        text = joined(prompts) if kind is Turns.dialogue else last_text(prompts)
        # Where a turn has no text the list stays, and is named as a bad row.
        kept = prompts if text is None else text
        key = fields.prompt.split("|")[0]
        unfolded_rows.append(RawRow(where=raw.where, columns={**raw.columns, key: kept}))
    return unfolded_rows


def _rows_of_list(
    raw: RawRow, prompts: list[Any], references: Any, fields: FieldMap
) -> Iterator[RawRow]:
    if not isinstance(references, list) or len(references) != len(prompts):
        references = [references] * len(prompts)
    named = _look_up(raw.columns, fields.id) if fields.id else ABSENT
    for place, (prompt, reference) in enumerate(zip(prompts, references, strict=True)):
        # Keys as the settings name them, so that dotted names and alternatives still find them.
        columns = {**raw.columns, fields.prompt.split("|")[0]: prompt}
        if fields.references:
            columns[fields.references.split("|")[0]] = reference
        if fields.id and named is not ABSENT:
            columns[fields.id.split("|")[0]] = f"{named}#{place}"
        yield RawRow(where=f"{raw.where}#{place}", columns=columns)


def leave_out(
    raw_rows: Sequence[RawRow], fields: FieldMap, pattern: re.Pattern[str] | None
) -> list[RawRow]:
    """Rows whose prompt does not match a pattern from end to end; they are no bad rows.

    Args:
        raw_rows: rows of one source.
        fields: which column is the prompt.
        pattern: for instance of blank lines and headings; None keeps every row.

    Returns:
        The rows that are left, in their order.
    """
    if pattern is None:
        return list(raw_rows)
    prompts = [_look_up(raw.columns, fields.prompt) for raw in raw_rows]
    return [
        raw
        for raw, prompt in zip(raw_rows, prompts, strict=True)
        if not (isinstance(prompt, str) and pattern.fullmatch(prompt))
    ]


def _check_columns(raw_rows: Sequence[RawRow], fields: FieldMap, needs_toxicity: bool) -> None:
    """A column that no row has is a wrong name, not a bad row; nor is one that stands twice."""
    if not raw_rows:
        return
    for name, column in fields.named().items():
        twice = next((raw for raw in raw_rows if _look_up(raw.columns, column) is TWICE), None)
        if twice is not None:
            raise DataError(
                f"{twice.where}: the column `{_present(twice.columns, column)}` stands twice, and "
                f"the {name} is read from it: rename or remove one of them, or name another "
                f"column with `data.fields.{name}`"
            )
        if name == "id":
            continue  # without one, a row is named by its place
        is_needed = name == "prompt" or (name == "toxicity" and needs_toxicity)
        if "|" in column and not is_needed:
            continue
        if all(_look_up(raw.columns, column) is ABSENT for raw in raw_rows):
            raise DataError(
                f"no row has the column `{column}` for the {name} (first row: "
                f"{raw_rows[0].where}); columns found: {', '.join(_columns_found(raw_rows))}; "
                f"change `data.fields.{name}`"
            )


def _check_prompts(raw_rows: Sequence[RawRow], fields: FieldMap) -> None:
    """Where every prompt is an object, the column is one level too high."""
    first = [unfolded(_look_up(r.columns, fields.prompt)) for r in raw_rows[:_ROWS_SEARCHED]]
    if not first or not all(isinstance(one, Mapping) and one for one in first):
        return
    column = _present(raw_rows[0].columns, fields.prompt)
    texts = [key for key, value in first[0].items() if isinstance(value, str)]
    known = [key for key in TEXTS if key in texts] or texts
    advice = f"set `data.fields.prompt={column}.{known[0]}`" if known else "name a column of texts"
    raise DataError(
        f"{raw_rows[0].where}: the prompt in `{column}` is an object with "
        f"{', '.join(map(str, first[0]))}, want a text; {advice}"
    )


def _columns_found(raw_rows: Sequence[RawRow]) -> list[str]:
    columns: dict[str, None] = {}
    for raw in raw_rows[:_ROWS_SEARCHED]:
        for name, value in raw.columns.items():
            nested = [f"{name}.{inner}" for inner in value] if isinstance(value, Mapping) else []
            columns.update(dict.fromkeys(nested or [str(name)]))
    return list(columns)


def _look_up(columns: Mapping[str, Any], column: str) -> Any:
    """Value of the first alternative that is there, else ABSENT; TWICE for one that is doubled."""
    for alternative in column.split("|"):
        value = _look_up_one(columns, alternative)
        if value is not ABSENT:
            return value
    return ABSENT


def _present(columns: Mapping[str, Any], column: str) -> str:
    """The alternative that `_look_up` reads; the first where there is none."""
    alternatives = column.split("|")
    there = (one for one in alternatives if _look_up_one(columns, one) is not ABSENT)
    return next(there, alternatives[0])


def _look_up_one(columns: Mapping[str, Any], column: str) -> Any:
    if column in columns:
        value = columns[column]
        return TWICE if isinstance(value, Twice) else value
    value = columns
    for part in column.split("."):
        if isinstance(value, str):
            value = structured(value)
        if isinstance(value, Twice):
            return TWICE
        if not isinstance(value, Mapping) or part not in value:
            return ABSENT
        value = value[part]
    return value


def _read_row(raw: RawRow, fields: FieldMap) -> PromptRow:
    prompt = unfolded(_look_up(raw.columns, fields.prompt))
    if prompt is ABSENT or prompt is None:
        raise _RowError(f"no prompt in column `{fields.prompt}`")
    if isinstance(prompt, Mapping):
        raise _RowError(f"the prompt is an object with {', '.join(map(str, prompt))}, want a text")
    if not isinstance(prompt, str):
        raise _RowError(f"the prompt is {type(prompt).__name__}, want a string")
    if not prompt.strip():
        raise _RowError("the prompt is blank")
    _check_unicode(prompt)
    return PromptRow(
        row_id=_read_id(raw, fields.id),
        prompt=prompt,
        references=_read_references(raw, fields.references),
        toxicity=_read_toxicity(raw, fields.toxicity),
    )


def _check_unicode(text: str) -> None:
    """Lone surrogates (bytes that are no UTF-8, broken JSON escapes) crash tokenizers later."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _RowError("the text is not valid Unicode") from error


def _read_id(raw: RawRow, column: str | None) -> str:
    value = _look_up(raw.columns, column) if column else ABSENT
    return raw.where if value is ABSENT or value is None or value == "" else str(value)


def _read_references(raw: RawRow, column: str | None) -> list[str]:
    value = _look_up(raw.columns, column) if column else ABSENT
    value = unfolded(value)
    if value is ABSENT or value is None:
        return []
    references = [value] if isinstance(value, str) else value
    if not isinstance(references, Sequence) or not all(isinstance(one, str) for one in references):
        raise _RowError(f"references in `{column}` are no string and no list of strings")
    for reference in references:
        _check_unicode(reference)
    return [reference for reference in references if reference.strip()]


def _read_toxicity(raw: RawRow, column: str | None) -> float | None:
    value = _look_up(raw.columns, column) if column else ABSENT
    if value is ABSENT or value is None or value in ("", "None", "null"):
        return None
    try:
        toxicity = float(value)
    except (TypeError, ValueError) as error:
        raise _RowError(f"toxicity {value!r} in `{column}` is no number") from error
    return None if math.isnan(toxicity) else toxicity
