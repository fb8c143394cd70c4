"""Atomic save and exact restore of everything that training changes.

A checkpoint is a folder that appears under its name only when it is whole; its manifest holds a
digest of each file, so that a torn one is noticed and passed over. There is no state of random
generators to save: every draw of a run is derived from the seed and the iteration.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_detox.disk import writing
from lora_detox.errors import DataError
from lora_detox.json_text import parse_json
from lora_detox.run.manifest import (
    RUN_PREFIX,
    STATE,
    TENSORS,
    checkpoints,
    flush,
    newest_whole,
    number_of,
    remove,
    remove_old,
    seal,
)


def save_checkpoint(
    folder: Path,
    iteration: int,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    *,
    keep: int,
    extra: Mapping[str, Tensor] | None = None,
    files: Mapping[str, bytes] | None = None,
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
        files: further files by name, such as what the run was begun with.

    Returns:
        The folder of the checkpoint.

    Raises:
        DiskError: it could not be written; earlier ones are as they were.
    """
    final = folder / f"{RUN_PREFIX}{iteration:06d}"
    part = folder / f".part-{final.name}-{os.getpid()}"
    tensors = {f"parameter/{name}": p.detach().contiguous() for name, p in parameters.items()}
    tensors.update({f"optimizer/{n}": t for n, t in optimizer_tensors(optimizer).items()})
    tensors.update({f"extra/{n}": t.contiguous() for n, t in (extra or {}).items()})
    groups = optimizer.state_dict()["param_groups"]
    content = {"iteration": iteration, "groups": groups, "state": dict(state)}
    plain_files = {STATE: json.dumps(content).encode(), **(files or {})}
    try:
        with writing(final):
            folder.mkdir(exist_ok=True)  # without its parents: a run's folder that is gone is told
            _remove_torn(folder)
            part.mkdir()
            save_file(tensors, part / TENSORS)
            for name, data in plain_files.items():
                (part / name).write_bytes(data)
            seal(part)
            remove(final)
            part.replace(final)
            flush(folder)
            # One that is newer is torn: the run went back behind it, and it takes nobody's place.
            every = checkpoints(folder, RUN_PREFIX)
            remove_old([one for one in every if number_of(one, RUN_PREFIX) <= iteration], keep)
    finally:
        shutil.rmtree(part, ignore_errors=True)
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
    whole = newest_whole(folder, RUN_PREFIX).checkpoint
    if whole is None:
        return None
    try:
        return _restore(whole, parameters, optimizer)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(
            f"{whole} does not hold what this version writes ({type(error).__name__}: {error}); "
            "remove it to go on from the one before, or name another hydra.run.dir"
        ) from error


def _restore(
    whole: Path, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Any], dict[str, Tensor]]:
    tensors = load_file(whole / TENSORS)
    content = parse_json((whole / STATE).read_text(encoding="utf-8"))
    saved = {n.removeprefix("parameter/"): t for n, t in tensors.items() if n.startswith("param")}
    other = sorted(
        name
        for name in saved.keys() | parameters.keys()
        if name not in saved
        or name not in parameters
        or saved[name].shape != parameters[name].shape
    )
    if other:
        raise DataError(
            f"{whole} was written with another adapter (such as {', '.join(other[:3])}); resume "
            "with the settings of its config.yaml, or name another hydra.run.dir"
        )
    moments = {n.removeprefix("optimizer/"): t for n, t in tensors.items() if n.startswith("opt")}
    extra = {n.removeprefix("extra/"): t for n, t in tensors.items() if n.startswith("extra/")}
    iteration, state = int(content["iteration"]), dict(content["state"])
    set_optimizer(optimizer, moments, content["groups"])
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
    return iteration, state, extra


def _remove_torn(folder: Path) -> None:
    """What a process that was killed while saving left behind."""
    for torn in folder.glob(".part-iteration_*"):
        remove(torn)


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
