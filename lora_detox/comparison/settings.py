"""In which settings the runs of a comparison differ."""

import json
from collections.abc import Mapping, Sequence
from functools import cache

from omegaconf import OmegaConf

from lora_detox.comparison.candidates import Candidate
from lora_detox.settings import Settings, flat, settings_yaml

_OF_THE_FOLDER = ("run_dir", "run", "runs", "resume", "device", "threads")
"""Keys that say where a run was made, not what."""


def settings_that_differ(candidates: Sequence[Candidate]) -> dict[str, dict[str, str]]:
    """Keys with the values that the runs have of them.

    Args:
        candidates: with the settings of their runs; a key that is younger than a run had its
            default there.

    Returns:
        Key -> folder of the run -> value as YAML would have it; keys that are the same everywhere
        are left out.
    """
    runs = {one.run: one.settings for one in candidates}
    keys = dict.fromkeys(key for settings in runs.values() for key in settings)
    differing = {}
    for key in keys:
        values = {run: _written(settings, key) for run, settings in runs.items()}
        if key.split(".")[0] not in _OF_THE_FOLDER and len(set(values.values())) > 1:
            differing[key] = values
    return differing


def _written(settings: Mapping[str, object], key: str) -> str:
    value = settings[key] if key in settings else _defaults().get(key)
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


@cache
def _defaults() -> dict[str, object]:
    return flat(OmegaConf.to_container(OmegaConf.create(settings_yaml(Settings()))))
