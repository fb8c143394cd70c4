"""Settings as plain values: YAML for the run directory, dotted keys to compare two runs."""

from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any

from omegaconf import OmegaConf

from lora_detox.settings.groups import Settings


def settings_yaml(settings: Settings) -> str:
    """The resolved settings as YAML, as config.yaml of the run directory holds them."""
    text: str = OmegaConf.to_yaml(OmegaConf.create(_plain(settings)))
    return text


def _plain(node: Any) -> Any:
    """Dataclasses and enums as dicts and their values."""
    if is_dataclass(node):
        return {entry.name: _plain(getattr(node, entry.name)) for entry in fields(node)}
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return node.value if isinstance(node, StrEnum) else node


def flat(node: object, prefix: str = "") -> dict[str, object]:
    """Nested dicts as one, by dotted keys; everything else is a value."""
    if not isinstance(node, dict):
        return {prefix.rstrip("."): node}
    values: dict[str, object] = {}
    for key, value in node.items():
        values.update(flat(value, f"{prefix}{key}."))
    return values
