"""Checkpoints of stage=sft and stage=reward_model: those of Transformers' trainers, made exact.

A trainer writes a checkpoint file by file under its final name. What learns is added to it as one
safetensors file, then a manifest with a digest of each file, so that a folder that a killed process
left torn is noticed and passed over.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback

from lora_detox.run.manifest import (
    TRAINED,
    TRAINER_PREFIX,
    checkpoints,
    fault_of,
    remove_old,
    seal,
)

_MOST_PER_RUN = 20


def steps_between(every: int, steps: int) -> int:
    """Optimizer steps between checkpoints: `every`, or more so that a run writes at most 20.

    Args:
        every: as `checkpoint.every` has it, >= 1.
        steps: of the whole training.

    Returns:
        A number of steps, >= 1.
    """
    return max(every, math.ceil(steps / _MOST_PER_RUN))


def training_steps(examples: int, *, epochs: float, batch: int, max_steps: int | None) -> int:
    """Optimizer steps of a training.

    Args:
        examples: in the training set.
        epochs: passes over it.
        batch: examples per optimizer step.
        max_steps: takes the place of `epochs`.

    Returns:
        How many there will be.
    """
    return max_steps or max(1, math.ceil(epochs * math.ceil(examples / batch)))


class ExactCheckpoints(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Completes each checkpoint that a trainer writes, and restores what learns from it.

    Args:
        model: whose trainable parameters are kept.
        folder: the run's checkpoints/.
        keep: how many checkpoints stay, >= 1.
        resumed: the checkpoint that the training goes on from, if any.
        files: makes what each checkpoint holds of the run, by name.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: Path,
        keep: int,
        resumed: Path | None,
        files: Callable[[], Mapping[str, bytes]],
    ) -> None:
        self._model, self._folder, self._keep, self._resumed = model, folder, keep, resumed
        self._files = files

    def on_train_begin(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Put the saved parameters in place, over whatever the trainer has loaded."""
        if self._resumed is None:
            return
        saved, trained = load_file(self._resumed / TRAINED), self._trained()
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(saved[name])

    def on_save(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Add the parameters, seal the folder, remove the oldest."""
        checkpoint = self._folder / f"{TRAINER_PREFIX}{state.global_step}"
        tensors = {name: p.detach().contiguous() for name, p in self._trained().items()}
        save_file(tensors, checkpoint / TRAINED)
        for name, data in self._files().items():
            (checkpoint / name).write_bytes(data)
        seal(checkpoint)
        every = checkpoints(self._folder, TRAINER_PREFIX)
        remove_old([one for one in every if fault_of(one) is None], self._keep)

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self._model.named_parameters() if p.requires_grad}
