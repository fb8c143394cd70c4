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
TRAINER_PREFIX = "checkpoint-"
"""What Transformers' trainers call a checkpoint, before its number of optimizer steps."""
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


def save_checkpoint(
    folder: Path,
    iteration: int,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    *,
    keep: int,
    extra: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint and remove the oldest beyond `keep`.

    Args:
        folder: the run's checkpoints/.
        iteration: how many iterations are behind.
        parameters: trainable parameters by name.
        optimizer: its tensors and groups are saved.
        state: further plain numbers (controllers, running moments).
        keep: how many checkpoints stay, >= 1.
        extra: further tensors by name, as they are.

    Returns:
        The folder of the checkpoint.
    """
    final = folder / _NAME.format(iteration)
    _remove_torn(folder)
    part = folder / f".part-{final.name}-{os.getpid()}"
    part.mkdir(parents=True)
    tensors = {f"parameter/{name}": p.detach().contiguous() for name, p in parameters.items()}
    tensors.update({f"optimizer/{n}": t for n, t in optimizer_tensors(optimizer).items()})
    tensors.update({f"extra/{n}": t.contiguous() for n, t in (extra or {}).items()})
    save_file(tensors, part / _TENSORS)
    groups = optimizer.state_dict()["param_groups"]
    content = {"iteration": iteration, "groups": groups, "state": dict(state)}
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
) -> tuple[int, dict[str, Any], dict[str, Tensor]] | None:
    """Take the newest whole checkpoint of a run.

    Args:
        folder: the run's checkpoints/.
        parameters: trainable parameters by name; overwritten in place.
        optimizer: over those parameters; its state is replaced.

    Returns:
        Iterations behind, the plain numbers and the extra tensors that were saved; None if there
        is no whole checkpoint.

    Raises:
        DataError: the checkpoint's parameters are not those of this run.
    """
    _remove_torn(folder)  # here too: a run that was killed past its last checkpoint saves no more
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
    moments = {n.removeprefix("optimizer/"): t for n, t in tensors.items() if n.startswith("opt")}
    set_optimizer(optimizer, moments, content["groups"])
    extra = {n.removeprefix("extra/"): t for n, t in tensors.items() if n.startswith("extra/")}
    return int(content["iteration"]), dict(content["state"]), extra


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimizer as INDEX/NAME; none before its first step."""
    return {
        f"{index}/{key}": value
        for index, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
    }


def set_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Give an optimizer the tensors of `optimizer_tensors` and its groups' numbers."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split("/", 1)
        moments.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


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


def _remove_torn(folder: Path) -> None:
    """What a process that was killed while saving left behind."""
    for torn in folder.glob(".part-*"):
        shutil.rmtree(torn)


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


def newest_trainer_checkpoint(folder: Path) -> tuple[int, Path] | None:
    """The newest whole checkpoint of a Transformers trainer; torn ones are removed.

    Args:
        folder: the run's checkpoints/.

    Returns:
        Optimizer steps behind and the checkpoint's folder; None where there is none.
    """
    for torn in [one for one in trainer_checkpoints(folder) if not is_whole(one)]:
        shutil.rmtree(torn)
    newest_first = trainer_checkpoints(folder)
    return (_step(newest_first[0]), newest_first[0]) if newest_first else None


def trainer_checkpoints(folder: Path) -> list[Path]:
    """Folders of a Transformers trainer's checkpoints, newest first, torn ones included."""
    folders = [one for one in folder.glob(f"{TRAINER_PREFIX}*") if one.is_dir()]
    return sorted(folders, key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    digits = checkpoint.name.removeprefix(TRAINER_PREFIX)
    return int(digits) if digits.isdigit() else -1


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
