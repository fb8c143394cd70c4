"""How many rows fit into memory at once: work that runs out of it goes on with half of them.

`fitted` cuts rows, `attempt` is its single step, for work that has to begin anew (an update, whose
gradients are half made). Only errors of memory are caught. The size that worked is kept while
`remembering` lasts, a run; anywhere else for one call.
"""

import errno
import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self, TypeVar

from lora_detox.errors import OutOfMemoryError
from lora_detox.progress import say

_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "HIP out of memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)
"""Parts of a RuntimeError's message by which PyTorch says that memory ran out."""


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Work that is done on some rows at a time.

    Attributes:
        name: what is done, for messages; kept sizes go by it.
        key: setting of the most rows at once.
        shorter: setting that makes a single row smaller, as a message names it.
    """

    name: str
    key: str
    shorter: str


GENERATION = Batches(
    name="generation", key="generation.batch_size", shorter="generation.response_tokens"
)
PASSES = Batches(
    name="a pass of the policy",
    key="algorithm.microbatch_size",
    shorter="generation.response_tokens` or set `policy.gradient_checkpointing=true",
)
"""Reference and update, which see the same microbatches, and the KL of an evaluation."""


class Rows(Protocol):
    """A range, list or tensor of rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice, /) -> Self: ...


R = TypeVar("R", bound=Rows)
T = TypeVar("T")
_remembered: list[dict[str, int]] = []


@contextmanager
def remembering() -> Iterator[None]:
    """Within this context sizes that worked are kept; it begins without any."""
    sizes: dict[str, int] = {}
    _remembered.append(sizes)
    try:
        yield
    finally:
        _remembered.remove(sizes)


def kept_sizes() -> dict[str, int]:
    """Most rows at once by name of the work; only of work that ran out of memory."""
    return dict(_remembered[-1]) if _remembered else {}


def keep_sizes(sizes: Mapping[str, int]) -> None:
    """Take the sizes of an earlier process, where `remembering` lasts."""
    if _remembered:
        _remembered[-1].update(sizes)


def rows_at_once(batches: Batches, most: int) -> int:
    """How many rows are tried at once.

    Args:
        batches: what is done.
        most: rows that the settings allow, >= 1.

    Returns:
        The size that worked before, where that is known and smaller.
    """
    return min(most, kept_sizes().get(batches.name, most))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory, of the machine or of its GPU."""
    of_torch = getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError)
    if isinstance(error, (MemoryError, of_torch)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error)
    return isinstance(error, RuntimeError) and any(part in text for part in _MESSAGES)


def attempt(batches: Batches, rows: int, work: Callable[[], T]) -> tuple[T] | None:
    """Do some work; where memory runs out, free what can be freed and halve the size that is kept.

    Args:
        batches: what is done.
        rows: how many it is done on at once, >= 1.
        work: the work; what it has written where memory runs out is written again.

    Returns:
        What the work returned; None where memory ran out, so that fewer rows have to be tried.

    Raises:
        OutOfMemoryError: memory ran out with a single row.
    """
    try:
        return (work(),)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = _first_line(error)
    # The frames of the error, and with them the tensors of the attempt, are gone by now.
    gc.collect()
    torch = sys.modules.get("torch")  # the command line comes here without it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if rows <= 1:
        raise OutOfMemoryError(
            f"out of memory in {batches.name} with a single row ({reason}); lower "
            f"`{batches.shorter}`, or take a smaller model or a machine with more memory; "
            "stage=plan with the same settings says what needs it"
        )
    half = rows // 2
    keep_sizes({batches.name: rows_at_once(batches, half)})
    say(
        f"note     out of memory in {batches.name} with {rows} rows at once; goes on with {half}, "
        f"as {batches.key}={half} would"
    )
    return None


def fitted(batches: Batches, rows: R, work: Callable[[R], T]) -> list[tuple[R, T]]:
    """Do some work on rows, on as many at once as fit into memory.

    Args:
        batches: what is done.
        rows: all that are tried at once where nothing is known.
        work: on some of the rows, in their order; what it says of a row may not depend on others.

    Returns:
        The rows of each piece of work that was done, in order, and what it returned.

    Raises:
        OutOfMemoryError: memory ran out with a single row.
    """
    done: list[tuple[R, T]] = []
    size, start = rows_at_once(batches, max(1, len(rows))), 0
    while start < len(rows) or not done:  # no rows are one piece of work
        whole = start == 0 and size >= len(rows)
        part = rows if whole else rows[start : start + size]
        outcome = attempt(batches, len(part), partial(work, part))
        if outcome is None:
            size = max(1, len(part) // 2)
            continue
        done.append((part, *outcome))
        start += len(part)
    return done


@contextmanager
def naming_memory_faults() -> Iterator[None]:
    """Within this context memory that runs out, wherever it does, is one readable error.

    Yields:
        Nothing.

    Raises:
        OutOfMemoryError: in the place of the error of PyTorch or Python.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"out of memory ({_first_line(error)}); lower the batch sizes or "
            "`generation.response_tokens`, or take a smaller model or a machine with more memory; "
            "stage=plan with the same settings says what needs it and what to change"
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
