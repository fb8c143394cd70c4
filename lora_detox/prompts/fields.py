"""Rows of a source -> prompt rows: prompts, references, toxicity and ids out of their columns."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lora_detox.choices import Turns
from lora_detox.prompts.columns import (
    ABSENT,
    FieldMap,
    as_spelled,
    carried_columns,
    check_columns,
    check_once,
    look_up,
    name_read,
    nested_advice,
)
from lora_detox.prompts.dialogues import Unfolding
from lora_detox.prompts.rows import BadRow, BadRowLog, PromptRow, RawRow, Rows
from lora_detox.prompts.values import (
    is_cut_value,
    is_missing,
    is_missing_prompt,
    number,
    written_value,
)

_ROWS_TO_TELL_A_COLUMN_BY = 100
_KEYS_SHOWN = 6
_NO_UTF8 = (
    "save the file as UTF-8, or name its encoding, as in `data.encoding=windows-1252` (Western "
    "Europe) or `windows-1251` (Cyrillic)"
)


_TOO_DEEP = "want texts, or lists of texts or turns; repair the data, or change `data.path`"


class _RowError(Exception):
    """Why one row is bad.

    Args:
        reason: as in BadRow.
        kind: as in BadRow.
        advice: as in BadRow.
    """

    def __init__(self, reason: str, kind: str = "", advice: str = "") -> None:
        super().__init__(reason)
        self.kind, self.advice = kind, advice


@dataclass(kw_only=True)
class SourceRows:
    """What one source gives.

    Attributes:
        rows: the usable rows in their order, each with what it was made of; of `stream_source` an
            iterator, which reads as it goes.
        read: rows met so far, bad ones included.
        skipped: rows left out because their prompt matches a pattern.
    """

    rows: Iterable[tuple[RawRow, PromptRow]] = ()
    read: int = 0
    skipped: int = 0


def read_source(
    source: Sequence[RawRow | BadRow] | Rows, fields: FieldMap, bad_rows: BadRowLog, **rules: Any
) -> SourceRows:
    """All usable rows of one source, held; see `stream_source`."""
    outcome = stream_source(source, fields, bad_rows, **rules)
    outcome.rows = list(outcome.rows)
    return outcome


def stream_source(
    source: Sequence[RawRow | BadRow] | Rows,
    fields: FieldMap,
    bad_rows: BadRowLog,
    *,
    turns: Turns = Turns.auto,
    skip: re.Pattern[str] | None = None,
    needs_toxicity: bool = False,
    carried: Sequence[str] = (),
) -> SourceRows:
    """Turn the rows of one source into prompt rows; bad ones are counted and left out.

    Args:
        source: rows as they are read; the first ones, and seldom all, are read more than once.
        fields: which column is what.
        bad_rows: counts and names the bad ones.
        turns: what lists in the prompt column are, or `auto` to tell it by the data.
        skip: rows whose prompt matches from end to end are left out, for instance blank lines and
            headings; they are no bad rows. None keeps every row.
        needs_toxicity: True if rows will be chosen by it, so that some row must have it.
        carried: further columns that rows keep where they have them; "*" is all of them.

    Returns:
        The usable rows and what was counted.

    Raises:
        DataError: here or while the rows are read, if no row has a column that is named, if such a
            column stands twice, or past the limit of bad rows.
    """
    bad_rows.begin_source()
    readable = Rows(lambda: _readable(source, bad_rows.limit))
    fields = as_spelled(readable, fields)
    check_columns(readable, fields, needs_toxicity)
    opening = _Opening(readable, fields)
    unfolding = Unfolding(Rows(lambda: map(opening.opened, readable)), fields, turns)
    outcome = SourceRows()

    def usable() -> Iterator[tuple[RawRow, PromptRow]]:
        for raw in source:
            outcome.read += 1
            for one in _unfolded(raw, opening, unfolding, fields):
                row = one if isinstance(one, BadRow) else _usable(one, fields, skip, carried)
                if row is None:
                    outcome.skipped += 1
                elif isinstance(row, BadRow):
                    bad_rows.add(row)
                else:
                    yield row
                bad_rows.good += not isinstance(row, BadRow)
        bad_rows.check()

    outcome.rows = usable()
    return outcome


def _readable(source: Iterable[RawRow | BadRow], limit: int) -> Iterator[RawRow]:
    """The rows without bad ones; raises DataError where these are too many."""
    log = BadRowLog(limit=limit)
    for raw in source:
        if isinstance(raw, BadRow):
            log.add(raw)
        else:
            log.good += 1
            yield raw


def _unfolded(
    raw: RawRow | BadRow, opening: "_Opening", unfolding: Unfolding, fields: FieldMap
) -> list[RawRow | BadRow]:
    if isinstance(raw, BadRow):
        return [raw]
    check_once(raw, fields)
    try:
        return unfolding.unfold(opening.opened(raw))
    except RecursionError:
        return [_too_deep(raw)]


def _too_deep(raw: RawRow) -> BadRow:
    return BadRow(where=raw.where, reason="nested too deeply", advice=_TOO_DEEP)


def _usable(
    raw: RawRow, fields: FieldMap, skip: re.Pattern[str] | None, carried: Sequence[str]
) -> tuple[RawRow, PromptRow] | BadRow | None:
    """The row as a prompt row, as a bad one, or None if it is skipped."""
    if skip is not None and _matches(raw, fields, skip):
        return None
    try:
        return raw, _read_row(raw, fields, carried)
    except _RowError as error:
        return BadRow(where=raw.where, reason=str(error), kind=error.kind, advice=error.advice)
    except RecursionError:
        return _too_deep(raw)


class _Opening:
    """Lists and objects for the prompts of a text table whose column holds such, as text.

    One cell may look like a list by chance; half of a column may not.

    Args:
        raw_rows: rows of one source; the first are read once more where a cell looks like a list.
        fields: which column is what.
    """

    def __init__(self, raw_rows: Iterable[RawRow], fields: FieldMap) -> None:
        self._raw_rows, self._prompt = raw_rows, fields.prompt

    @cached_property
    def _holds_lists(self) -> bool:
        cells = 0
        lists = 0
        for raw in self._raw_rows:
            cell = look_up(raw.columns, self._prompt) if raw.is_text else None
            if isinstance(cell, str) and not is_missing(cell):
                cells += 1
                lists += written_value(cell) is not None
                if cells == _ROWS_TO_TELL_A_COLUMN_BY:
                    break
        return 2 * lists >= max(cells, 1)

    def opened(self, raw: RawRow) -> RawRow:
        """A row with the list that its prompt was written from; other rows as they are."""
        cell = look_up(raw.columns, self._prompt) if raw.is_text else None
        value = written_value(cell) if isinstance(cell, str) else None
        if value is None or not self._holds_lists:
            return raw
        columns = {**raw.columns, name_read(raw.columns, self._prompt): value}
        return replace(raw, columns=columns)


def _matches(raw: RawRow, fields: FieldMap, pattern: re.Pattern[str]) -> bool:
    prompt = look_up(raw.columns, fields.prompt)
    return isinstance(prompt, str) and bool(pattern.fullmatch(prompt))


def _read_row(raw: RawRow, fields: FieldMap, carried: Sequence[str]) -> PromptRow:
    return PromptRow(
        prompt=_read_prompt(raw, fields.prompt),
        row_id=_read_id(raw, fields.id),
        references=_read_references(raw, fields.references) if fields.references else [],
        toxicity=_read_toxicity(raw, fields.toxicity) if fields.toxicity else None,
        columns=carried_columns(raw.columns, fields, carried) if carried else {},
    )


def _read_prompt(raw: RawRow, column: str) -> str:
    prompt = look_up(raw.columns, column)
    if isinstance(prompt, bytes):  # of a Parquet file that does not say that it holds text
        prompt = prompt.decode("utf-8", "surrogateescape")
    if prompt is ABSENT or prompt is None or (raw.is_text and is_missing_prompt(prompt)):
        raise _RowError(f"no prompt in column `{column}`")
    if isinstance(prompt, Mapping):
        raise _nested(raw, "prompt", column, prompt)
    if not isinstance(prompt, str):
        raise _RowError(
            f"the prompt is {type(prompt).__name__}, want a string",
            advice="name a column of texts with `data.fields.prompt`",
        )
    if not prompt.strip():
        raise _RowError(
            "the prompt is blank", advice="name a column of texts with `data.fields.prompt`"
        )
    if raw.is_text and is_cut_value(prompt):
        raise _cut("prompt", column)
    _check_unicode(prompt)
    return prompt


def _nested(raw: RawRow, field: str, column: str, value: Mapping[str, Any]) -> _RowError:
    read = name_read(raw.columns, column)
    keys = ", ".join(map(str, list(value)[:_KEYS_SHOWN])) + ", ..." * (len(value) > _KEYS_SHOWN)
    what = f"`{read}` holds an object with {keys}, want the {field} itself"
    return _RowError(what, kind=f"`{read}` holds objects", advice=nested_advice(field, read, value))


def _cut(field: str, column: str) -> _RowError:
    what = f"`{column}` holds a list of which numpy left out the middle (`...`)"
    advice = f"write the lists in full (as JSON), or name another column with `data.fields.{field}`"
    return _RowError(what, advice=advice)


def _check_unicode(text: str) -> None:
    """Lone surrogates (bytes that are no UTF-8, broken JSON escapes) crash tokenizers later."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            what = f"the byte 0x{code - 0xDC00:02X} is no UTF-8"
            raise _RowError(what, kind="bytes that are no UTF-8", advice=_NO_UTF8) from error
        raise _RowError("the text is not valid Unicode") from error


