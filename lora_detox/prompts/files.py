"""Readers of local files: jsonl, json, csv (each also .gz) and parquet.

They are read here rather than by `datasets`: a bad line has to be named and skipped, and nothing
needs to be copied into a cache first.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyarrow import parquet  # type: ignore[import-untyped]

from lora_detox.errors import DataError
from lora_detox.prompts.rows import BadRow, RawRow

DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
_PARQUET_BATCH_ROWS = 1024
_LONGEST_CSV_CELL = 2**31 - 1


def data_suffix(path: Path) -> str | None:
    """The kind of data file by its name, `.gz` left aside; None for any other file."""
    name = path.name.lower().removesuffix(".gz")
    suffix = next((one for one in DATA_SUFFIXES if name.endswith(one)), None)
    return None if suffix == ".parquet" and path.name.lower().endswith(".gz") else suffix


def read_file(path: Path) -> Iterator[RawRow | BadRow]:
    """Rows of one local file; a malformed one comes as BadRow.

    Args:
        path: a file that exists and has one of DATA_SUFFIXES (text ones may end in .gz).

    Yields:
        Rows in file order, named "file:line".

    Raises:
        DataError: if the file as a whole cannot be read.
    """
    readers: dict[str, Callable[[Path], Iterator[RawRow | BadRow]]] = {
        ".jsonl": _read_jsonl,
        ".json": _read_json,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    try:
        yield from readers[data_suffix(path) or ""](path)
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise DataError(
            f"cannot read the data file {path}: {error}; want a whole "
            f"{data_suffix(path)} file; change `data.path`"
        ) from error


def files_by_split(folder: Path) -> dict[str, list[Path]]:
    """Data files of a folder (or of its `data/`) by the split word in their names.

    Args:
        folder: a folder that exists.

    Returns:
        Split -> files (several where it is sharded); empty where no name has a split word.

    Raises:
        DataError: if the files belong to several data sets.
    """
    for place in (folder, folder / "data"):
        files = sorted(path for path in place.glob("*") if path.is_file() and data_suffix(path))
        named = [(path, *_split_of(path)) for path in files]
        data_sets = sorted({rest for _, split, rest in named if split})
        if len(data_sets) > 1:
            raise DataError(
                f"{folder} holds several data sets ({', '.join(data_sets)}): want one; name its "
                "files with `data.path`, `data.validation_path` and `data.test_path`"
            )
        by_split: dict[str, list[Path]] = {}
        for path, split, _ in named:
            if split:
                by_split.setdefault(split, []).append(path)
        if by_split:
            return by_split
    return {}


def _split_of(path: Path) -> tuple[str | None, str]:
    """Split word in a file name, and the name without it, without shard numbers and suffixes."""
    stem = path.name.lower().removesuffix(".gz").removesuffix(data_suffix(path) or "")
    split, rest = None, []
    for word in re.split(r"[._-]+", stem):
        match = next((name for name, words in SPLIT_WORDS.items() if word in words), None)
        if match and split is None:
            split = match
        elif not word.isdigit() and word != "of":
            rest.append(word)
    return split, ".".join(rest)


def _byte_lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
        yield from file


def _read_jsonl(path: Path) -> Iterator[RawRow | BadRow]:
    for number, line in enumerate(_byte_lines(path), start=1):
        if line.strip():
            yield _json_row(f"{path.name}:{number}", line)


def _json_row(where: str, line: bytes) -> RawRow | BadRow:
    try:
        columns = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON and bad UTF-8 alike
        return BadRow(where=where, reason=f"no JSON: {error}")
    return _checked_row(where, columns)


def _checked_row(where: str, columns: Any) -> RawRow | BadRow:
    if not isinstance(columns, dict):
        return BadRow(where=where, reason=f"{type(columns).__name__}, want an object")
    return RawRow(where=where, columns=columns)


def _read_json(path: Path) -> Iterator[RawRow | BadRow]:
    """A list of objects, an object with one list in it, or JSON lines under a wrong name."""
    content = b"".join(_byte_lines(path)).decode("utf-8-sig")
    try:
        rows = json.loads(content)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        yield from _read_jsonl(path)
        return
    if isinstance(rows, dict):
        lists = [value for value in rows.values() if isinstance(value, list)]
        rows = lists[0] if len(lists) == 1 and len(rows) == 1 else [rows]
    if not isinstance(rows, list):
        raise DataError(
            f"{path} holds {type(rows).__name__}, want a list of objects; change `data.path`"
        )
    for number, columns in enumerate(rows, start=1):
        yield _checked_row(f"{path.name}:{number}", columns)


def _read_csv(path: Path) -> Iterator[RawRow | BadRow]:
    csv.field_size_limit(_LONGEST_CSV_CELL)  # the default refuses long dialogues
    lines = (line.decode("utf-8", "surrogateescape") for line in _byte_lines(path))
    reader = csv.reader(lines)
    header = [name.removeprefix("\ufeff") for name in next(reader, [])]
    while True:
        first_line = reader.line_num + 1
        where = f"{path.name}:{first_line}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(where=where, reason=f"no CSV: {error}")
            continue
        if len(cells) == len(header):
            yield RawRow(where=where, columns=dict(zip(header, cells, strict=True)))
        elif cells:
            reason = f"{len(cells)} cells, want {len(header)}"
            yield BadRow(where=where, reason=reason)


def _read_parquet(path: Path) -> Iterator[RawRow | BadRow]:
    number = 0
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
            for columns in batch.to_pylist():
                number += 1
                yield RawRow(where=f"{path.name}:{number}", columns=columns)
