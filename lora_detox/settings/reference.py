"""Every key with its type, range, default and meaning, from the schema and the files of conf/."""

import types
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lora_detox.ranges import range_of
from lora_detox.settings.comments import heading, key_comments
from lora_detox.settings.compose import register_schema
from lora_detox.settings.groups import Settings

_WORDS = {
    bool: "true, false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "null",
    Any: "any",
}
_LONGEST = 60
"""Characters of a default that still fit into a table."""


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes:
        name: dotted, as it is typed.
        type: in words.
        range: of a number, with its unit; empty where there is none.
        default: what a run has without overrides, as it is typed.
        meaning: the comment beside it in conf/.
    """

    name: str
    type: str
    range: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Option:
    """A file of conf/.

    Attributes:
        group: its folder.
        name: without the suffix.
        meaning: the comment at its head.
    """

    group: str
    name: str
    meaning: str


def reference_keys(conf: Path) -> list[Key]:
    """Every key that can be set, in the order of the schema.

    Args:
        conf: folder of the configuration files.

    Returns:
        A key for each field of the schema, those of `evaluation.sets.NAME` apart, which are those
        of `data`.
    """
    defaults, meanings = _defaults(conf), _meanings(conf)
    return [
        Key(
            name=name,
            type=type_words(entry.type),
            range=_range_words(entry),
            default=_default_words(name, defaults),
            meaning=meanings.get(name, ""),
        )
        for name, entry in _entries(Settings, "")
    ]


def reference_options(conf: Path) -> list[Option]:
    """Every option of every group, by group and name."""
    files = sorted(conf.glob("*/*.yaml"))
    return [Option(path.parent.name, path.stem, heading(path)) for path in files]


def type_words(annotation: Any) -> str:
    """A type in words: `float | None` is "number, null", `list[str]` "list of text"."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (types.UnionType, Union):
        return ", ".join(type_words(one) for one in inner)
    if origin is list:
        return f"list of {type_words(inner[0]).replace(', ', ' or ')}"
    if origin is dict:
        values = "settings" if is_dataclass(inner[1]) else type_words(inner[1])
        return f"mapping of name to {values}"
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return ", ".join(annotation)
    return _WORDS[annotation]


def _entries(node: type, prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted name and dataclass field of each key."""
    for entry in fields(node):
        name = f"{prefix}{entry.name}"
        if isinstance(entry.type, type) and is_dataclass(entry.type):
            yield from _entries(entry.type, f"{name}.")
        else:
            yield name, entry


def _range_words(entry: Any) -> str:
    allowed = range_of(entry)
    if allowed is None:
        return ""
    return f"{allowed.words} ({allowed.unit})" if allowed.unit else allowed.words


def _defaults(conf: Path) -> Any:
    """What a run is composed of without overrides."""
    register_schema()
    with initialize_config_dir(config_dir=str(conf), version_base="1.3"):
        return compose("config", overrides=["run_dir=runs/TASK/TIME"])


def _default_words(name: str, defaults: Any) -> str:
    value = OmegaConf.select(defaults, name, throw_on_missing=False)
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, throw_on_missing=False)
    text = value.value if isinstance(value, StrEnum) else _typed(value)
    if len(text) > _LONGEST and isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {{...}}" for key in value) + "}"
    return text


def _typed(value: Any) -> str:
    """A value as it is typed on a command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_typed, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_typed(one)}" for key, one in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value).replace("\n", "\\n")


def _meanings(conf: Path) -> dict[str, str]:
    """Dotted key -> comment: by the file of its group that explains most, then by the others.

    Of files that explain as many keys it is the one that a run takes without overrides.
    """
    config = conf / "config.yaml"
    meanings = key_comments(config)
    for folder in sorted(path for path in conf.iterdir() if path.is_dir()):
        files = [(path.stem, _of_group(path)) for path in sorted(folder.glob("*.yaml"))]
        usual = _usual_option(config, folder.name)
        files.sort(key=lambda file: (-len(file[1]), file[0] != usual))
        for _, comments in files:
            for key, comment in comments.items():
                meanings.setdefault(f"{folder.name}.{key}", comment)
    return meanings


def _usual_option(config: Path, group: str) -> str:
    """The option of a group that config.yaml's list of defaults names; empty where none."""
    for entry in yaml.safe_load(config.read_text(encoding="utf-8"))["defaults"]:
        if isinstance(entry, dict) and group in entry:
            return str(entry[group])
    return ""


def _of_group(path: Path) -> dict[str, str]:
    """Comments of a file's keys without its group's name, which a file of several groups has."""
    comments, group = key_comments(path), f"{path.parent.name}."
    if "@package _global_" not in path.read_text(encoding="utf-8"):
        return comments
    return {
        key[len(group) :]: comment for key, comment in comments.items() if key.startswith(group)
    }
