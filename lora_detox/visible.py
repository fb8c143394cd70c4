"""Text of others as it may be shown: no control character of theirs reaches a terminal or a page.

A data set, a label, a path or a model may hold escape sequences, which move a terminal's cursor or
set its title, or bidirectional controls, which show letters in another order than they stand in.
Files that hold data (samples.jsonl, summary.json) keep the true text, escaped as JSON.
"""

import logging
import re
import sys
import traceback
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.text import Text

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MARKS = re.compile(
    "[\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f\ud800-\udfff]"
)
"""Bidirectional controls, separators that some programs break lines at, letters of no shape, and
halves of characters, which cannot be encoded."""


def visible(text: str) -> str:
    r"""A text with its control and bidirectional characters written out.

    Args:
        text: any string.

    Returns:
        The same with `\x1b` for an escape and `<U+202E>` for a bidirectional control. Line feeds
        and tabs stay; a carriage return before a line feed goes, another one is `\x0d`.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r\n", "\n"))
    return _MARKS.sub(lambda found: f"<U+{ord(found[0]):04X}>", text)


def visible_values(value: Any) -> Any:
    """The same for every text in nested mappings and lists, keys included; other values stay."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible_values(key): visible_values(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [visible_values(one) for one in value]
    return value


def readable(text: str, console: Console) -> Text:
    """A text of others as a terminal can take it.

    Args:
        text: any string, lone surrogates and escape sequences included.
        console: whose encoding decides what can be shown.

    Returns:
        The text with controls written out, `?` for what the encoding lacks, markup not read.
    """
    return Text(visible(text).encode(console.encoding, "replace").decode(console.encoding))


class VisibleFormatter(logging.Formatter):
    """A formatter of log records whose lines are visible."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return visible(super().format(record))


def guard_standard_error() -> None:
    """Make visible what Python itself writes: unexpected errors, warnings, records of no handler.

    For the command line alone; a program that imports this package decides for itself.
    """
    plain_warning = warnings.formatwarning
    warnings.formatwarning = lambda *given, **named: visible(plain_warning(*given, **named))
    sys.excepthook = _show_exception
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(VisibleFormatter())


def _show_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    sys.stderr.write(visible("".join(traceback.format_exception(kind, error, trace))))
