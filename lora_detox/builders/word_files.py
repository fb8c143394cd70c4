"""Files of one word a line."""

from pathlib import Path

from lora_detox.errors import DataError


def words_of(path: str, key: str) -> list[str]:
    """The lines of a file that are not blank, each once.

    Args:
        path: a text file in UTF-8.
        key: setting that names it, for messages.

    Returns:
        Words and phrases, as they are written, with single spaces.

    Raises:
        DataError: it cannot be read, or has no word.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); want a text file in UTF-8 with one word a line; "
            f"change `{key}`"
        ) from error
    words = list(dict.fromkeys(" ".join(line.split()) for line in text.splitlines()))
    words = [word for word in words if word]
    if not words:
        raise DataError(f"{path} has no word; want one a line; change `{key}`")
    return words
