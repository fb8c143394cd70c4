"""Tables that took long to make, kept between runs as Parquet files under a cache folder.

A file appears under its name only when it is whole, every page of it has a checksum, and one that
cannot be read is made again. The key of a table holds everything that it was made from, so that a
stored table is never out of date; the oldest files are removed beyond `_KEPT`.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
from pyarrow import parquet

FOLDER_VARIABLE = "LORA_DETOX_CACHE"
_KEPT = 32
_KEY = re.compile("[0-9a-f]{32}")
"""Names of our tables; whatever else lies in the folder is somebody else's."""


def cache_folder() -> Path:
    """`$LORA_DETOX_CACHE`, else lora_detox under `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "lora_detox"


def file_marks(files: Iterable[Path]) -> list[list[Any]]:
    """What tells a changed file from the same one: its place, size and time of change.

    Args:
        files: that exist.

    Returns:
        [absolute path, bytes, nanoseconds] of each.
    """
    stats = [(path.resolve(), path.stat()) for path in files]
    return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


def table_key(**made_from: Any) -> str:
    """Digest of everything that a table is made from.

    Args:
        **made_from: plain values.

    Returns:
        Hexadecimal digits.
    """
    text = json.dumps(made_from, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def read_table(kind: str, key: str) -> pyarrow.Table | None:
    """Take a table from the cache.

    Args:
        kind: the folder of tables of its kind.
        key: as from `table_key`.

    Returns:
        The table; None where there is none, or it is torn.
    """
    path = _path(kind, key)
    try:
        table = parquet.read_table(path, page_checksum_verification=True)
        os.utime(path)
    except (OSError, pyarrow.ArrowException):
        return None
    return table


def write_table(kind: str, key: str, table: pyarrow.Table) -> bool:
    """Put a table into the cache; a cache that cannot be written stops no run.

    Args:
        kind: the folder of tables of its kind.
        key: as from `table_key`.
        table: what is kept.

    Returns:
        Whether it is there now.
    """
    path = _path(kind, key)
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(prefix=".part-", dir=path.parent)
        os.close(descriptor)
        part = Path(name)
        parquet.write_table(table, part, compression="zstd", write_page_checksum=True)
        part.replace(path)
        _remove_oldest(path.parent)
    except (OSError, pyarrow.ArrowException):
        if part is not None:
            part.unlink(missing_ok=True)
        return False
    return True


def _path(kind: str, key: str) -> Path:
    return cache_folder() / kind / f"{key}.parquet"


def _remove_oldest(folder: Path) -> None:
    tables = [one for one in folder.glob("*.parquet") if _KEY.fullmatch(one.stem)]
    newest_first = sorted(tables, key=lambda one: -one.stat().st_mtime_ns)
    for path in newest_first[_KEPT:]:
        path.unlink(missing_ok=True)
