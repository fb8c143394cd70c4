"""Text files as lines: compression, encoding and line ends are told by their first bytes."""

import codecs
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, cast

from lora_detox.errors import DataError
from lora_detox.prompts.rows import MIB, FileRules

_FIRST_BYTES = 1 << 16
# UTF-32 first: its mark begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GZIP_MAGIC = b"\x1f\x8b"
_OTHER_KINDS = {
    b"PK\x03\x04": "an Excel workbook or another zip archive",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls)",
}


def text_lines(path: Path, rules: FileRules) -> Iterator[str]:
    """Lines of a text file, plain or compressed by gzip, read one by one.

    Args:
        path: a file that exists.
        rules: name of the encoding, None takes UTF-16 or UTF-32 where the first bytes are of it,
            else UTF-8; and the longest line.

    Yields:
        Lines with their ends (line feed, also after a carriage return; a carriage return alone
        where the file has no others). A byte that is none of the encoding is a lone surrogate.

    Raises:
        DataError: a line is longer than the rules allow.
        ValueError: if the file is of another kind than text.
    """
    with _open_text(path, rules.encoding) as file:
        first = True
        for line in iter(partial(file.readline, rules.longest_line + 1), ""):
            if len(line) > rules.longest_line:
                raise DataError(
                    f"{path} has a line of more than {rules.max_line_mb} MiB (data.max_line_mb); "
                    "want one row in each line; repair the file, or raise `data.max_line_mb`"
                )
            yield line.removeprefix("\ufeff") if first else line
            first = False


def whole_text(path: Path, rules: FileRules) -> str:
    """All of a text file, for what cannot be read line by line.

    Args:
        path: a file that exists.
        rules: the encoding, and how much may be held.

    Returns:
        Its text.

    Raises:
        DataError: there is more than the rules allow.
        ValueError: if the file is of another kind than text.
    """
    with _open_text(path, rules.encoding) as file:
        text = file.read(rules.longest_text + 1)
    if len(text) > rules.longest_text:
        raise DataError(
            f"{path} holds more than {rules.longest_text / MIB:g} MiB of text that has to be read "
            "as a whole (a quarter of data.max_total_mb); write it as JSON lines (.jsonl), or "
            "raise `data.max_total_mb`"
        )
    return text.removeprefix("\ufeff")


@contextmanager
def _open_text(path: Path, encoding: str | None) -> Iterator[io.TextIOWrapper]:
    with _open_bytes(path) as file:
        first_bytes = file.read(_FIRST_BYTES)
    kind = next((kind for magic, kind in _OTHER_KINDS.items() if first_bytes.startswith(magic)), "")
    if kind:
        raise ValueError(f"by its first bytes it is {kind}, whatever its name says")
    encoding = encoding or _encoding_of(first_bytes)
    newline = _line_end(first_bytes, encoding)
    with (
        _open_bytes(path) as file,
        io.TextIOWrapper(
            file, encoding=encoding, errors="surrogateescape", newline=newline
        ) as text,
    ):
        yield text


def _open_bytes(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        is_compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    if is_compressed or path.name.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def _encoding_of(first_bytes: bytes) -> str:
    for mark, encoding in _MARKS:
        if first_bytes.startswith(mark):
            return encoding
    # Without a mark UTF-16 shows by the zero byte of every ASCII letter.
    even, odd = first_bytes[::2].count(0), first_bytes[1::2].count(0)
    if max(even, odd) > len(first_bytes) / 8 and min(even, odd) * 8 < max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"


def _line_end(first_bytes: bytes, encoding: str) -> str:
    start = first_bytes.decode(encoding, "ignore")
    is_old_mac = start.count("\r") - start.count("\r\n") > start.count("\n")
    return "\r" if is_old_mac else "\n"
