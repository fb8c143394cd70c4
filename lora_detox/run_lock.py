"""One run, one directory: an exclusive lock, which the system takes from a process that dies.

The lock is one of the kernel's (flock) on a file in the run's folder; what the file says is for
people. Where a file system has no locks, the file itself is one, and a process id that is gone is
taken over.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lora_detox.errors import SettingsError
from lora_detox.json_text import parse_json
from lora_detox.processes import processes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILE = ".run.lock"
RUN_FILES = (
    "summary.json",
    "metrics.jsonl",
    "checkpoints",
    "adapter",
    "config.yaml",
    "report.html",
    "report.md",
    "compare.html",
    "samples.jsonl",
    "audit.jsonl",
    "value_head.safetensors",
    "plan.json",
    "classifier",
    "tensorboard",
)
"""What the stages write into a run's folder."""
_FOLDERS = ("checkpoints", "adapter", "tensorboard")
_FILES = (
    "config.yaml",
    "metrics.jsonl",
    "samples.jsonl",
    "audit.jsonl",
    "summary.json",
    "report.html",
    "report.md",
    "compare.html",
)
_HELD: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())
_OPEN: set[int] = set()
_UNREADABLE_SECONDS = 1.0
"""How long an empty lock file may be one that is just being written."""
_SETTLE_SECONDS = 0.1
_MOST_NAMES = 1000


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who has a lock.

    Attributes:
        pid: process id, on its host; 0 where the file does not say.
        host: name of its machine.
        since: when it began.
    """

    pid: int
    host: str
    since: str


class _TakenError(Exception):
    def __init__(self, holder: Holder) -> None:
        super().__init__()
        self.holder = holder


@contextmanager
def claimed(folder: Path, *, fresh: bool = False, resume: bool = False) -> Iterator[Path]:
    """Hold the folder of a run for this process alone.

    Args:
        folder: of the run; made if need be, and removed again where it is then left empty.
        fresh: the name is nobody's wish: where the folder is taken or holds a run, take one with
            -2, -3, ... at its end.
        resume: the folder may hold a run; else one that does is refused before it is touched.

    Yields:
        The folder that is held.

    Raises:
        SettingsError: another process has it, it holds a run, or it cannot be written.
    """
    if folder.resolve() in _HELD.get():  # by a caller
        yield folder
        return
    if not fresh:
        check_writable(folder)
    if not fresh and not resume and not (folder / FILE).exists():
        check_free(folder)
    place, descriptor, made = _take(folder, fresh=fresh)
    token = _HELD.set(_HELD.get() | {place.resolve()})
    try:
        yield place
    finally:
        _HELD.reset(token)
        _release(place, descriptor)
        if made and place.is_dir() and not any(place.iterdir()):
            place.rmdir()


@contextmanager
def claimed_together(folder: Path, *, fresh: bool = False, resume: bool = False) -> Iterator[Path]:
    """Hold the folder for all processes of a run; see `claimed`.

    Args:
        folder: that the first process takes; what the others were named does not matter.
        fresh: as in `claimed`.
        resume: as in `claimed`.

    Yields:
        The folder that the first process holds.
    """
    mine = claimed(folder, fresh=fresh, resume=resume) if processes().is_first else None
    with mine or nullcontext(folder) as place:
        yield processes().gather(place)[0]


def check_writable(folder: Path) -> None:
    """A run could write its folder, and nothing stands in the way of its files.

    Args:
        folder: that may be missing.

    Raises:
        SettingsError: with what is in the way.
    """
    there = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
    wanted = "name another hydra.run.dir"
    if not there.is_dir():
        raise SettingsError(f"hydra.run.dir: {there} is no folder; move it away, or {wanted}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SettingsError(f"hydra.run.dir: {there} cannot be written to; {wanted}")
    for names, kind in ((_FOLDERS, "folder"), (_FILES, "file")):
        for path in (folder / name for name in names):
            fits = path.is_dir() if kind == "folder" else path.is_file()
            if os.path.lexists(path) and not fits:
                raise SettingsError(
                    f"hydra.run.dir: {path} is no {kind}; move it away, or {wanted}"
                )


def check_free(folder: Path) -> None:
    """Refuse a folder that holds a run, or files of the names that a run writes.

    Args:
        folder: that may be missing.

    Raises:
        SettingsError: with what it holds.
    """
    held = [name for name in RUN_FILES if (folder / name).exists()]
    if held:
        raise SettingsError(
            f"hydra.run.dir: {os.path.relpath(folder)} already holds another run "
            f"({', '.join(held)}); name another folder, or resume=true to go on with that run"
        )


def _take(folder: Path, *, fresh: bool) -> tuple[Path, int, bool]:
    """The folder that is held, the lock's descriptor, and whether the folder was made for it."""
    for number in range(1, _MOST_NAMES):
        place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        made = not place.exists()
        try:
            descriptor = _acquire(place)
        except _TakenError as error:
            if fresh:
                continue
            raise SettingsError(_message(place, error.holder)) from None
        except OSError as error:
            raise SettingsError(
                f"hydra.run.dir: cannot write into {place} ({error.strerror or error}); name a "
                "folder that this user may write"
            ) from error
        if not (fresh and any((place / name).exists() for name in RUN_FILES)):
            return place, descriptor, made
        _release(place, descriptor)
    raise SettingsError(f"hydra.run.dir: {folder} and its likes are taken; name another folder")


