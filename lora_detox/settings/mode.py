"""One composition instead of two: Hydra's first only finds `hydra.mode`, which is seldom set."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra._internal.hydra import Hydra

_MAY_SET_IT = re.compile(r"\+*hydra\.mode=.*|--?c.*")
"""The override, and Hydra's options by which files of the user come in."""


@contextmanager
def composed_once(arguments: Sequence[str]) -> Iterator[None]:
    """Spare Hydra the composition by which it looks for `hydra.mode`, where nothing sets it.

    conf/ leaves it to `--multirun`; composing takes most of the time before settings are checked.

    Args:
        arguments: of the command line.
    """
    if any(map(_MAY_SET_IT.fullmatch, arguments)):
        yield
        return
    original = Hydra.get_mode
    Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = original  # type: ignore[method-assign]
