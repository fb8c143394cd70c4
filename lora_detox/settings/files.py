"""Paths of this machine that lead nowhere, found out before PyTorch is imported."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from lora_detox.choices import Stage
from lora_detox.errors import DataError, ScorerError, SettingsError
from lora_detox.settings.groups import Settings
from lora_detox.settings.plain import flat

_LOCAL = (".", "/", "~")
_LONGEST_NAME = 255
"""Bytes of a file's name that file systems take, at most."""
_PATHS = frozenset(
    (
        "path",
        "validation_path",
        "test_path",
        "encoder",
        "adapter",
        "audit",
        "audit_texts",
        "words",
        "examples",
        "function",
        "run",
        "runs",
        "soup",
        "ensemble",
        "models",
        "test_sets",
    )
)
"""Keys whose values, or what is in them, are paths or hub ids."""
_TRAIN = (Stage.detox, Stage.soup, Stage.sft)
_READ_DATA = (*_TRAIN, Stage.reward_model, Stage.evaluate)


def check_files(settings: Settings) -> None:
    """What the stage will read is there, as far as paths say that it is on this machine.

    Args:
        settings: composed and checked.

    Raises:
        DataError: a data file or folder that is not there.
        SettingsError: a policy or an adapter that is not there.
        ScorerError: a classifier that is not there.
    """
    if settings.stage in _READ_DATA:
        for key, path in _data_paths(settings):
            if _leads_nowhere(path):
                raise DataError(
                    f"no such file or folder: {path}; want a file, a folder of them, or a hub id: "
                    f"change `{key}`"
                )
    if settings.stage in _TRAIN and not settings.debug.tiny_model:
        policy = settings.policy
        for key, model in (("policy.path", policy.path), ("policy.adapter", policy.adapter)):
            if _leads_nowhere(model):
                raise SettingsError(
                    f"{key}: {model}: there is no such folder; want one written by "
                    "save_pretrained, or a hub id"
                )
    if settings.stage in (*_TRAIN, Stage.evaluate):
        for key, path in (("reward", settings.reward.path), ("judge", settings.judge.path)):
            if _leads_nowhere(path):
                raise ScorerError(
                    f"{path}: there is no such folder; want a classifier's folder or hub id: "
                    f"change `{key}.path`"
                )


def check_names(settings: Settings) -> None:
    """No path has a name that is longer than file systems take.

    Args:
        settings: as composed.

    Raises:
        SettingsError: with the key.
    """
    for key, value in flat(asdict(settings)).items():
        names = key.split(".")
        if not _PATHS & set(names[-2:]):
            continue
        for one in _texts(value):
            longest = max(len(part.encode(errors="replace")) for part in one.split("/"))
            if longest > _LONGEST_NAME:
                raise SettingsError(
                    f"{key}: got {one[:40]}..., a path with a name of {longest} bytes; want at "
                    f"most {_LONGEST_NAME} between two slashes"
                )


def _texts(value: object) -> Iterator[str]:
    """The texts in a value, in its lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))


def _data_paths(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """Keys of data with their paths; a hub data set's splits are no paths."""
    data = settings.data
    for name in ("path", "validation_path", "test_path"):
        yield f"data.{name}", getattr(data, name)


def _leads_nowhere(path: str | None) -> bool:
    """Whether a path is plainly one of this machine, and nothing is there."""
    if path is None or not path.startswith(_LOCAL):
        return False
    return not os.path.lexists(Path(path).expanduser())
