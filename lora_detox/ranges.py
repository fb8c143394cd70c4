"""The range and unit of a number, written beside the field that holds it."""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from lora_detox.errors import SettingsError

_RANGE = "range"
"""Key of a field's metadata."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Which numbers a field takes.

    Attributes:
        words: the range for an error message, as in "a number above 0".
        least: lower end.
        most: upper end.
        with_least: whether the lower end itself is allowed.
        with_most: whether the upper end itself is allowed.
        unit: of the number; empty where it has none.
    """

    words: str
    least: float
    most: float = math.inf
    with_least: bool = True
    with_most: bool = True
    unit: str = ""

    def holds(self, value: float) -> bool:
        """Whether a number is inside; one that is not a number never is."""
        above = value >= self.least if self.with_least else value > self.least
        below = value <= self.most if self.with_most else value < self.most
        return above and below


def positive(default: Any, unit: str = "") -> Any:
    """A field for a number above 0."""
    return _ranged(default, Range(words="a number above 0", least=0, with_least=False, unit=unit))


def not_negative(default: Any, unit: str = "") -> Any:
    """A field for 0 or more."""
    return _ranged(default, Range(words="0 or more", least=0, unit=unit))


_MOST_WHOLE = 2**63 - 1
"""What the 64 bits of a tensor's sizes and seeds hold."""
MOST_TOKENS = 1_000_000
"""Longest text that anything here is asked to hold, tokens; no model reads more."""


def count(default: Any, unit: str = "", *, least: int = 1, most: int) -> Any:
    """A field for a count of work that nobody sees the end of beyond `most`."""
    return _ranged(default, Range(words=f"{least} to {most:,}", least=least, most=most, unit=unit))


def fraction(default: Any, unit: str = "") -> Any:
    """A field for a number from 0 to 1."""
    return _ranged(default, Range(words="a number from 0 to 1", least=0, most=1, unit=unit))


def positive_fraction(default: Any, unit: str = "") -> Any:
    """A field for a number above 0, at most 1."""
    words = "a number above 0, at most 1"
    return _ranged(default, Range(words=words, least=0, most=1, with_least=False, unit=unit))


def inner_fraction(default: Any, unit: str = "") -> Any:
    """A field for a number between 0 and 1, neither of the two."""
    words = "a number between 0 and 1, or null"
    inner = Range(words=words, least=0, most=1, with_least=False, with_most=False, unit=unit)
    return _ranged(default, inner)


def between(default: Any, least: float, most: float, unit: str = "") -> Any:
    """A field for a number from `least` to `most`, both included."""
    words = f"a number from {least:g} to {most:g}"
    return _ranged(default, Range(words=words, least=least, most=most, unit=unit))


LEAST_TEMPERATURE, MOST_TEMPERATURE = 1e-4, 1e4
"""Logits over a smaller temperature leave the range of single precision."""
MOST_STRENGTH = 100.0
"""Largest strength of an adapter, either way; beyond it nothing is left of the base."""


def strength(default: Any) -> Any:
    """A field for the strength of an adapter: any number that is no typing error."""
    words = f"a number from -{MOST_STRENGTH:g} to {MOST_STRENGTH:g}"
    return _ranged(default, Range(words=words, least=-MOST_STRENGTH, most=MOST_STRENGTH))


def change(default: Any, unit: str = "") -> Any:
    """A field for a relative change, which cannot take away more than everything."""
    words = "a number above -1"
    return _ranged(default, Range(words=words, least=-1, with_least=False, unit=unit))


def range_of(entry: Any) -> Range | None:
    """The range of a dataclass field; None where it has none."""
    allowed: Range | None = entry.metadata.get(_RANGE)
    return allowed


def check_ranges(node: Any, prefix: str = "") -> None:
    """Hold every number of a dataclass, and of those inside it, to its range.

    Args:
        node: a dataclass instance.
        prefix: dotted key of it, for the message.

    Raises:
        SettingsError: with the key, what was got and what is wanted.
    """
    for entry in fields(node):
        value, key = getattr(node, entry.name), f"{prefix}{entry.name}"
        if is_dataclass(value):
            check_ranges(value, f"{key}.")
        elif isinstance(value, dict):
            for name, inner in value.items():
                if is_dataclass(inner):
                    check_ranges(inner, f"{key}.{name}.")
        elif value is not None and (wanted := range_of(entry)) and not wanted.holds(value):
            unit = f" ({wanted.unit})" if wanted.unit else ""
            raise SettingsError(f"{key}: got {value}, want {wanted.words}{unit}")
        elif isinstance(value, int) and abs(value) > _MOST_WHOLE:
            raise SettingsError(f"{key}: got {value}, want a whole number of at most {_MOST_WHOLE}")


def _ranged(default: Any, allowed: Range) -> Any:
    return field(default=default, metadata={_RANGE: allowed})
