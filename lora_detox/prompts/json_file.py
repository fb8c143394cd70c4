"""JSON lines, and whole JSON files."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_detox.errors import DataError
from lora_detox.prompts.rows import BadRow, ColumnsTwice, FileRules, RawRow
from lora_detox.prompts.text_file import text_lines, whole_text

_ADVICE = "want one JSON object in each line; repair the file, or change `data.path`"


class _Decoder:
    """Objects of JSON; a key that stands twice marks the row and the object that it is in."""

    def __init__(self) -> None:
        self._found_twice = False
        self._decode = json.JSONDecoder(object_pairs_hook=self._object).decode

    def row(self, text: str) -> Any:
        """The value of a text; ValueError or RecursionError where it is no JSON."""
        self._found_twice = False
        return self.marked(self._decode(text))

    def marked(self, value: Any) -> Any:
        """A value with the mark of what was met inside it."""
        if self._found_twice and isinstance(value, dict) and not isinstance(value, ColumnsTwice):
            return ColumnsTwice(value, frozenset())
        return value

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        columns = dict(pairs)
        if len(columns) == len(pairs):
            return columns
        self._found_twice = True
        counts = Counter(name for name, _ in pairs)
        return ColumnsTwice(columns, frozenset(name for name, n in counts.items() if n > 1))


def read_jsonl(path: Path, rules: FileRules) -> Iterator[RawRow | BadRow]:
    """Rows of JSON lines; a file that is one list of objects is read as such.

    Args:
        path: a file that exists.
        rules: the encoding is read.

    Yields:
        Rows in file order, named "file:line".
    """
    first = next(text_lines(path, rules), "")
    if first.strip() == "[" or (first.lstrip().startswith("[") and _is_json(first)):
        yield from read_json(path, rules)
    else:
        yield from _json_lines(path, rules)


def read_json(path: Path, rules: FileRules) -> Iterator[RawRow | BadRow]:
    """A list of objects, an object with one list in it, or JSON lines under a wrong name.

    Args:
        path: a file that exists.
        rules: the encoding is read.

    Yields:
        Rows in file order, named "file:place".

    Raises:
        DataError: if it is JSON but holds no objects.
        json.JSONDecodeError: if it is no JSON.
    """
    content = whole_text(path, rules)
    decoder = _Decoder()
    try:
        rows = decoder.row(content)
    except RecursionError as error:
        raise DataError(
            f"{path} is nested too deeply; want a list of objects; change `data.path`"
        ) from error
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        yield from _json_lines(path, rules)
        return
    if isinstance(rows, dict):
        lists = [value for value in rows.values() if isinstance(value, list)]
        rows = lists[0] if len(lists) == 1 and len(rows) == 1 else [rows]
    if not isinstance(rows, list):
        raise DataError(
            f"{path} holds {type(rows).__name__}, want a list of objects; change `data.path`"
        )
    for number, columns in enumerate(rows, start=1):
        yield _checked_row(f"{path.name}:{number}", decoder.marked(columns))


def _json_lines(path: Path, rules: FileRules) -> Iterator[RawRow | BadRow]:
    decoder = _Decoder()
    for number, line in enumerate(text_lines(path, rules), start=1):
        if line.strip():
            yield _json_row(f"{path.name}:{number}", line, decoder)


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), list)
    except (ValueError, RecursionError):
        return False


def _json_row(where: str, line: str, decoder: _Decoder) -> RawRow | BadRow:
    try:
        columns = decoder.row(line.removeprefix("\ufeff"))
    except RecursionError:
        reason = "nested too deeply"
        return BadRow(where=where, reason=reason, advice=_ADVICE)
    except ValueError as error:
        return BadRow(where=where, reason=f"no JSON: {error}", kind="no JSON", advice=_ADVICE)
    return _checked_row(where, columns)


def _checked_row(where: str, columns: Any) -> RawRow | BadRow:
    if isinstance(columns, dict):
        return RawRow(where=where, columns=columns)
    reason = f"{type(columns).__name__}, want an object"
    return BadRow(where=where, reason=reason, advice=_ADVICE)
