"""`reward.probe_texts` and `judge.probe_texts`: sentences in the language of a classifier."""

from pathlib import Path
from typing import Any

import yaml

from lora_detox.errors import SettingsError

_SIDES = ("civil", "toxic")
_WANTED = (
    "want {civil: [TEXT, ...], toxic: [TEXT, ...]} in the classifier's language, or a YAML or JSON "
    "file that holds it"
)


def probe_texts(given: Any, key: str) -> tuple[list[str], list[str]] | None:
    """What the sign probe reads instead of its English sentences.

    Args:
        given: the value of the key: a mapping with the lists civil and toxic, or a file of it.
        key: dotted, for messages.

    Returns:
        Civil and toxic texts, each at least one; None where nothing is given.

    Raises:
        SettingsError: for a file that cannot be read, and whatever is not two lists of texts.
    """
    if given is None or given in ({}, ""):
        return None
    content = _read(given, key) if isinstance(given, str) else given
    if not isinstance(content, dict) or set(content) != set(_SIDES):
        got = f"the keys {', '.join(map(str, content))}" if isinstance(content, dict) else content
        raise SettingsError(f"{key}: got {got}; {_WANTED}")
    for side in _SIDES:
        texts = content[side]
        if not isinstance(texts, list) or not texts:
            raise SettingsError(f"{key}.{side}: got {texts!r}, want a list of at least one text")
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise SettingsError(f"{key}.{side}: got {text!r}, want a text with words in it")
    if both := [text for text in content["civil"] if text in content["toxic"]]:
        raise SettingsError(f"{key}: {both[0]!r} is in both lists; want it in one")
    return content["civil"], content["toxic"]


def _read(path: str, key: str) -> Any:
    try:
        return yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise SettingsError(f"{key}: no such file: {path}; {_WANTED}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"{key}: cannot read {path} ({reason}); {_WANTED}") from error
