"""Everything that training changes, as one thing: saved, restored, and put back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lora_detox.checkpoint import restore_newest, save_checkpoint
from lora_detox.policy.policy import LoraPolicy
from lora_detox.stages.clock import Clock


@runtime_checkable
class Stateful(Protocol):
    """A controller or running statistic whose plain numbers are part of a checkpoint."""

    def state(self) -> dict[str, Any]:
        """For a checkpoint; what JSON can hold."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""


class TrainingState:
    """Adapter, value head, optimizer and controllers of a run.

    Args:
        folder: the run's checkpoints/.
        policy: whose adapter and head learn.
        optimizer: over them.
        parts: controllers and running statistics by name.
        clock: its times go on when a run is resumed.
        keep: newest checkpoints that stay.
    """

    def __init__(
        self,
        folder: Path,
        policy: LoraPolicy,
        optimizer: torch.optim.Optimizer,
        parts: Mapping[str, Stateful],
        clock: Clock,
        *,
        keep: int,
    ) -> None:
        self.folder, self.optimizer, self.parts = folder, optimizer, dict(parts)
        self._policy, self._clock, self._keep = policy, clock, keep

    def parameters(self) -> dict[str, Tensor]:
        """Trainable parameters by name."""
        model, head = self._policy.model, self._policy.value_head
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        heads = {} if head is None else {f"value_head.{n}": p for n, p in head.named_parameters()}
        return named | heads

    def save(self, done: int) -> None:
        """Write a checkpoint after `done` iterations."""
        seconds = {**self._clock.total, "elapsed": self._clock.elapsed()}
        save_checkpoint(
            self.folder,
            done,
            self.parameters(),
            self.optimizer,
            {**{name: part.state() for name, part in self.parts.items()}, "seconds": seconds},
            keep=self._keep,
        )

    def resume(self) -> int:
        """Take the newest whole checkpoint; returns the iterations behind, 0 without one."""
        found = restore_newest(self.folder, self.parameters(), self.optimizer)
        if found is None:
            return 0
        done, state = found
        seconds = state.pop("seconds")
        for name, part in self.parts.items():
            part.restore(state[name])
        self._clock.begin -= seconds.pop("elapsed")
        self._clock.total.update(seconds)
        return done
