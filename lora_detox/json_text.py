"""JSON that anybody may have written: whatever is no JSON is a ValueError."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Args:
        text: all of it; bytes are UTF-8, UTF-16 or UTF-32.

    Returns:
        The value.

    Raises:
        ValueError: it is no JSON, no text of its encoding, or nested more deeply than Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
