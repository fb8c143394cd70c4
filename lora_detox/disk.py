"""What a run writes: whether there is room for it, and what is said where it cannot be written."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_detox.errors import DiskError

_FULL = "make room (checkpoint.keep=1 keeps fewer checkpoints)"
_NO_ACCESS = "want a folder that can be written to, in hydra.run.dir"
_IN_THE_WAY = "move away what stands there, or name another hydra.run.dir"
_GONE = "bring the folder back, or name another hydra.run.dir"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "raise the limit (ulimit -f)",
    errno.EROFS: _NO_ACCESS,
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
    errno.ENOENT: _GONE,
    errno.ESTALE: _GONE,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOTEMPTY: _IN_THE_WAY,
}
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
"""What only a disk answers, whoever asked it."""
_NUMBER = re.compile(r"(?:\(os error |\bOs \{ code: )(\d+)")
"""How libraries written in Rust tell the number of an error; the second is safetensors 0.4."""
_HALF_WRITTEN = re.compile(r"PytorchStreamWriter|unexpected pos \d+ vs \d+")
"""How torch.save tells that a file could not be written to its end."""


def disk_error(path: Path, error: Exception) -> DiskError:
    """What a person has to know of a file that could not be written.

    Args:
        path: of the file or folder.
        error: of the system, or of a library that met one.

    Returns:
        The error to raise, with the reason, the free space there and the way out.
    """
    number = _number(error)
    reason = os.strerror(number) if number else str(error).strip().splitlines()[0]
    remedy = _REMEDIES.get(number or 0, "look after the disk, or name another hydra.run.dir")
    return DiskError(
        f"cannot write {path}: {reason}; {_size(free_bytes(path))} free there. What was written "
        f"before is whole: {remedy}, and go on with resume=true"
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within this context what cannot be written ends in a DiskError with that path."""
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from error
    except Exception as error:
        if not _is_of_disk(error, None):
            raise
        raise disk_error(path, error) from error


@contextmanager
def naming_disk_faults(folder: Path) -> Iterator[None]:
    """The same for a whole run: only what a disk alone answers, or what is within its folder."""
    try:
        yield
    except Exception as error:
        if not _is_of_disk(error, folder):
            raise
        path = getattr(error, "filename", None)
        raise disk_error(Path(path) if path else folder, error) from error


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A place to write files into, which go to their places in a folder once all are there.

    Args:
        folder: that exists; what else it holds stays.

    Yields:
        The place, within the folder.

    Raises:
        DiskError: something could not be written; the folder is as it was.
    """
    part = folder / f".part-{os.getpid()}"
    try:
        with writing(folder):
            part.mkdir()
            yield part
            for file in sorted(one for one in part.rglob("*") if one.is_file()):
                target = folder / file.relative_to(part)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_space(folder: Path, needed: int, what: str) -> None:
    """There is room for what a run will write.

    Args:
        folder: of the run.
        needed: bytes.
        what: they are for, for the message.

    Raises:
        DiskError: there is less.
    """
    free = free_bytes(folder)
    if free is not None and free < needed:
        raise DiskError(
            f"hydra.run.dir: {folder} has {_size(free)} free, and {what} needs about "
            f"{_size(needed)}; make room, name another folder, or keep fewer checkpoints "
            "(checkpoint.keep=1, checkpoint.every=0)"
        )


def free_bytes(path: Path) -> int | None:
    """Room on the disk of a path that need not exist yet; None where nobody knows."""
    for place in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


def _is_of_disk(error: Exception, folder: Path | None) -> bool:
    number, filename = _number(error), getattr(error, "filename", None)
    if number in _OF_THE_DISK or _HALF_WRITTEN.search(str(error)):
        return True
    if folder is None or not isinstance(error, OSError) or not isinstance(filename, str):
        return False
    return Path(filename).absolute().is_relative_to(folder.absolute())


def _number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    if error.__cause__ is not None and isinstance(error.__cause__, OSError):
        return error.__cause__.errno
    told = _NUMBER.search(str(error))
    return int(told.group(1)) if told else None


def _size(count: int | None) -> str:
    if count is None:
        return "an unknown number of bytes"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
