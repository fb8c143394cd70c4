"""Which checkpoints of a run are whole: a manifest with a digest of each file.

A checkpoint without its manifest, or with a file that is not as the manifest has it, was torn by a
killed process or damaged later. It is passed over, and why is said in words.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lora_detox.json_text import parse_json
from lora_detox.report.console import print_line

RUN_PREFIX = "iteration_"
"""What stage=detox calls a checkpoint, before its number of iterations."""
TRAINER_PREFIX = "checkpoint-"
"""What Transformers' trainers call a checkpoint, before its number of optimizer steps."""
MANIFEST = "manifest.json"
TENSORS, STATE, TRAINED = "tensors.safetensors", "state.json", "trained.safetensors"
_NEEDED = {RUN_PREFIX: (TENSORS, STATE), TRAINER_PREFIX: (TRAINED,)}


class Newest(NamedTuple):
    """What there is to go on from.

    Attributes:
        checkpoint: the newest whole one; None where there is none.
        passed_over: "NAME: REASON" of each newer one.
    """

    checkpoint: Path | None
    passed_over: list[str]


def seal(checkpoint: Path) -> None:
    """Write the manifest, which makes a folder whole, and put every file on the disk.

    Args:
        checkpoint: a folder with all of its files.
    """
    files = sorted(one for one in checkpoint.rglob("*") if one.is_file() and one.name != MANIFEST)
    for file in files:
        flush(file)
    manifest = {one.relative_to(checkpoint).as_posix(): _digest(one) for one in files}
    part = checkpoint / f".{MANIFEST}"
    part.write_text(json.dumps(manifest), encoding="utf-8")
    flush(part)
    part.replace(checkpoint / MANIFEST)


def fault_of(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be gone on from, in words; None where it is whole."""
    try:
        manifest = parse_json((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"it has no {MANIFEST}, so it was not written to its end"
    except OSError as error:
        return f"its {MANIFEST} cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        return f"its {MANIFEST} is not JSON"
    prefix = next((one for one in _NEEDED if checkpoint.name.startswith(one)), RUN_PREFIX)
    if not isinstance(manifest, dict) or not {*_NEEDED[prefix]} <= manifest.keys():
        return f"its {MANIFEST} does not name {' and '.join(_NEEDED[prefix])}"
    faults = (_fault_of_file(checkpoint, name, digest) for name, digest in manifest.items())
    return next((fault for fault in faults if fault is not None), None)


def _fault_of_file(checkpoint: Path, name: str, digest: object) -> str | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return f"its {MANIFEST} names {name!r}, which is outside of it"
    try:
        actual = _digest(checkpoint / name)
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return None if actual == digest else f"{name} is not as it was written (its SHA-256 differs)"


def checkpoints(folder: Path, prefix: str) -> list[Path]:
    """Checkpoints of one kind, whole or not, newest first; other names are passed over.

    Args:
        folder: the run's checkpoints/.
        prefix: RUN_PREFIX or TRAINER_PREFIX.

    Returns:
        Their folders.
    """
    numbered = [one for one in folder.glob(f"{prefix}*") if one.name[len(prefix) :].isdecimal()]
    return sorted(numbered, key=lambda one: number_of(one, prefix), reverse=True)


def number_of(checkpoint: Path, prefix: str) -> int:
    """Iterations, or optimizer steps, behind a checkpoint."""
    return int(checkpoint.name.removeprefix(prefix))


def newest_whole(folder: Path, prefix: str) -> Newest:
    """The newest whole checkpoint of one kind, and what is newer but not whole.

    Args:
        folder: the run's checkpoints/.
        prefix: RUN_PREFIX or TRAINER_PREFIX.

    Returns:
        The checkpoint, and the reasons against newer ones.
    """
    passed_over: list[str] = []
    for checkpoint in checkpoints(folder, prefix):
        fault = fault_of(checkpoint)
        if fault is None:
            return Newest(checkpoint, passed_over)
        passed_over.append(f"{checkpoint.name}: {fault}")
    return Newest(None, passed_over)


def newest_trainer_checkpoint(folder: Path) -> tuple[int, Path] | None:
    """The newest whole checkpoint of a Transformers trainer; torn ones are named and removed.

    A trainer writes into the folder of its name file by file, so that an old file of a torn one
    would stay among the new.

    Args:
        folder: the run's checkpoints/.

    Returns:
        Optimizer steps behind and the checkpoint's folder; None where there is none.
    """
    for checkpoint in checkpoints(folder, TRAINER_PREFIX):
        if (fault := fault_of(checkpoint)) is not None:
            print_line(f"note     {checkpoint} is removed: {fault}")
            remove(checkpoint)
    newest_first = checkpoints(folder, TRAINER_PREFIX)
    if not newest_first:
        return None
    return number_of(newest_first[0], TRAINER_PREFIX), newest_first[0]


def remove_old(whole: Iterable[Path], keep: int) -> None:
    """Remove all checkpoints but the first `keep` of those given."""
    for old in list(whole)[keep:]:
        remove(old)


def remove(path: Path) -> None:
    """Take away a checkpoint, or a file that stands where one should be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Make sure that a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
