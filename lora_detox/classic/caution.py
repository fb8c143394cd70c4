"""Warnings that point at the program's own line, whatever of this package lies between."""

import sys
import warnings

_OWN = __name__.partition(".")[0]


def caution(message: str) -> None:
    """A UserWarning at the innermost frame outside this package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_OWN):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)