def _read_id(raw: RawRow, column: str | None) -> str:
    value = look_up(raw.columns, column) if column else ABSENT
    return raw.where if value is ABSENT or value is None or value == "" else str(value)


def _read_references(raw: RawRow, column: str) -> list[str]:
    value = look_up(raw.columns, column)
    if raw.is_text and isinstance(value, str):
        if is_missing(value):
            return []
        if is_cut_value(value):
            raise _cut("references", column)
        written = written_value(value)
        value = value if written is None else written
    if value is ABSENT or value is None or (isinstance(value, float) and is_missing(value)):
        return []
    if isinstance(value, Mapping):
        raise _nested(raw, "references", column, value)
    references = [value] if isinstance(value, str) else value
    if isinstance(references, Sequence):
        references = [one for one in references if isinstance(one, str) or not is_missing(one)]
    if not isinstance(references, Sequence) or not all(isinstance(one, str) for one in references):
        raise _RowError(
            f"references in `{column}` are no string and no list of strings",
            advice="name a column of texts, or of lists of texts, with `data.fields.references`",
        )
    for reference in references:
        _check_unicode(reference)
    return [reference for reference in references if reference.strip()]


def _read_toxicity(raw: RawRow, column: str) -> float | None:
    value = look_up(raw.columns, column)
    if value is ABSENT or is_missing(value):
        return None
    if isinstance(value, Mapping):
        raise _nested(raw, "toxicity", column, value)
    try:
        toxicity = number(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise _RowError(
            f"toxicity {value!r} in `{column}` is no number",
            kind=f"the toxicity in `{name_read(raw.columns, column)}` is no number",
            advice="name a column of numbers with `data.fields.toxicity`, or set it to null",
        ) from error
    return None if math.isnan(toxicity) else toxicity
