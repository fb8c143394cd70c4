"""Atomic save and exact restore of everything that training changes.

A checkpoint is a folder that appears under its name only when it is whole; its manifest holds a
digest of each file, so that a torn one is noticed and passed over. There is no state of random
generators to save: every draw of a run is derived from the seed and the iteration.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_detox.errors import DataError

_NAME = "iteration_{:06d}"
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


def save_checkpoint(
    folder: Path,
    iteration: int,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    *,
    keep: int,
) -> Path:
    """Write a checkpoint and remove the oldest beyond `keep`.

    Args:
        folder: the run's checkpoints/.
        iteration: how many iterations are behind.
        parameters: trainable parameters by name.
        optimizer: its tensors and groups are saved.
        state: further plain numbers (controllers, running moments).
        keep: how many checkpoints stay, >= 1.

    Returns:
        The folder of the checkpoint.
    """
    final = folder / _NAME.format(iteration)
    for torn in folder.glob(".part-*"):  # what a killed process left
        shutil.rmtree(torn)
    part = folder / f".part-{final.name}-{os.getpid()}"
    part.mkdir(parents=True)
    tensors = {f"parameter/{name}": p.detach().contiguous() for name, p in parameters.items()}
    saved = optimizer.state_dict()
    for index, entries in saved["state"].items():
        tensors.update({f"optimizer/{index}/{key}": value for key, value in entries.items()})
    save_file(tensors, part / _TENSORS)
    content = {"iteration": iteration, "groups": saved["param_groups"], "state": dict(state)}
    (part / _STATE).write_text(json.dumps(content), encoding="utf-8")
    seal(part)
    shutil.rmtree(final, ignore_errors=True)
    part.replace(final)
    _flush(folder)
    for old in _checkpoints(folder)[keep:]:
        shutil.rmtree(old)
    return final


def restore_newest(
    folder: Path, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Any]] | None:
    """Take the newest whole checkpoint of a run.

    Args:
        folder: the run's checkpoints/.
        parameters: trainable parameters by name; overwritten in place.
        optimizer: over those parameters; its state is replaced.

    Returns:
        Iterations behind and the plain numbers that were saved; None if there is no whole
        checkpoint.

    Raises:
        DataError: the checkpoint's parameters are not those of this run.
    """
    whole = next((c for c in _checkpoints(folder) if is_whole(c)), None)
    if whole is None:
        return None
    tensors = load_file(whole / _TENSORS)
    content = json.loads((whole / _STATE).read_text(encoding="utf-8"))
    saved = {n.removeprefix("parameter/"): t for n, t in tensors.items() if n.startswith("param")}
    if saved.keys() != parameters.keys():
        other = sorted(saved.keys() ^ parameters.keys())[:3]
        raise DataError(
            f"{whole} was written with another adapter (such as {', '.join(other)}); resume with "
            "the settings of its config.yaml, or name another hydra.run.dir"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            moments.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": content["groups"]})
    return int(content["iteration"]), dict(content["state"])


def seal(checkpoint: Path) -> None:
    """Write the manifest, which makes a folder whole, and put every file on the disk.

    Args:
        checkpoint: a folder with all of its files.
    """
    files = sorted(one for one in checkpoint.rglob("*") if one.is_file() and one.name != _MANIFEST)
    for file in files:
        _flush(file)
    manifest = {one.relative_to(checkpoint).as_posix(): _digest(one) for one in files}
    part = checkpoint / f".{_MANIFEST}"
    part.write_text(json.dumps(manifest), encoding="utf-8")
    _flush(part)
    part.replace(checkpoint / _MANIFEST)


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("iteration_*"), reverse=True)


def is_whole(checkpoint: Path) -> bool:
    """Whether a folder has its manifest, and every file of it is as it was written."""
    try:
        manifest = json.loads((checkpoint / _MANIFEST).read_text(encoding="utf-8"))
        return all(_digest(checkpoint / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Make sure that a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
