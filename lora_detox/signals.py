"""What a run does when it is told to end: it keeps what it has, and says how to go on.

The first signal is remembered where a state has to be kept (`deferring`), and noticed between two
minibatches (`end_if_asked`); anywhere else it ends the run where it is. A second one ends the
process at once. A signal that the process was started to ignore (nohup, a job in the background)
stays ignored.

Python drops what is raised while an object is being deleted (`__del__`, a weak reference's
callback). A signal that comes then is sent again a moment later.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 75}
"""Exit status by signal: 128 and its number; Slurm's warning asks to be run again (EX_TEMPFAIL)."""
_AT_ONCE_AFTER_SECONDS = 0.3
"""A second signal sooner than this is the first one: `timeout` and shells send it twice."""
_AGAIN_AFTER_SECONDS = 0.01
"""How soon a signal comes again that Python has dropped."""
_REQUEUE_SECONDS = 30
"""How long `scontrol` may take."""


class Interrupted(KeyboardInterrupt):
    """A run that a signal has ended.

    Args:
        name: of the signal.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name, self.where = name, ""

    @property
    def exit_code(self) -> int:
        """Status that the process ends with."""
        return EXIT_CODES[self.name]

    def __str__(self) -> str:
        return f"stopped by {self.name}{self.where}"


class _Listener:
    """The signals of one run."""

    def __init__(self) -> None:
        self.asked: str | None = None
        self.deferred = False
        self._since, self._process = 0.0, os.getpid()
        self._again: threading.Timer | None = None
        self._hook = sys.unraisablehook

    def dropped(self, what: "sys.UnraisableHookArgs") -> None:
        """Send a signal again whose `Interrupted` Python has dropped; print any other error."""
        if not isinstance(what.exc_value, Interrupted):
            self._hook(what)
            return
        self.asked = None
        number = signal.Signals[what.exc_value.name]
        self._again = threading.Timer(_AGAIN_AFTER_SECONDS, os.kill, (self._process, number))
        self._again.start()

    def close(self) -> None:
        """Nothing is sent again any more."""
        if self._again is not None:
            self._again.cancel()
        if sys.unraisablehook == self.dropped:
            sys.unraisablehook = self._hook

    def receive(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if os.getpid() != self._process:  # a worker that was forked off ends as workers do
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self.asked is None:
            self.asked, self._since = name, time.monotonic()
            if not self.deferred:
                raise Interrupted(name)
            _say(f"{name}: ending after this minibatch; a second signal ends at once\n")
        elif time.monotonic() - self._since >= _AT_ONCE_AFTER_SECONDS:
            os._exit(EXIT_CODES[name])


_listeners: list[_Listener] = []
_silent = [False]


def stay_silent(silent: bool) -> None:
    """Whether it is left to another process of the run to say that a signal has come."""
    _silent[0] = silent


def _say(line: str) -> None:
    """Write to standard error; what `print` was in the midst of stays whole."""
    if _silent[0]:
        return
    try:
        os.write(2, line.encode())
    except OSError:  # a terminal that has hung up
        return


@contextmanager
def listening() -> Iterator[None]:
    """Within this context signals end the run in good order; the inner of two does nothing.

    Only the main thread can listen, so that elsewhere nothing changes.
    """
    if _listeners or threading.current_thread() is not threading.main_thread():
        yield
        return
    listener, before = _Listener(), {}
    for name in EXIT_CODES:
        number = getattr(signal, name, None)  # Windows has two of them
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, listener.receive)
    _listeners.append(listener)
    sys.unraisablehook = listener.dropped
    try:
        yield
    finally:
        _listeners.remove(listener)
        listener.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def is_listening() -> bool:
    """Whether a signal would be remembered."""
    return bool(_listeners)


def asked_to_end() -> str | None:
    """The name of the signal that has come; None before."""
    return _listeners[-1].asked if _listeners else None


def end_if_asked() -> None:
    """End here where a signal has come.

    Raises:
        Interrupted: with its name.
    """
    if (name := asked_to_end()) is not None:
        raise Interrupted(name)


@contextmanager
def deferring() -> Iterator[None]:
    """Within this context a signal waits for `end_if_asked`."""
    with _deferred(to=True):
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Within this context a signal ends what runs where it is: for a user's own code."""
    with _deferred(to=False):
        end_if_asked()
        yield


@contextmanager
def _deferred(*, to: bool) -> Iterator[None]:
    if not _listeners:
        yield
        return
    listener = _listeners[-1]
    before, listener.deferred = listener.deferred, to
    try:
        yield
    finally:
        listener.deferred = before


def how_to_go_on(program: Sequence[str], overrides: Sequence[str], run_dir: str) -> str:
    """The command that goes on with a run.

    Args:
        program: its first words.
        overrides: of the run.
        run_dir: where it is.

    Returns:
        One line for a shell.
    """
    keys = ("resume=", "hydra.run.dir=", "hydra.sweep.")
    kept = [one for one in overrides if not one.lstrip("+~").startswith(keys)]
    return shlex.join([*program, *kept, "resume=true", f"hydra.run.dir={run_dir}"])


def requeue() -> str:
    """Ask Slurm to run this job again; returns what came of it, in words."""
    job_id = os.environ.get("SLURM_JOB_ID")
    if job_id is None:
        return "not requeued: SLURM_JOB_ID is not set"
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job_id],
            capture_output=True,
            text=True,
            timeout=_REQUEUE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"not requeued: {error}"
    if done.returncode:
        return f"not requeued: {done.stderr.strip() or f'scontrol ended with {done.returncode}'}"
    return f"requeued as Slurm job {job_id}"
