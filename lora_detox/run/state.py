"""Everything that training changes, as one thing: saved, restored, and put back."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_detox.clock import Clock
from lora_detox.errors import DataError
from lora_detox.fitting import keep_sizes, kept_sizes
from lora_detox.policy.adapter import interpolate_adapter
from lora_detox.policy.policy import LoraPolicy
from lora_detox.run.checkpoint import (
    optimizer_tensors,
    restore_newest,
    save_checkpoint,
    set_optimizer,
)
from lora_detox.run.controls import Controls
from lora_detox.run.manifest import RUN_PREFIX
from lora_detox.run.snapshot import Snapshot, Stateful
from lora_detox.update import WeightAverage, write_parameters

_AVERAGE = "average_of_weights"


class TrainingState:
    """Adapter, value head, optimizer and controllers of a run.

    Args:
        folder: the run's checkpoints/.
        policy: whose adapter and head learn.
        optimizer: over them.
        controls: controllers and running statistics; they go back with a snapshot.
        clock: its times go on when a run is resumed.
        keep: newest checkpoints that stay.
        average: decay of the mean of the adapter's weights, which is then what is evaluated and
            shipped, in (0, 1); None keeps none.
    """

    def __init__(
        self,
        folder: Path,
        policy: LoraPolicy,
        optimizer: torch.optim.Optimizer,
        controls: Controls,
        clock: Clock,
        *,
        keep: int,
        average: float | None = None,
    ) -> None:
        self.folder, self.optimizer, self.controls = folder, optimizer, controls
        self.snapshots: dict[str, Snapshot] = {}
        self._policy, self._clock, self._keep = policy, clock, keep
        self._groups = copy.deepcopy(optimizer.state_dict()["param_groups"])
        self._average = None if average is None else WeightAverage(self._adapter(), average)
        self._start = _copied(self.parameters())  # which checkpoints do not hold
        self.equal_batches = 0  # iterations at the start, each with equal scores
        self.saved_at = time.monotonic()
        self._saved: tuple[int, Path] | None = None

    def parameters(self) -> dict[str, Tensor]:
        """Trainable parameters by name."""
        head = self._policy.value_head
        named = self._adapter()
        heads = {} if head is None else {f"value_head.{n}": p for n, p in head.named_parameters()}
        return named | heads

    def _adapter(self) -> dict[str, Tensor]:
        return {n: p for n, p in self._policy.model.named_parameters() if p.requires_grad}

    def observe(self) -> None:
        """An iteration is done: its weights become part of the mean, where one is kept."""
        if self._average is not None:
            self._average.observe()

    @contextmanager
    def result(self) -> Iterator[None]:
        """The policy is what a run ships while this lasts: the mean of its weights, or itself."""
        with nullcontext() if self._average is None else self._average.applied():
            yield

    def load_result(self) -> None:
        """Training is over: the policy becomes what the run ships."""
        if self._average is not None:
            write_parameters(self._adapter(), self._average.mean)

    def interpolate(self, fractions: Sequence[float]) -> Iterator[float]:
        """Put what the run ships on the line from the start through what it is, point by point.

        Towards the start quality comes back sooner than toxicity does: Rame et al. 2024, "WARP",
        section 3.3 (linear interpolation towards the initialisation). Beyond now the update is
        larger than training made it. Training is over by then.

        Args:
            fractions: of the way, above 0: 0 is the start, 1 is now.

        Yields:
            Each fraction, while the result of the run is there.
        """
        shipped = self._adapter() if self._average is None else self._average.mean
        end = {name: tensor.detach().clone() for name, tensor in shipped.items()}
        for fraction in fractions:
            write_parameters(shipped, interpolate_adapter(self._start, end, fraction))
            yield fraction

    def checkpoint_bytes(self) -> int:
        """About how much a checkpoint will hold: weights, AdamW's moments, mean and snapshots."""
        weights = sum(p.numel() * p.element_size() for p in self.parameters().values())
        mean = 0 if self._average is None else weights
        best = weights if self.controls.budget.bounds else 0
        good = 0 if self.controls.guard is None else 3 * weights + mean
        return 3 * weights + mean + best + good

    @contextmanager
    def at_start(self) -> Iterator[None]:
        """The policy is what training started from while this lasts."""
        now = _copied(self.parameters())
        write_parameters(self.parameters(), self._start)
        try:
            yield
        finally:
            write_parameters(self.parameters(), now)

    def keep_as(self, name: str, iteration: int, *, to_go_on: bool = True) -> None:
        """Take a snapshot of now, in the place of the one of this name.

        Args:
            name: of the snapshot.
            iteration: how many iterations are behind.
            to_go_on: with the optimizer and the weights that training moves; False keeps what a
                run would ship now.
        """
        if not to_go_on:
            with self.result():
                self.snapshots[name] = self._snapshot(iteration)
            return
        self.snapshots[name] = self._whole(iteration)

    def _whole(self, iteration: int, device: str | None = None) -> Snapshot:
        """All of now that training moves, on its own device or another."""
        average = self._average
        return replace(
            self._snapshot(iteration, device),
            optimizer=_copied(optimizer_tensors(self.optimizer), device),
            average={} if average is None else _copied(average.mean, device),
            observed=0 if average is None else average.observed,
        )

    def _snapshot(self, iteration: int, device: str | None = None) -> Snapshot:
        """Parameters and controllers of now."""
        return Snapshot(
            iteration=iteration,
            parameters=_copied(self.parameters(), device),
            optimizer={},
            controls=copy.deepcopy(self.controls.state()),
        )

    def put_back(self, name: str) -> int:
        """Take the parameters, optimizer and controllers of a snapshot; returns its iteration."""
        kept = self.snapshots[name]
        self._put_back(kept)
        self.controls.rewind(copy.deepcopy(kept.controls))
        return kept.iteration

    def hold(self, selector: Stateful) -> Callable[[], None]:
        """Copy all that an iteration changes to the CPU.

        Args:
            selector: whose state is held too.

        Returns:
            A function that takes everything back.
        """
        held, snapshots = self._whole(0, "cpu"), dict(self.snapshots)
        chosen, equal_batches = copy.deepcopy(selector.state()), self.equal_batches

        def take_back() -> None:
            self._put_back(held)
            self.controls.restore(held.controls)
            selector.restore(chosen)
            self.snapshots, self.equal_batches = snapshots, equal_batches

        return take_back

    def _put_back(self, kept: Snapshot) -> None:
        write_parameters(self.parameters(), kept.parameters)
        if self._average is not None:
            self._average.take(kept.average or kept.parameters, kept.observed)
        set_optimizer(self.optimizer, kept.optimizer, self._groups)

    def place(self, done: int) -> Path:
        """The folder of the checkpoint after `done` iterations."""
        return self.folder / f"{RUN_PREFIX}{done:06d}"

    def save(self, done: int, selector: Stateful, files: Mapping[str, bytes] | None = None) -> Path:
        """Write a checkpoint after `done` iterations, if it is not the last one written.

        Args:
            done: iterations behind.
            selector: is saved too, as are all snapshots.
            files: further ones, by name.

        Returns:
            Its folder.
        """
        if self._saved is not None and self._saved[0] == done:
            return self._saved[1]
        seconds = {**self._clock.total, "elapsed": self._clock.elapsed()}
        extra: dict[str, Tensor] = {}
        notes: dict[str, Any] = {}
        for name, kept in self.snapshots.items():
            notes[name] = {
                "iteration": kept.iteration,
                "controls": kept.controls,
                "observed": kept.observed,
            }
            if kept.iteration:  # those of the start are made again by the same seed
                extra |= {f"{name}/parameter/{n}": t for n, t in kept.parameters.items()}
                extra |= {f"{name}/optimizer/{n}": t for n, t in kept.optimizer.items()}
                extra |= {f"{name}/average/{n}": t for n, t in kept.average.items()}
        observed = 0
        if self._average is not None:
            observed = self._average.observed
            extra |= {f"{_AVERAGE}/{n}": t for n, t in self._average.mean.items()}
        parts: dict[str, Any] = {"controls": self.controls.state(), "selector": selector.state()}
        parts |= {"equal_batches": self.equal_batches, "rows_at_once": kept_sizes()}
        written = save_checkpoint(
            self.folder,
            done,
            self.parameters(),
            self.optimizer,
            {**parts, "snapshots": notes, "seconds": seconds, "observed": observed},
            keep=self._keep,
            extra=extra,
            files=files,
        )
        self._saved, self.saved_at = (done, written), time.monotonic()
        return written

    def resume(self, selector: Stateful) -> int:
        """Take the newest whole checkpoint.

        Args:
            selector: takes its part of it.

        Returns:
            Iterations behind; 0 where there is no whole checkpoint.

        Raises:
            DataError: the checkpoint is of another run, or of another version.
        """
        restored = restore_newest(self.folder, self.parameters(), self.optimizer)
        if restored is None:
            return 0
        done, state, extra = restored
        try:
            self._take(state, extra, selector)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"the checkpoint of iteration {done} in {self.folder} does not hold what this "
                f"version needs ({type(error).__name__}: {error}); resume with the version that "
                "wrote it, or name another hydra.run.dir"
            ) from error
        self._saved = (done, self.place(done))
        return done

    def _take(self, state: dict[str, Any], extra: Mapping[str, Tensor], selector: Stateful) -> None:
        """Give everything but parameters and optimizer what a checkpoint holds."""
        seconds = state.pop("seconds")
        self.equal_batches = state.get("equal_batches", 0)
        keep_sizes(state.get("rows_at_once", {}))
        if self._average is not None:
            self._average.take(_under(extra, f"{_AVERAGE}/"), state["observed"])
        self.controls.restore(state["controls"])
        selector.restore(state["selector"])
        for name, note in state["snapshots"].items():
            self.snapshots[name] = Snapshot(
                iteration=note["iteration"],
                parameters=_under(extra, f"{name}/parameter/") or self._start,
                optimizer=_under(extra, f"{name}/optimizer/"),
                controls=note["controls"],
                average=_under(extra, f"{name}/average/"),
                observed=note["observed"],
            )
        self._clock.begin -= seconds.pop("elapsed")
        self._clock.total.update(seconds)


def _copied(tensors: Mapping[str, Tensor], device: str | None = None) -> dict[str, Tensor]:
    return {n: t.detach().to(device or t.device, copy=True) for n, t in tensors.items()}


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
