"""What the id of a repository on the Hugging Face hub looks like, without importing its client."""

import re

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""Name of a repository, with or without its owner."""
_LONGEST = 96


def is_hub_id(text: str, *, with_owner: bool = False) -> bool:
    """Whether a text can be the id of a repository; nothing is asked of the hub.

    Args:
        text: any text.
        with_owner: whether `name` alone, without `owner/`, is none.

    Returns:
        True for `owner/name`, and for `name` unless `with_owner`.
    """
    fits = _HUB_ID.fullmatch(text) is not None and len(text) <= _LONGEST
    return fits and ("/" in text or not with_owner)
