"""What a run directory says of itself, read with care: anybody may have changed it."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_detox.errors import SettingsError
from lora_detox.json_text import parse_json


def stored_settings(path: Path, key: str, remedy: str) -> dict[str, Any]:
    """The settings in the config.yaml of a run.

    Args:
        path: of the file.
        key: of the settings that named the run, for the message.
        remedy: what to do if it cannot be read, for the message.

    Returns:
        Nested plain values.

    Raises:
        SettingsError: no such file, or no settings in it.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise _unreadable(path, key, _first_line(error), remedy) from error
    if not isinstance(values, dict) or not isinstance(values.get("policy"), dict):
        raise _unreadable(path, key, "it holds no settings", remedy)
    return {str(name): value for name, value in values.items()}


def stored_json(path: Path, key: str, remedy: str) -> dict[str, Any]:
    """An object in a JSON file of a run, such as its summary.json.

    Args:
        path: of the file.
        key: of the settings that named the run, for the message.
        remedy: what to do if it cannot be read, for the message.

    Returns:
        The object.

    Raises:
        SettingsError: no such file, or no JSON object in it.
    """
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, key, _first_line(error), remedy) from error
    if not isinstance(values, dict):
        raise _unreadable(path, key, "it holds no object", remedy)
    return values


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _unreadable(path: Path, key: str, reason: str, remedy: str) -> SettingsError:
    return SettingsError(f"{key}: cannot read {path} ({reason}); {remedy}")
