"""The files of the run directory that programs read: metrics.jsonl, samples.jsonl, summary.json.

Standard JSON only: a number that is not finite becomes null, because a bare NaN stops every strict
reader. Plain ASCII with escapes, because model text may hold line separators (U+2028, U+0085) or
lone surrogates, which would tear a line or fail to encode.
"""

import errno
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lora_detox.disk import writing
from lora_detox.errors import DataError
from lora_detox.json_text import parse_json


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold.

    Args:
        value: None, bool, number, text, path, numpy or torch scalar or array, or a mapping, list,
            tuple of these.

    Returns:
        The same in dicts, lists and Python scalars; None for a number that is not finite.

    Raises:
        TypeError: if a value is of any other type.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)) or _is_tensor(value):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (Path, str)):
        return str(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    raise TypeError(f"a run record cannot hold {type(value).__name__} {value!r}")


def _is_tensor(value: Any) -> bool:
    """Of PyTorch, which takes seconds to import and is there where a tensor is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def write_json_atomic(path: Path, value: Any) -> None:
    """Write a JSON file so that a reader sees the old content or the new, never a part.

    Args:
        path: the file to write; its folder is made where it is missing.
        value: anything that `plain` accepts.
    """
    write_text_atomic(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a JSONL file, without a last line that a killed process left torn.

    Args:
        path: the file; one that does not exist has no rows.

    Returns:
        One dict per line.

    Raises:
        DataError: a line that holds something else, with its number.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1].split(b"\n")
    return [_row(line, f"{path}:{n}") for n, line in enumerate(complete, 1) if line.strip()]


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no row of JSON ({error}); remove that line") from error
    if not isinstance(row, dict):
        raise DataError(f"{where} is no row: got {type(row).__name__}; remove that line")
    return row


class MetricsLog:
    """`metrics.jsonl`: one line per iteration, on disk as soon as it is written.

    Args:
        path: the file; lines are appended to what is there.
        keep_through: after a resume, the last iteration that the checkpoint holds. Later rows are
            dropped, because those iterations run again; below 0 none is read. None keeps all.
    """

    def __init__(self, path: Path, *, keep_through: int | None = None) -> None:
        begins = keep_through is not None and keep_through < 0
        rows = [] if begins else read_jsonl(path)
        if keep_through is not None:
            rows = [row for row in rows if row.get("iteration", 0) <= keep_through]
        # Rewriting also removes the torn line of a killed process, onto which the next would run.
        write_text_atomic(path, "".join(_line(row) for row in rows))
        self.path, self._file = path, path.open("ab", buffering=0)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one iteration.

        Args:
            row: values as `plain` accepts them.

        Raises:
            DiskError: it could not be written; the file has the rows before it.
        """
        rest = memoryview(_line(row).encode())
        with writing(self.path):
            before = os.fstat(self._file.fileno())
            if before.st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, "it was removed", str(self.path))
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                os.ftruncate(self._file.fileno(), before.st_size)
                raise

    def sync(self) -> None:
        """Have every row on the disk, not only with the operating system."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file in one step; values as `plain` accepts them."""
    write_text_atomic(path, "".join(_line(row) for row in rows))


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(plain(row), allow_nan=False) + "\n"


def write_text_atomic(path: Path, text: str) -> None:
    """Write a text file as UTF-8 so that a reader sees the old content or the new, never a part.

    Args:
        path: the file to write; its folder is made where it is missing.
        text: lone surrogates in it become `?`.

    Raises:
        DiskError: it could not be written; what was there before is as it was.
    """
    # Named after the process, so that two writers cannot meet in one temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8", errors="replace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
