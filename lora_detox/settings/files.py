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
_MEASURED = (Stage.detox, Stage.soup, Stage.evaluate)
_READ_DATA = (*_TRAIN, Stage.reward_model, Stage.evaluate, Stage.plan)


def check_files(settings: Settings) -> None:
    """What the stage will read is there, as far as paths say that it is on this machine.

    Args:
        settings: composed and checked.

    Raises:
        DataError: a file or folder of data that is not there.
        SettingsError: a model or an adapter that is not there.
        ScorerError: a classifier or an encoder that is not there.
    """
    for key, path in _data_paths(settings):
        if _leads_nowhere(path):
            raise DataError(
                f"no such file or folder: {path}; want a file, a folder of them, or a hub id: "
                f"change `{key}`"
            )
    words = settings.evaluation.word_list
    if settings.stage in _MEASURED and _leads_nowhere(words):
        raise DataError(
            f"the word list {words} cannot be read: no such file; change `evaluation.word_list`"
        )
    for key, path in _models(settings):
        if _leads_nowhere(path):
            raise SettingsError(
                f"{key}: {path}: there is no such folder; want one written by save_pretrained, or "
                "a hub id"
            )
    for key, path in _entries(settings):
        if _leads_nowhere(path):
            raise SettingsError(
                f"{key}: {path}: there is no such folder; want that of a model, an adapter or a "
                "run, or a hub id"
            )
    for key, path in _scorers(settings):
        if _leads_nowhere(path):
            raise ScorerError(
                f"{path}: there is no such folder; want that of a classifier or an encoder, or a "
                f"hub id: change `{key}`"
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
    """Keys of data that the stage reads, with their paths."""
    data, evaluation = settings.data, settings.evaluation
    if settings.stage in _READ_DATA:
        for name in ("path", "validation_path", "test_path"):
            yield f"data.{name}", getattr(data, name)
    if settings.stage in _MEASURED:
        for name in ("audit", "audit_texts"):
            yield f"evaluation.{name}", getattr(evaluation, name)


def _models(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """Keys of the model that the stage trains or measures, with their paths."""
    policy = settings.policy
    measured = settings.stage is Stage.evaluate and not settings.evaluation.models
    if (settings.stage in (*_TRAIN, Stage.plan) or measured) and not settings.debug.tiny_model:
        yield "policy.path", policy.path
        yield "policy.adapter", policy.adapter


def _entries(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """Paths in `evaluation.models`: entries are texts, or mappings of a model's keys."""
    if settings.stage is not Stage.evaluate:
        return
    for entry in settings.evaluation.models:
        given = entry if isinstance(entry, dict) else {"path": entry}
        for name in ("path", "adapter"):
            path = given.get(name)
            yield "evaluation.models", path if isinstance(path, str) else None


def _scorers(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """Keys of classifiers and encoders, with their paths."""
    if settings.stage is Stage.reward_model:
        yield "reward_model.path", settings.reward_model.path
    if settings.stage not in (*_TRAIN, *_MEASURED, Stage.plan):
        return
    for role, scorer in (("reward", settings.reward), ("judge", settings.judge)):
        yield f"{role}.path", scorer.path
        yield f"{role}.encoder", scorer.encoder
        yield f"{role}.fluency.path", scorer.fluency.path
        for one in scorer.ensemble:
            yield f"{role}.ensemble", one
    yield "evaluation.encoder", settings.evaluation.encoder


def _leads_nowhere(path: str | None) -> bool:
    """Whether a path is plainly one of this machine, and nothing is there."""
    if path is None or not path.startswith(_LOCAL):
        return False
    return not os.path.lexists(Path(path).expanduser())
