"""How a run is kept when it is ended before its end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from lora_detox.errors import DetoxError, OutOfMemoryError, ProcessError
from lora_detox.fitting import naming_memory_faults
from lora_detox.run.job import Job
from lora_detox.settings import CheckpointSettings
from lora_detox.signals import Interrupted, end_if_asked, is_listening


@contextmanager
def kept_when_stopped(job: Job, iteration: int) -> Iterator[None]:
    """One iteration; a signal ends it between two minibatches, and writes a checkpoint.

    Memory that runs out even with a single row ends it in the same way, and so does another process
    of the run that has failed or is gone.

    An iteration that was not finished is dropped: all that it changed is taken back, and a resumed
    run does it again with the same draws.

    Args:
        job: whose iteration it is; signals wait (`deferring`).
        iteration: from 0.

    Yields:
        Nothing.

    Raises:
        Interrupted: once the checkpoint is written, with its place.
        OutOfMemoryError: likewise.
        ProcessError: likewise.
    """
    if not is_listening():
        yield
        return
    take_back, done = job.state.hold(job.selector), iteration
    try:
        with naming_memory_faults():
            yield
        done = iteration + 1
        end_if_asked()
    except (OutOfMemoryError, ProcessError) as error:
        take_back()
        raise _with_checkpoint(job, iteration, error) from error
    except Interrupted as stop:
        if done == 0:
            stop.where = " before the first iteration was done"
            raise
        if done == iteration:
            take_back()
        kept = job.save(done)
        stop.where = f" after iteration {done} of {job.plan.iterations}, kept in {kept}"
        raise


@contextmanager
def kept_at_end(job: Job) -> Iterator[None]:
    """What comes after training; where memory runs out, a checkpoint keeps what was learned.

    So it does where another process of the run has failed or is gone.

    Args:
        job: whose iterations are done.

    Yields:
        Nothing.

    Raises:
        OutOfMemoryError: once the checkpoint is written, with its place.
        ProcessError: likewise.
    """
    take_back = job.state.hold(job.selector)
    try:
        with naming_memory_faults():
            yield
    except (OutOfMemoryError, ProcessError) as error:
        take_back()
        raise _with_checkpoint(job, job.plan.iterations, error) from error


def _with_checkpoint(job: Job, done: int, error: OutOfMemoryError | ProcessError) -> DetoxError:
    """Keep what is done, and say where."""
    if done == 0:
        return type(error)(f"{error}. Nothing had been learned yet")
    kept = job.save(done)
    memory = " where there is more memory" if isinstance(error, OutOfMemoryError) else ""
    return type(error)(
        f"{error}. Iteration {done} of {job.plan.iterations} is kept in {kept}: resume=true goes "
        f"on from there{memory}"
    )


def is_due(settings: CheckpointSettings, done: int, saved_at: float, *, at_end: bool) -> bool:
    """Whether a checkpoint is written now.

    Args:
        settings: `every` and `every_minutes`, whichever comes first.
        done: iterations behind.
        saved_at: when the last one was, by `time.monotonic`.
        at_end: training is over, so that what follows it need not be paid for with the whole.

    Returns:
        Whether it is.
    """
    every, minutes = settings.every, settings.every_minutes
    if (every or minutes) and at_end:
        return True
    if every and done % every == 0:
        return True
    return minutes is not None and time.monotonic() - saved_at >= 60 * minutes