def _message(place: Path, holder: Holder) -> str:
    who = f"process {holder.pid} on {holder.host}" if holder.pid else "another process"
    since = f" since {holder.since}" if holder.since else ""
    return (
        f"hydra.run.dir: {place} is in use by {who}{since}; wait for that run, end it, or name "
        "another folder"
    )


def _acquire(folder: Path) -> int:
    """Take the lock; its descriptor, or -1 where the file itself is the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _locked(descriptor):
                raise _TakenError(_holder(file))
        except _NoLocksError:
            os.close(descriptor)
            return _acquire_by_file(file)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_the_same(descriptor, file):
            break
        os.close(descriptor)  # whoever had it has just removed the file
    os.ftruncate(descriptor, 0)
    os.write(descriptor, _own_words())
    _OPEN.add(descriptor)
    return descriptor


class _NoLocksError(Exception):
    pass


def _locked(descriptor: int) -> bool:
    if fcntl is None:
        raise _NoLocksError
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _NoLocksError from error
    return True


def _acquire_by_file(file: Path) -> int:
    """Without locks: whoever writes the file first has it, until its process is gone."""
    for _ in range(_MOST_NAMES):
        holder = _holder(file)
        if holder.pid and not _is_gone(holder):
            raise _TakenError(holder)
        file.unlink(missing_ok=True)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue
        os.write(descriptor, _own_words())
        os.close(descriptor)
        time.sleep(_SETTLE_SECONDS)  # for another that took the same dead file over
        now = _holder(file)
        if (now.pid, now.host) == (os.getpid(), socket.gethostname()):
            return -1
    raise _TakenError(_holder(file))


def _is_gone(holder: Holder) -> bool:
    if holder.host != socket.gethostname():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _release(folder: Path, descriptor: int) -> None:
    file = folder / FILE
    if descriptor < 0 or _is_the_same(descriptor, file):
        file.unlink(missing_ok=True)
    if descriptor >= 0:
        _OPEN.discard(descriptor)
        os.close(descriptor)


def _is_the_same(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _own_words() -> bytes:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    words = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    return (json.dumps(words) + "\n").encode()


def _holder(file: Path) -> Holder:
    end = time.monotonic() + _UNREADABLE_SECONDS
    while True:
        try:
            words: dict[str, Any] = parse_json(file.read_text(encoding="utf-8"))
            return Holder(pid=int(words["pid"]), host=str(words["host"]), since=str(words["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            if time.monotonic() > end:
                return Holder(pid=0, host="", since="")
            time.sleep(0.05)


def _forget() -> None:
    """A forked child has no lock: its parent's must end with the parent."""
    for descriptor in _OPEN:
        os.close(descriptor)
    _OPEN.clear()
    _HELD.set(frozenset())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
