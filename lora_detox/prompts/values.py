"""Values that were written as text: lists and objects in a cell, missing values, numbers.

pandas writes a list into a CSV file as Python shows it, numpy's arrays without commas, and other
tools as JSON. A cell is read as such a value only where all of it is one; text that merely begins
with a bracket stays text.
"""

import ast
import json
import math
import re
from functools import lru_cache
from typing import Any

MISSING_WORDS = frozenset({"nan", "none", "null", "<na>", "#n/a", "n/a", "na", "[]", "{}"})
"""What stands in a cell where there is no value, in lower case."""
_LONGEST_WORD = max(map(len, MISSING_WORDS))
_SPACES = 32
"""More spaces around a value in a cell are not looked for."""
_MISSING_PROMPTS = frozenset({"nan", "NaN", "<NA>", "#N/A"})
_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_TOKENS = re.compile(rf"({_QUOTED})", re.DOTALL)
_BEGINS = re.compile(r"\s*(?:\[\s*(?:['\"\[{\]]|array|np\.|nan\b)|\{\s*['\"])")
_CUT = re.compile(r"['\"}\]]\s+\.\.\.\s+['\"{\[]")
_WRAPPERS = re.compile(r"\b(?:array|np\.\w+|numpy\.\w+)\(")
_WRAPPERS_END = re.compile(r"(?:\s*,\s*dtype=\s*[\w.<>]*)?\s*\)")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+\s*")
_DEEPEST = 64
"""Levels of lists and objects in a cell that is read as a value; Python gives up somewhere from
1,000 to 100,000, by its version."""
_BOOLEANS = {"true": 1.0, "false": 0.0}


def written_value(cell: str) -> list[Any] | dict[str, Any] | None:
    """The list or object that a cell holds as Python's, numpy's or JSON's text.

    Args:
        cell: text of a cell.

    Returns:
        The value; None where the cell is anything else, so plain text.
    """
    if "]" not in cell[-_SPACES:] and "}" not in cell[-_SPACES:]:  # nearly every text
        return None
    text = cell.strip()
    if text[:1] + text[-1:] not in {"[]", "{}"} or not _BEGINS.match(text):
        return None
    return _parsed(text)


def is_cut_value(cell: str) -> bool:
    """Whether a cell holds an array of which numpy left out the middle, with `...` for it."""
    text = cell.strip()
    return text.endswith("]") and bool(_BEGINS.match(text) and _CUT.search(text))


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: null, NaN, a blank cell or one of MISSING_WORDS."""
    if isinstance(value, str):
        word = value.strip() if len(value) < _SPACES or value.isspace() else value
        return not word or (len(word) <= _LONGEST_WORD and word.casefold() in MISSING_WORDS)
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_missing_prompt(value: Any) -> bool:
    """The same for a prompt, which may well be the word "none"."""
    return value in _MISSING_PROMPTS if isinstance(value, str) else is_missing(value)


def number(value: Any) -> float:
    """A number, also as text with a decimal comma, or a truth value.

    Args:
        value: what a cell holds; not missing.

    Returns:
        The number.

    Raises:
        ValueError: if it is none.
        TypeError: if it is no kind of value that could be one.
    """
    try:
        return float(value)
    except ValueError:
        if isinstance(value, str) and value.strip().casefold() in _BOOLEANS:
            return _BOOLEANS[value.strip().casefold()]
        if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
            return float(value.replace(",", "."))
        raise


@lru_cache(maxsize=64)  # several fields read parts of one cell
def _parsed(text: str) -> list[Any] | dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(_as_python(text))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
    if not isinstance(value, (list, dict)) or not value or _is_deeper(value, _DEEPEST):
        return None
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects stand in one another deeper than this."""
    level = [value]
    for _ in range(levels):
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for held in inner for one in held if isinstance(one, (list, dict))]
        if not level:
            return False
    return True


def _as_python(text: str) -> str:
    """Commas where numpy leaves them out, NaN as None, and no names of types."""
    parts = _TOKENS.split(text)
    last = len(parts) - 1
    for place in range(0, len(parts), 2):  # between texts in quotes
        part = parts[place]
        if 0 < place < last and part and not part.strip():
            parts[place] = ", "
            continue
        if not part.strip("[]{}:, \n"):
            parts[place] = re.sub(r"([\]}])\s+(?=[\[{])", r"\1, ", part)
            continue
        part = _WRAPPERS_END.sub("", _WRAPPERS.sub("", part))
        part = re.sub(r"\b(?:nan|NaN|null|NaT)\b|<NA>", "None", part)
        part = re.sub(r"\btrue\b", "True", re.sub(r"\bfalse\b", "False", part))
        parts[place] = re.sub(r"([\]}])\s+(?=[\[{])", r"\1, ", part)
    return "".join(parts)
