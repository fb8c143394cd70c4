"""Several processes that run one job: who each is, its share of the rows, what all of them know.

`torchrun` and `accelerate launch` start them, and each has a whole policy. Every process holds all
records of an iteration (responses, scores, advantages), so that whitening, KL control, budget,
collapse guard and checkpoint selector are what they are with one process. What takes time is cut by
rows (`share`) and put together again (`fill`); an update adds gradients up (`add_up`). The first
process alone writes files and speaks.

Wherever processes meet they first say how they are. So an error or a signal of one ends all of them
at their next meeting, and nobody waits for a process that is gone.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

from lora_detox.errors import DetoxError, ProcessError, SettingsError
from lora_detox.signals import (
    Interrupted,
    asked_to_end,
    deferring,
    end_if_asked,
    stay_silent,
)

if TYPE_CHECKING:
    from torch import Tensor

WAIT = timedelta(hours=2)
"""How long a process waits for the others: the first may write a report, or ask a slow scorer."""
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Environment of torchrun, and of the MPI launchers that accelerate knows, in its order."""
_FSDP, _DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"
_REFUSED = {
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "FSDP_OFFLOAD_PARAMS": "parameters that are moved to the CPU (fsdp_offload_params)",
}
"""What accelerate's launcher may ask for and nobody does here: variable, name."""


