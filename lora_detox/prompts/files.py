"""Local files and folders of them: which reader reads what.

They are read here rather than by `datasets`: a bad line has to be named and skipped, and nothing
needs to be copied into a cache first.
"""

import csv
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from lora_detox.errors import DataError
from lora_detox.prompts.csv_file import find_delimiter, read_csv
from lora_detox.prompts.excel_file import read_excel
from lora_detox.prompts.json_file import read_json, read_jsonl
from lora_detox.prompts.rows import BadRow, FileRules, RawRow
from lora_detox.prompts.text_file import text_lines, whole_text

TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".tab", ".txt")
DATA_SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".arrow", ".feather", ".xlsx", ".xlsm")
KINDS_OF_FILES = ".jsonl, .json, .csv, .tsv, .txt (each also .gz), .parquet, .arrow, .xlsx"
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
TEXT_COLUMN = "text"
_WORDS_OF_A_NAME = 3
_UNREADABLE = (
    OSError,
    EOFError,
    MemoryError,
    RecursionError,
    ValueError,
    csv.Error,
    zlib.error,
)
"""What the readers raise where a file is not what its name says."""
_NO_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_ABOUT_DATA = re.compile(r"(readme|licen[cs]e|requirements|notice|citation)\b.*", re.IGNORECASE)


def data_suffix(path: Path) -> str | None:
    """The kind of data file by its name, `.gz` left aside; None for any other file."""
    name = path.name.lower()
    if name in _NO_DATA:
        return None
    bare = name.removesuffix(".gz")
    suffixes = DATA_SUFFIXES if bare == name else TEXT_SUFFIXES
    return next((suffix for suffix in suffixes if bare.endswith(suffix)), None)


def is_plain_text(path: Path) -> bool:
    """Whether a file of data is text that takes as much room when it is read."""
    return path.name.lower().endswith(TEXT_SUFFIXES)


def read_file(path: Path, rules: FileRules) -> Iterator[RawRow | BadRow]:
    """Rows of one local file; a malformed one comes as BadRow.

    Args:
        path: a file that exists and has one of DATA_SUFFIXES (text ones may end in .gz).
        rules: how it is read.

    Yields:
        Rows in file order, named "file:line".

    Raises:
        DataError: if the file as a whole cannot be read.
    """
    readers: dict[str, Callable[[Path, FileRules], Iterator[RawRow | BadRow]]] = {
        ".jsonl": read_jsonl,
        ".ndjson": read_jsonl,
        ".json": read_json,
        ".csv": read_csv,
        ".tsv": read_csv,
        ".tab": read_csv,
        ".txt": _read_txt,
        ".parquet": _read_table,
        ".arrow": _read_table,
        ".feather": _read_table,
        ".xlsx": read_excel,
        ".xlsm": read_excel,
    }
    try:
        yield from readers[data_suffix(path) or ""](path, rules)
    except _UNREADABLE as error:
        key = (
            "`data.path`, or `data.encoding`" if isinstance(error, UnicodeError) else "`data.path`"
        )
        raise DataError(
            f"cannot read the data file {path}: {error}; want a whole "
            f"{data_suffix(path)} file; change {key}"
        ) from error


def _read_table(path: Path, rules: FileRules) -> Iterator[RawRow]:
    from lora_detox.prompts.arrow_file import read_table  # noqa: PLC0415 - Arrow is slow to import

    yield from read_table(path, rules)


def read_documents(files: list[Path], rules: FileRules) -> Iterator[RawRow]:
    """Text files of one prompt each.

    Args:
        files: that exist.
        rules: the encoding and the bounds are read.

    Yields:
        A row per file, named by it.
    """
    for path in files:
        text = whole_text(path, rules).strip()
        yield RawRow(where=path.name, columns={TEXT_COLUMN: text, "id": path.name})


def _read_txt(path: Path, rules: FileRules) -> Iterator[RawRow | BadRow]:
    """One prompt per line, or a table with a line of names (Excel's "Unicode text")."""
    lines = text_lines(path, rules)
    first = next(lines, "")
    delimiter = find_delimiter(first, rules, "\t")
    names = next(csv.reader([first], delimiter=delimiter), [])
    are_names = all(len(name.split()) <= _WORDS_OF_A_NAME for name in names)
    is_table = are_names and any(map(rules.wants, names))
    if is_table or first.casefold().startswith("sep="):
        yield from read_csv(path, rules)
        return
    for number, line in enumerate(text_lines(path, rules), start=1):
        if line.strip():
            text = line.rstrip("\r\n")
            yield RawRow(where=f"{path.name}:{number}", columns={TEXT_COLUMN: text})


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
        files = data_files(place)
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
        if by_split and not _are_documents(files):
            return by_split
    return {}


def data_files(folder: Path) -> list[Path]:
    """Data files of a folder, in the order of their names; READMEs and hidden files are none."""
    return sorted(
        path
        for path in folder.glob("*")
        if path.is_file()
        and data_suffix(path)
        and not path.name.startswith(".")
        and not _ABOUT_DATA.match(path.name)
    )


def document_files(folder: Path) -> dict[str, list[Path]]:
    """Text files of one prompt each: in a folder, or in its folders named by a split.

    Args:
        folder: a folder that exists.

    Returns:
        Split -> files, those of the folder itself as "train"; empty where it holds other data.
    """
    files = data_files(folder)
    if files:
        return {"train": files} if _are_documents(files) else {}
    by_split: dict[str, list[Path]] = {}
    for place in sorted(path for path in folder.glob("*") if path.is_dir()):
        split = next((name for name, words in SPLIT_WORDS.items() if place.name in words), None)
        inner = data_files(place)
        if split and _are_documents(inner):
            by_split.setdefault(split, []).extend(inner)
    return by_split


def _are_documents(files: list[Path]) -> bool:
    """Text files alone, not all of which are named by a split: one prompt each."""
    return (
        len(files) > 1
        and all(data_suffix(path) == ".txt" for path in files)
        and not all(_split_of(path)[0] for path in files)
    )


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
