"""Errors of reading name the setting that holds the path, whichever it is."""

from collections.abc import Iterator
from contextlib import contextmanager

from lora_detox.errors import DataError

DATA_PATH = "data.path"
LOCAL_ADVICE = "to read a local file instead: `data=local data.path=FILE`"
"""What errors of the hub end with."""


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Let a DataError of within name another setting than `data.path`; OSErrors become one.

    Args:
        key: the setting that holds the path.

    Yields:
        Nothing.

    Raises:
        DataError: with `key` in its message.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"the file cannot be read ({_reason(error)}); change `{key}`") from error
    except DataError as error:
        if key == DATA_PATH:
            raise
        message = str(error).replace("data=local data.path=", f"{key}=")
        message = message.replace(f"`{DATA_PATH}`", f"`{key}`")
        raise DataError(message if key in message else f"{key}: {message}") from error


@contextmanager
def naming_set(prefix: str, option: str) -> Iterator[None]:
    """The same for a set with all keys of the group `data`, as those of `evaluation.sets`.

    Args:
        prefix: `data`, or where the set stands (`evaluation.sets.toxic`).
        option: the group as the command line chooses it (`data@evaluation.sets.toxic`).

    Yields:
        Nothing.

    Raises:
        DataError: whose keys are those of the set.
    """
    try:
        yield
    except DataError as error:
        if prefix == "data":
            raise
        message = str(error).replace("data=local data.", f"{option}=local {prefix}.")
        message = message.replace("`data.", f"`{prefix}.")
        raise DataError(message if prefix in message else f"{prefix}: {message}") from error


def _reason(error: OSError) -> str:
    """The reason without the path, which may be why it cannot be read."""
    return error.strerror or type(error).__name__
