"""Excel workbooks (.xlsx), also as Google Sheets and LibreOffice write them: the first sheet.

A workbook is a zip archive of XML, so the standard library reads it. Values are text, as in CSV;
of a formula the value that was stored with it is taken.
"""

import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from lora_detox.errors import DataError
from lora_detox.prompts.rows import MIB, FileRules, RawRow, columns_of

_BOOLEANS = {"0": "FALSE", "1": "TRUE"}
_MOST_COLUMNS = 16384
"""Of an Excel sheet."""
_NO_WORKBOOK = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ElementTree.ParseError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,  # with a password
    ValueError,
)
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_LINK = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_STRICT_LINK = "{http://purl.oclc.org/ooxml/officeDocument/relationships}id"


def read_excel(path: Path, rules: FileRules) -> Iterator[RawRow]:
    """Rows of the first sheet; its first row that is not empty names the columns.

    Cells in columns without a name are notes beside the table.

    Args:
        path: a file that exists.
        rules: how much it may unfold into.

    Yields:
        Rows named "file:row" as Excel counts.

    Raises:
        DataError: if it is no workbook.
    """
    header: list[str] = []
    try:
        with zipfile.ZipFile(path) as book:
            _check_size(book, path, rules)
            texts = _shared_texts(book)
            for number, cells in _sheet_rows(book, _first_sheet(book), texts):
                if not any(cells):
                    continue
                if not header:
                    header = [name.strip() for name in cells]
                    continue
                where = f"{path.name}:{number}"
                missing = [""] * (len(header) - len(cells))  # empty cells at the end of a row
                columns = columns_of(header, [*cells, *missing][: len(header)])
                yield RawRow(where=where, columns=columns, is_text=True)
    except _NO_WORKBOOK as error:
        raise DataError(
            f"cannot read the workbook {path}: {error}; want .xlsx (an older .xls, or one with a "
            "password, is saved as .xlsx or CSV UTF-8 first); change `data.path`"
        ) from error


def _check_size(book: zipfile.ZipFile, path: Path, rules: FileRules) -> None:
    """A small archive may unfold into more than there is memory for."""
    size = sum(entry.file_size for entry in book.infolist())
    if size > rules.longest_text:
        raise DataError(
            f"the workbook {path} unfolds into {size / MIB:,.0f} MiB, want at most "
            f"{rules.longest_text / MIB:g} (a quarter of data.max_total_mb); save it as CSV UTF-8, "
            "or raise `data.max_total_mb`"
        )


def _first_sheet(book: zipfile.ZipFile) -> str:
    """Path of the first sheet inside the archive."""
    workbook = ElementTree.fromstring(book.read("xl/workbook.xml"))
    sheet = next((one for one in workbook.iter() if _name(one) == "sheet"), None)
    if sheet is None:
        raise KeyError("no sheet")
    link = sheet.get(_LINK) or sheet.get(_STRICT_LINK)
    for one in ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels")):
        if one.get("Id") == link:
            target = str(one.get("Target"))
            return target.removeprefix("/") if target.startswith("/") else f"xl/{target}"
    raise KeyError("no sheet")


def _shared_texts(book: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    table = ElementTree.fromstring(book.read("xl/sharedStrings.xml"))
    return [_text(one) for one in table if _name(one) == "si"]


def _sheet_rows(
    book: zipfile.ZipFile, sheet: str, texts: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each row that has any."""
    number = 0
    with book.open(sheet) as file:
        for _, element in ElementTree.iterparse(file):
            if _name(element) != "row":
                continue
            number = int(element.get("r") or number + 1)
            cells: list[str] = []
            for cell in element:
                place = _column(cell.get("r", ""), len(cells))
                cells += [""] * (place - len(cells))
                cells.append(_value(cell, texts))
            element.clear()
            yield number, cells


def _column(reference: str, place: int) -> int:
    """Place of a cell by its reference ("C7" -> 2); without one it follows the last."""
    letters = "".join(letter for letter in reference if letter.isalpha())
    if not letters:
        return place
    value = 0
    for letter in letters.upper():
        value = value * 26 + ord(letter) - ord("A") + 1
        if not 0 < value <= _MOST_COLUMNS:
            raise IndexError(f"no column {letters[:10]}")
    return value - 1


def _value(cell: ElementTree.Element, texts: list[str]) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        return _text(cell)
    value = next((one.text or "" for one in cell if _name(one) == "v"), "")
    if kind == "s" and value:
        return texts[int(value)]
    if kind == "b":
        return _BOOLEANS.get(value, value)
    if kind == "e":  # an error like #N/A
        return ""
    if kind == "n" and value.endswith(".0"):
        return value.removesuffix(".0")
    return _unescaped(value)


def _text(element: ElementTree.Element) -> str:
    """Text of all runs; a reading aid (furigana) is none of it."""
    parts: list[str] = []
    for one in element:
        if _name(one) == "t":
            parts.append(one.text or "")
        elif _name(one) in {"r", "is"}:
            parts.append(_text(one))
    return _unescaped("".join(parts))


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).replace("\r\n", "\n")


def _name(element: ElementTree.Element) -> str:
    """Tag without its namespace, of which there are two."""
    return str(element.tag).rpartition("}")[2]
