"""Hydra's mode: whether a command line asks for several jobs, and composing once to find out."""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from hydra._internal.hydra import Hydra

_MODE = re.compile(r"\+*hydra\.mode=(.*)")
_OPTIONS = ("-m", "--multirun")
_OWN_FILES = re.compile(r"--?c.*")
"""Hydra's options by which files of the user come in, which may set the mode."""


def is_multirun(arguments: Collection[str]) -> bool:
    """Whether a command line itself asks for several jobs.

    Args:
        arguments: of the command line, or overrides alone.

    Returns:
        True where an option or an override does.
    """
    modes = [match[1].casefold() for one in arguments if (match := _MODE.fullmatch(one))]
    return "multirun" in modes or any(one in _OPTIONS for one in arguments)


@contextmanager
def composed_once(arguments: Sequence[str]) -> Iterator[None]:
    """Spare Hydra the composition by which it looks for `hydra.mode`, where nothing sets it.

    conf/ leaves it to `--multirun`; composing takes most of the time before settings are checked.

    Args:
        arguments: of the command line.
    """
    if any(_MODE.fullmatch(one) or _OWN_FILES.fullmatch(one) for one in arguments):
        yield
        return
    original = Hydra.get_mode
    Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = original  # type: ignore[method-assign]
