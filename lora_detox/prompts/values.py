"""Lists and objects that stand in a table as text, as pandas writes them into a CSV file."""

import ast
import io
import json
import math
import tokenize
from typing import Any

_NO_CONTENT = (tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER)


def structured(text: str) -> list[Any] | dict[str, Any] | None:
    """The list or object that a whole text spells, by JSON, by Python or by numpy.

    Args:
        text: of a cell.

    Returns:
        A list of texts and objects, or an object, with at least one entry; None for any other
        text, such as one that merely begins with a bracket.
    """
    stripped = text.strip()
    if (stripped[:1], stripped[-1:]) not in {("[", "]"), ("{", "}")}:
        return None
    value = _numpy_texts(stripped)
    for read in (json.loads, ast.literal_eval):
        if value is not None:
            break
        try:
            value = read(stripped)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
        return value
    if isinstance(value, list) and value and all(isinstance(one, str | dict) for one in value):
        return value
    return None


def unfolded(value: Any) -> Any:
    """A value, or what its text spells.

    Args:
        value: of a column.

    Returns:
        A list or an object where the value is one, as itself, as text or as an array; else the
        value; None in place of pandas' NaN.
    """
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str):
        spelt = structured(value)
        return value if spelt is None else spelt
    return list(value) if isinstance(value, tuple) else value


def _numpy_texts(text: str) -> list[str] | None:
    """`['a' 'b']`: numpy leaves out the commas, and Python would glue the texts together."""
    if not text.startswith("[") or ("' '" not in text and "'\n" not in text and '" ' not in text):
        return None
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return None
    inner = [one for one in tokens if one.type not in _NO_CONTENT][1:-1]
    if not inner or any(one.type != tokenize.STRING for one in inner):
        return None
    try:
        return [str(ast.literal_eval(one.string)) for one in inner]
    except (ValueError, SyntaxError):
        return None
