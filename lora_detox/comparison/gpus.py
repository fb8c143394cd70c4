"""A GPU of its own for each process in which a launcher runs jobs.

The processes of a sweep on one machine take numbered places, each held by a lock that ends with its
process, and place n works on GPU n (modulo the number of GPUs). A process that runs several jobs,
as joblib's do, keeps its GPU: one that has begun to use CUDA cannot change to another.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

VARIABLE = "CUDA_VISIBLE_DEVICES"
_MOST_PLACES = 4096
_SECONDS = 30
"""How long nvidia-smi may take."""
_places: dict[Path, int] = {}
"""Folder of a sweep -> the place that this process has in it."""


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Returns:
        Those of CUDA_VISIBLE_DEVICES where it is set, else what nvidia-smi lists; none where there
        is no nvidia-smi.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        listed = [one.strip() for one in named.split(",") if one.strip()]
        return [] if listed[:1] == ["-1"] else listed
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split() if done.returncode == 0 else []


def take_gpu(sweep: Path, gpus: Sequence[str], number: int) -> None:
    """Let this process see one GPU alone; nothing happens without GPUs.

    Args:
        sweep: folder of the sweep.
        gpus: that its processes share.
        number: of the job, by which a GPU is taken where files cannot be locked.
    """
    if not gpus:
        return
    if sweep not in _places:
        _places[sweep] = _free_place(sweep, number)
    os.environ[VARIABLE] = gpus[_places[sweep] % len(gpus)]


def _free_place(sweep: Path, number: int) -> int:
    """The first place that no living process has."""
    if fcntl is None:
        return number
    folder = sweep / ".jobs" / "places"
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(_MOST_PLACES):
        descriptor = os.open(folder / str(place), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        except OSError:  # a file system without locks
            os.close(descriptor)
            return number
        return place  # the descriptor stays open for as long as the process lives
    return number
