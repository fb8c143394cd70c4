"""What a study is like: conf/hydra/sweeper/optuna.yaml, checked before any job starts."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from lora_detox.choices import TrialPrompts, TrialSampler
from lora_detox.errors import SettingsError

_KEY = "hydra.sweeper"


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """When a trial ends early; see `lora_detox.comparison.pruning`.

    Attributes:
        enabled: whether any does.
        after: iterations before which none does.
        least: finished trials before which none does.
        fraction: of the finished trials that have to be better by then, in (0, 1].
    """

    enabled: bool = True
    after: int = 2
    least: int = 4
    fraction: float = 0.5


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """A study.

    Attributes:
        trials: that it has in the end, those of earlier calls with it.
        at_once: trials that the launcher gets together.
        sampler: how the next trial is chosen.
        random_trials: that are drawn before the sampler learns from them.
        seed: of the sampler.
        measured_on: prompts by which trials are judged.
        storage: URL of a database; None keeps the study in the folder of the sweep.
        name: of the study in its storage.
        prune: when a trial ends early.
    """

    trials: int = 20
    at_once: int = 1
    sampler: TrialSampler = TrialSampler.tpe
    random_trials: int = 8
    seed: int = 0
    measured_on: TrialPrompts = TrialPrompts.validation
    storage: str | None = None
    name: str = "lora_detox"
    prune: PruneOptions = PruneOptions()


def study_options(values: Mapping[str, Any]) -> StudyOptions:
    """Check what the sweeper's configuration says.

    Args:
        values: of conf/hydra/sweeper/optuna.yaml with the overrides.

    Returns:
        The same, typed.

    Raises:
        SettingsError: an unknown key, a wrong type, or a number out of its range.
    """
    given = dict(values)
    prune = given.pop("prune", None)
    if not isinstance(prune, Mapping | None):
        raise SettingsError(f"{_KEY}.prune: got {prune}; want {_KEY}.prune.enabled=true or false")
    _check_names(StudyOptions, given, _KEY)
    _check_names(PruneOptions, prune or {}, f"{_KEY}.prune")
    for name, kind in (("sampler", TrialSampler), ("measured_on", TrialPrompts)):
        if name in given:
            given[name] = _one_of(kind, given[name], name)
    options = StudyOptions(**given, prune=PruneOptions(**(prune or {})))
    for key, least in (("trials", 1), ("at_once", 1), ("random_trials", 1), ("seed", 0)):
        _check_count(key, getattr(options, key), least)
    for key in ("after", "least"):
        _check_count(f"prune.{key}", getattr(options.prune, key), 1)
    if not isinstance(options.prune.enabled, bool):
        raise SettingsError(
            f"{_KEY}.prune.enabled: got {options.prune.enabled}; want true or false"
        )
    fraction = options.prune.fraction
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise SettingsError(f"{_KEY}.prune.fraction: got {fraction}; want a number in (0, 1]")
    for key in ("name", "storage"):
        value = getattr(options, key)
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise SettingsError(f"{_KEY}.{key}: got {value!r}; want a text")
    return options


def _check_names(owner: type, given: Mapping[str, Any], key: str) -> None:
    known = [entry.name for entry in fields(owner)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            meant = f"did you mean {key}.{close[0]}?" if close else f"want one of {known}"
            raise SettingsError(f"{key}.{name}: there is no such key; {meant}")


def _one_of(kind: type[StrEnum], value: Any, name: str) -> Any:
    if value not in list(kind):
        raise SettingsError(f"{_KEY}.{name}: got {value}; want one of {', '.join(kind)}")
    return kind(value)


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SettingsError(f"{_KEY}.{name}: got {value}; want a whole number, {least} or more")
