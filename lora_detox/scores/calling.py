"""A user's own function, called so that nothing it does is taken for something else."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from lora_detox.errors import ScorerError
from lora_detox.fitting import is_out_of_memory
from lora_detox.progress import say
from lora_detox.signals import Interrupted, end_if_asked, interruptible, is_listening

REMINDER_SECONDS = 60.0
"""After so long a line says that it is the function that takes its time."""
_LOOK_EVERY_SECONDS = 0.1
"""How often a wait for the function looks for a signal."""
_WANTED = "want a list of one number per response from (prompts, completions, **kwargs)"


def call_function(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    name: str,
    key: str,
    timeout: float | None,
) -> list[float]:
    """Call a function, and read the numbers that it returns.

    Args:
        function: of the user.
        arguments: for it, by name.
        name: of it, for messages.
        key: settings group of the scorer, for messages.
        timeout: seconds that one call may take; it then runs in a thread of its own, which is
            given up where it takes longer. None waits.

    Returns:
        Its numbers, as they are.

    Raises:
        ScorerError: it failed, took too long, tried to end the process, or returned anything but
            numbers. An error of memory stays what it is.
        Interrupted: a signal has come while it ran.
    """
    with _reminder(name, key, timeout), _faults_named(name):
        if timeout is None:
            with interruptible():
                return _numbers(function(**arguments))
        return _numbers(_within(timeout, function, name, key, arguments))


def _numbers(returned: Any) -> list[float]:
    if isinstance(returned, (str, bytes, Mapping, Set)):
        raise TypeError(f"it returned a {type(returned).__name__}")
    values = list(returned)
    for place, value in enumerate(values):
        if value is None or isinstance(value, (str, bytes)):
            raise TypeError(f"entry {place} of what it returned is {value!r}, which is no number")
    return [float(value) for value in values]


@contextmanager
def _faults_named(name: str) -> Iterator[None]:
    """What goes wrong in a function is a ScorerError; a signal stays what it is."""
    try:
        yield
    except (Interrupted, ScorerError):
        raise
    except SystemExit as error:
        raise ScorerError(
            f"the reward function {name} tried to end the process (SystemExit: {error.code}); "
            f"{_WANTED}, and an exception where it cannot score"
        ) from error
    except KeyboardInterrupt as error:
        if not is_listening():  # nobody else has caught the Ctrl-C
            raise
        raise ScorerError(
            f"the reward function {name} raised KeyboardInterrupt by itself, without a signal; "
            f"{_WANTED}"
        ) from error
    except BaseException as error:
        if is_out_of_memory(error):
            raise
        raise ScorerError(
            f"the reward function {name} failed: {type(error).__name__}: {error}; {_WANTED}"
        ) from error


@contextmanager
def _reminder(name: str, key: str, timeout: float | None) -> Iterator[None]:
    """A line, once, where a call takes longer than a minute."""
    advice = f"; {key}.timeout=SECONDS ends such a call" if timeout is None else ""
    line = f"note     the reward function {name} has run for {REMINDER_SECONDS:.0f} s{advice}"
    timer = threading.Timer(REMINDER_SECONDS, say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _within(
    timeout: float,
    function: Callable[..., Any],
    name: str,
    key: str,
    arguments: Mapping[str, Any],
) -> Any:
    """What a function returns or raises in time; a signal ends the wait."""
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function(**arguments))
        except BaseException as error:  # noqa: BLE001 (raised again in the main thread)
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    deadline = time.monotonic() + timeout
    while thread.is_alive():
        end_if_asked()
        left = deadline - time.monotonic()
        if left <= 0:
            raise ScorerError(
                f"the reward function {name} did not return within {timeout:g} s; raise "
                f"`{key}.timeout`, set it to null to wait, or have the function give up sooner"
            )
        thread.join(min(left, _LOOK_EVERY_SECONDS))
    if failure:
        raise failure[0]
    return outcome[0]
