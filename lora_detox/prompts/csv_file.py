"""Tables as text: comma, semicolon, tab or bar between the cells, quotes around them as needed.

A quote that is never closed costs its own line alone. Python's reader would take all lines up to
the next quote, or the end of the file, into one cell; here the lines of a record are kept until the
record has the right number of cells, and else given back.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_detox.errors import DataError
from lora_detox.prompts.rows import BadRow, FileRules, RawRow, columns_of
from lora_detox.prompts.text_file import text_lines

DELIMITERS = (",", ";", "\t", "|")
_LONGEST_CELL = 2**31 - 1
# Lines that one record may have: so many, and fewer once too much was read in vain.
_MOST_LINES, _FEW_LINES = 50_000, 100
_READ_IN_VAIN = 50_000
_CLOSING = re.compile(r'(?<!")(?:"")*"(?!")')
_ANOTHER_DELIMITER = (
    "text that holds the delimiter has to stand in double quotes; if the cells are divided by "
    "something else, name it with `data.delimiter`"
)


@dataclass(frozen=True, kw_only=True)
class _Table:
    """How the cells of a file are written.

    Attributes:
        delimiter: what stands between cells.
        header: names of the columns.
        skips_spaces: whether a space after a delimiter belongs to it.
    """

    delimiter: str
    header: list[str]
    skips_spaces: bool

    @property
    def width(self) -> int:
        """Cells of a row."""
        return len(self.header)


class _RecordTooLongError(Exception):
    """A record goes on for more lines than any real one."""


class _Lines:
    """Lines of a file, those of the present record kept so that they can be given back."""

    def __init__(self, lines: Iterator[str], longest: int) -> None:
        self._lines, self._longest = lines, longest
        self._characters = 0  # of the present record
        self._given_back: deque[str] = deque()
        self._in_vain = 0
        self.record: list[str] = []
        self.number = 1  # of the record's first line
        self.most = _MOST_LINES
        self.has_long_records = False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else next(self._lines)
        self.record.append(line)
        self._characters += len(line)
        if len(self.record) > self.most or self._characters > self._longest:
            raise _RecordTooLongError
        return line

    def end_record(self) -> None:
        """The lines of the record are read."""
        self.number += len(self.record)
        self._clear()

    def _clear(self) -> None:
        self.record.clear()
        self._characters = 0

    def give_back(self, kept: int) -> None:
        """All lines of the record but the first `kept` are read again."""
        self._in_vain += len(self.record) - kept
        self._given_back.extendleft(reversed(self.record[kept:]))
        self.number += kept
        self._clear()
        too_much = self._in_vain > _READ_IN_VAIN + 10 * self.number
        self.most = _FEW_LINES if too_much else _MOST_LINES


def read_csv(path: Path, rules: FileRules) -> Iterator[RawRow | BadRow]:
    """Rows of a table.

    Args:
        path: a file that exists.
        rules: the columns that are wanted tell the delimiter, where none is named.

    Yields:
        Rows in file order, named "file:line" by their first line.

    Raises:
        DataError: if the line of names has a quote that is never closed.
    """
    csv.field_size_limit(_LONGEST_CELL)  # the default refuses long dialogues
    lines = _Lines(text_lines(path, rules), rules.longest_line)
    table = _read_header(lines, path, rules)
    if table is None:
        return
    reader = _reader(lines, table)
    header, width, record = table.header, table.width, lines.record
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _RecordTooLongError) as error:
            yield _mended(lines, table, path, str(error))
            continue
        if len(cells) == width and not (len(record) > 1 and _is_many_rows(record, table)):
            where = f"{path.name}:{lines.number}"
            yield RawRow(where=where, columns=columns_of(header, cells), is_text=True)
            lines.has_long_records |= len(record) > 1
            lines.end_record()
        elif cells:
            yield _misfit(lines, table, path, cells)
        else:
            lines.end_record()


def find_delimiter(line: str, rules: FileRules, first: str = ",") -> str:
    """What divides the names of a table: that which gives most of the columns that are wanted.

    Args:
        line: the line of names.
        rules: a delimiter that is named there is taken; else the wanted columns count.
        first: is taken where several do equally well.

    Returns:
        One of DELIMITERS, or what the rules name.
    """
    if rules.delimiter is not None:
        return rules.delimiter

    def fit(delimiter: str) -> tuple[int, int, bool]:
        names = [name.strip().casefold() for name in next(csv.reader([line], delimiter=delimiter))]
        return len(set(names) & rules.wanted), len(names), delimiter == first

    return max(DELIMITERS, key=fit)


def _read_header(lines: _Lines, path: Path, rules: FileRules) -> _Table | None:
    """The line of names; None for an empty file."""
    line = next((line for line in lines if line.strip()), None)
    if line is None:
        return None
    if line.lstrip().startswith(("{", "[{")):
        raise DataError(f"{path} holds JSON; call it .jsonl, and change `data.path`")
    named = line.strip().casefold()
    if named.startswith("sep=") and len(named) == len("sep=") + 1:  # Excel's first line
        delimiter = named[-1]
        lines.end_record()
    elif named == "sep=":
        delimiter = "\t"
        lines.end_record()
    else:
        first = "\t" if path.name.lower().removesuffix(".gz").endswith((".tsv", ".tab")) else ","
        delimiter = find_delimiter(line, rules, first)
        lines.give_back(len(lines.record) - 1)
    try:
        cells = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
    except (csv.Error, _RecordTooLongError) as error:
        raise DataError(
            f"{path}: the line of column names ({lines.number}) has a quote that is never closed; "
            "repair it, or change `data.path`"
        ) from error
    lines.end_record()
    return _Table(
        delimiter=delimiter,
        header=[name.strip() for name in cells],
        skips_spaces=len(cells) > 1 and all(name.startswith(" ") for name in cells[1:]),
    )


def _row(where: str, table: _Table, cells: list[str]) -> RawRow:
    return RawRow(where=where, columns=columns_of(table.header, cells), is_text=True)


def _reader(lines: Iterator[str], table: _Table) -> Iterator[list[str]]:
    return csv.reader(
        lines, delimiter=table.delimiter, skipinitialspace=table.skips_spaces, strict=True
    )


def _is_many_rows(record: Sequence[str], table: _Table) -> bool:
    """Whether the lines of one record would each be a row, so that a quote was never closed.

    Few lines, or few cells, may be so by chance; a tab hardly ever stands inside a text.
    """
    least = 2 if table.delimiter == "\t" else (10 if table.width == 2 else 4)
    delimiters = table.width - 1
    return (
        bool(delimiters)
        and len(record) >= least
        and all(line.count(table.delimiter) == delimiters for line in record)
    )


def _mended(lines: _Lines, table: _Table, path: Path, error: str) -> RawRow | BadRow:
    """What a record with stray quotes gives: its first line as a row, or one bad row."""
    first = lines.record[0]
    cells = _stray_quotes_kept(first, table)
    if cells is not None:
        where = f"{path.name}:{lines.number}"
        lines.give_back(1)
        return _row(where, table, cells)
    place = _last_opening(lines.record, table.delimiter)
    where = f"{path.name}:{lines.number + (place or 0)}"
    lines.give_back(_end_of_bad_record(lines, table, place or 0))
    if place is None:
        kind = "quotes stand where none may"
        return BadRow(where=where, reason=f"{kind}: {error}", kind=kind)
    return BadRow(
        where=where,
        reason="the quote that opens in this line is never closed",
        kind="the quote that opens in this line is never closed",
        advice="a quote inside a cell is written twice, and the cell in quotes; repair the file",
    )


def _end_of_bad_record(lines: _Lines, table: _Table, place: int) -> int:
    """How many lines an unclosed quote costs: its own, and further ones if these hold its row.

    Where other rows go over several lines, a row with too few cells in its own goes on.
    """
    delimiters = 0
    for number, line in enumerate(lines.record if lines.has_long_records else [], start=1):
        delimiters += line.count(table.delimiter)
        if number > place and delimiters >= table.width - 1:
            return number
    return place + 1


def _misfit(lines: _Lines, table: _Table, path: Path, cells: list[str]) -> RawRow | BadRow:
    """A record with a wrong number of cells."""
    record = list(lines.record)
    where = f"{path.name}:{lines.number}"
    if len(record) > 1:
        rows = sum(_is_row(line, table) for line in record[1:])
        if 2 * rows >= len(record) - 1:
            return _mended(lines, table, path, f"{len(cells)} cells, want {table.width}")
    lines.end_record()
    if len(record) == 1 and '\\"' in record[0]:
        escaped = _stray_quotes_kept(record[0], table)
        if escaped is not None:
            return _row(where, table, escaped)
    if len(cells) > table.width and not any(cells[table.width :]):  # delimiters at the end
        return _row(where, table, cells[: table.width])
    if table.width == 1 and len(record) == 1 and not record[0].startswith('"'):
        # A delimiter in a text that is alone in its line.
        return _row(where, table, [record[0].rstrip("\r\n")])
    return BadRow(
        where=where,
        reason=f"{len(cells)} cells, want {table.width}",
        kind=f"another number of cells than the {table.width} names in the first line",
        advice=_ANOTHER_DELIMITER,
    )


def _is_row(line: str, table: _Table) -> bool:
    """Whether a line alone would be a row."""
    if line.count('"') % 2:
        return False
    try:
        return len(next(_reader(iter([line]), table), [])) == table.width
    except csv.Error:
        return False


def _stray_quotes_kept(line: str, table: _Table) -> list[str] | None:
    """Cells of a line where a quote only closes before a delimiter or the line's end.

    A table with tabs may also have no quoting at all, as Google Sheets writes it.
    """
    text = line.rstrip("\r\n")
    if table.delimiter == "\t" and text.count("\t") == table.width - 1:
        return text.split("\t")
    cells: list[str] = []
    rest: str | None = text
    while rest is not None:
        if rest.startswith('"'):
            cell, closed, after = _to_closing_quote(rest[1:], table.delimiter)
            if not closed:
                return None
            rest = after
        else:
            cell, delimiter, after_cell = rest.partition(table.delimiter)
            rest = after_cell if delimiter else None
        cells.append(cell)
        if rest is not None and table.skips_spaces:
            rest = rest.lstrip(" ")
    return cells if len(cells) == table.width else None


def _to_closing_quote(text: str, delimiter: str) -> tuple[str, bool, str | None]:
    """A quoted cell, whether it is closed, and what follows its delimiter."""
    end = rf"(?={re.escape(delimiter)}|$)"
    if '\\"' in text:  # quotes are marked by a backslash
        closing = re.match(rf'(?:\\.|""|[^"\\])*"{end}', text)
    else:
        closing = re.search(rf'(?<!")(?:"")*"{end}', text)
    if closing is None:
        return text, False, None
    cell, after = text[: closing.end() - 1], text[closing.end() :]
    cell = cell.replace('\\"', '"') if '\\"' in text else cell.replace('""', '"')
    return cell, True, after[len(delimiter) :] if after else None


def _last_opening(record: Sequence[str], delimiter: str) -> int | None:
    """Place of the last line in which a quote opens that stays open; None where none does."""
    opening = re.compile(rf'(?:^|{re.escape(delimiter)})"')
    place, is_open = None, False
    for number, line in enumerate(record):
        was_open, position = is_open, 0
        while match := (_CLOSING if is_open else opening).search(line, position):
            is_open, was_open, position = not is_open, False, match.end()
        if is_open and not was_open:
            place = number
    return place