class Rows(Protocol):
    """A range, list or tensor of rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice, /) -> Self: ...


class Lender(Protocol):
    """What other processes need of one that has nothing to do."""

    def wait(self) -> None:
        """Help the others until all of them wait."""


R = TypeVar("R", bound=Rows)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Word:
    """What a process says where all meet.

    Attributes:
        value: what the others get.
        failure: the message of its error; None where it has none.
        stopped: the signal that it has been sent; None where there was none.
    """

    value: Any = None
    failure: str | None = None
    stopped: str | None = None


class Processes:
    """The processes of a run, as one of them sees them.

    Args:
        rank: number of this one, from 0.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._groups: dict[str, Any] = {}
        self._lender: Lender | None = None
        self._parted = self._lost = False

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def share(self, rows: R) -> R:
        """Every `size`-th row: sorted by length, all processes get about the same work.

        Args:
            rows: of all processes, in the same order in each.

        Returns:
            Those of this one, none where there are fewer rows than processes.
        """
        return rows if self.size == 1 else rows[self.rank :: self.size]

    def gather(self, own: T) -> list[T]:
        """What each process has, in the order of their ranks.

        Args:
            own: what this one has; tensors on the CPU.

        Returns:
            One entry per process.

        Raises:
            ProcessError: another process has failed, or is gone.
            Interrupted: one of them has been sent a signal.
        """
        if self.size == 1:
            return [own]
        words = self._exchange(_Word(value=own, stopped=asked_to_end()))
        failed = [(rank, word.failure) for rank, word in enumerate(words) if word.failure]
        stopped = [word.stopped for word in words if word.stopped]
        self._parted = bool(failed or stopped)
        if failed:
            rank, failure = failed[0]
            raise ProcessError(f"process {rank} of {self.size}: {failure}")
        if stopped:
            raise Interrupted(stopped[0])
        end_if_asked()
        return [word.value for word in words]

    def first(self, work: Callable[[], T]) -> T:
        """Have the first process do some work; all get what it returned or raised.

        Args:
            work: what is done once, such as a call of a user's function.

        Returns:
            Its result.

        Raises:
            DetoxError: the work raised it, in every process.
        """
        if self.size == 1:
            return work()
        outcome: T | DetoxError | None = None
        if self.is_first:
            try:
                outcome = work()
            except DetoxError as error:
                outcome = error
        outcome = self.gather(outcome)[0]
        if isinstance(outcome, DetoxError):
            raise outcome
        return cast("T", outcome)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process is through this context before the others enter it."""
        if not self.is_first:
            self.gather(None)
        yield
        if self.is_first:
            self.gather(None)

    def fill(self, rows: "Tensor", *tensors: "Tensor") -> None:
        """Give all processes the rows that each of them has made.

        Args:
            rows: indices of those of this one.
            *tensors: with rows as their first dimension, each [B, ...]; written in place.
        """
        if self.size == 1:
            return
        made = [tensor[rows.to(tensor.device)].cpu() for tensor in tensors]
        for places, others in self.gather((rows.cpu(), made)):
            for tensor, values in zip(tensors, others, strict=True):
                tensor[places.to(tensor.device)] = values.to(tensor.device)

    def add_up(self, tensor: "Tensor") -> None:
        """Replace a tensor by its sum over the processes, which is the same in all to the bit."""
        if self.size == 1:
            return
        self.gather(None)  # so that nobody waits here for a process that has failed
        from torch import distributed  # noqa: PLC0415 (one process runs without it)

        with deferring(), _named_loss(self):
            distributed.all_reduce(tensor, group=self._group(tensor.device.type))

    def lend(self, lender: Lender) -> None:
        """From now on help the others before each meeting, until they have arrived there too.

        Args:
            lender: in the place of the one before; every process has one.
        """
        self.gather(None)
        self._lender = lender

    def numbers(self, own: int) -> list[int]:
        """A number of each process, in the order of their ranks; says nothing of errors."""
        import torch  # noqa: PLC0415
        from torch import distributed  # noqa: PLC0415

        said = list(torch.zeros(self.size, dtype=torch.int64).split(1))
        with deferring(), _named_loss(self):
            distributed.all_gather(said, torch.tensor([own]), group=self._group("cpu"))
        return [int(one) for one in said]

    def collect(self, share: "Tensor", into: "Tensor") -> None:
        """Put the shares of all processes together.

        Args:
            share: of this one [N].
            into: where they go, in the order of their ranks [size * N].
        """
        from torch import distributed  # noqa: PLC0415

        with deferring(), _named_loss(self):
            places = list(into.chunk(self.size))
            distributed.all_gather(places, share, group=self._group(share.device.type))

    def end(self, error: BaseException | None = None) -> bool:
        """Meet for the last time.

        Args:
            error: that ends this process; None where its work is done.

        Returns:
            Whether this process, which is not the first, has to speak: a fault of the program's,
            whose traceback only it has, or nobody is left to tell.

        Raises:
            ProcessError: another process has failed while this one had no error.
        """
        if error is None:
            self.gather(None)
            self._parted = True
            return False
        if self._parted:  # it is the error of another
            return False
        stopped = error.name if isinstance(error, Interrupted) else None
        named = "" if isinstance(error, DetoxError) else f"{type(error).__name__}: "
        failure = None if stopped else f"{named}{error}"
        try:
            words = self._exchange(_Word(failure=failure, stopped=stopped))
        except ProcessError:
            return True
        self._parted = True
        return bool(named and failure) and words[0].failure is None

    def leave(self) -> None:
        """Take the connections down, where all have met for the last time."""
        from accelerate import PartialState  # noqa: PLC0415
        from torch import distributed  # noqa: PLC0415

        if self._parted and not self._lost:
            distributed.destroy_process_group()
        PartialState._reset_state()

    def _exchange(self, word: _Word) -> list[_Word]:
        from torch import distributed  # noqa: PLC0415

        if self._parted:
            raise ProcessError(f"the {self.size} processes of this run have parted")
        if self._lender is not None:
            self._lender.wait()
        words: list[Any] = [None] * self.size
        with deferring(), _named_loss(self):  # a signal must not end half of a meeting
            distributed.all_gather_object(words, word, group=self._group("cpu"))
        return words

    def _group(self, kind: str) -> Any:
        """Connections for tensors of a kind of device: gloo between CPUs, NCCL between GPUs."""
        from torch import distributed  # noqa: PLC0415

        if kind not in self._groups:
            backend = "nccl" if kind == "cuda" else "gloo"
            kept = distributed.get_backend() == backend
            new = None if kept else distributed.new_group(backend=backend, timeout=WAIT)
            self._groups[kind] = new
        return self._groups[kind]


_current = [Processes()]


def processes() -> Processes:
    """Those of this run; a single one outside of `joined`."""
    return _current[-1]


@contextmanager
def joined(*, command_line: bool = False) -> Iterator[Processes]:
    """Within this context the processes that a launcher has started are one run.

    An error or a signal of one of them ends all; the first speaks of it.

    Args:
        command_line: the process ends with its job, so that all but the first stay silent to its
            end.

    Yields:
        The processes; a single one where no launcher has started more.

    Raises:
        SettingsError: the launcher was asked for what cannot be done here.
        ProcessError: another process has failed.
    """
    rank, size = _number(_RANKS, 0), _number(_SIZES, 1)
    if processes().size > 1 or size == 1:
        _check_launcher(size)
        yield processes()
        return
    streams, speaks = (sys.stdout, sys.stderr), False
    if rank > 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    stay_silent(rank > 0)
    try:
        _check_launcher(size)
        us = _met(rank, size)
        _current.append(us)
        try:
            yield us
            us.end()
        except BaseException as error:
            speaks = us.end(error)
            raise
        finally:
            _current.remove(us)
            if command_line:
                us.leave()
    finally:
        stay_silent(False)
        if speaks or not command_line or rank == 0:
            sys.stdout, sys.stderr = streams


def _met(rank: int, size: int) -> Processes:
    """The processes, once all of them are there; a second run of theirs has their connections."""
    from accelerate import PartialState  # noqa: PLC0415 (imports PyTorch)

    with warnings.catch_warnings():  # where nobody has set the threads it divides the cores
        warnings.simplefilter("ignore")
        PartialState(cpu=True, timeout=WAIT)  # objects and small tensors go from CPU to CPU
    return Processes(rank, size)


def local_rank() -> int:
    """Number of this process on its machine, from 0."""
    return _number(("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK"), 0)


def launched_sharded() -> bool:
    """Whether `accelerate launch` was asked for a model that is divided over its processes.

    FSDP does so but with NO_SHARD, DeepSpeed with ZeRO's stage 3. The other stages divide gradients
    and the optimizer's state, which here are those of an adapter: nothing is to be divided.
    """
    if _on(_FSDP):
        return os.environ.get("FSDP_SHARDING_STRATEGY", "").upper() not in ("NO_SHARD", "3")
    return _on(_DEEPSPEED) and os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"


def _on(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("true", "1")


def _number(names: tuple[str, ...], default: int) -> int:
    """The first of these variables of the environment that is set."""
    values = (os.environ.get(name, "") for name in names)
    return next((int(value) for value in values if value.isdecimal()), default)


def _check_launcher(size: int) -> None:
    """What `accelerate launch` was asked for is what runs here.

    Args:
        size: how many processes it has started.

    Raises:
        SettingsError: what nobody does here, or several processes of which it has started one.
    """
    for name, kind in _REFUSED.items():
        if _on(name):
            raise SettingsError(
                f"accelerate launch asks for {kind}; want distributed_type MULTI_GPU (each process "
                "holds the whole backbone), or FSDP or DeepSpeed with zero_stage 3 (each holds a "
                "share of it; docs/many_processes.md)"
            )
    launched = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    if launched and size == 1 and not {*_SIZES} & os.environ.keys():
        raise SettingsError(
            "accelerate launch was asked for several processes and has started one, as it does on "
            "CPUs without an MPI host file; want torchrun --nproc_per_node N -m lora_detox ..., or "
            "accelerate launch --multi_gpu --num_processes N -m lora_detox ..., which starts N on "
            "CPUs too"
        )


@contextmanager
def _named_loss(us: Processes) -> Iterator[None]:
    """A connection that breaks is an error of the run, not of PyTorch."""
    try:
        yield
    except RuntimeError as error:
        us._parted = us._lost = True
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ProcessError(
            f"another of the {us.size} processes is gone ({reason}); resume=true goes on from the "
            "newest checkpoint, with any number of processes"
        ) from error
