"""What Hydra composed -> plain dataclasses, once; below this nobody sees a DictConfig."""

import difflib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_origin

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_detox.choices import Stage
from lora_detox.errors import SettingsError
from lora_detox.settings.checks import check_settings
from lora_detox.settings.groups import Settings
from lora_detox.settings.renamed import renamed


@cache
def register_schema() -> None:
    """Make the schema known to Hydra under the name that conf/config.yaml starts from."""
    schema = OmegaConf.structured(Settings)
    for key in open_keys():
        OmegaConf.set_struct(OmegaConf.select(schema, key), False)
    ConfigStore.instance().store(name="settings_schema", node=schema)
    OmegaConf.register_new_resolver("folder_of", folder_of, replace=True)


def folder_of(stage: object, task: str) -> str:
    """Folder of conf/config.yaml's default run directory: the task; runs compared have many."""
    return "compare" if stage == Stage.compare else task


def settings_from(config: DictConfig) -> Settings:
    """Plain, resolved and checked settings from what Hydra composed.

    Args:
        config: the composed configuration.

    Returns:
        Settings without any trace of OmegaConf.

    Raises:
        SettingsError: a mandatory key without a value, or a combination that cannot work.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise SettingsError(
            f"{', '.join(missing)}: no value given; set it, as in {missing[0]}=VALUE"
        )
    try:
        settings = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise SettingsError(str(error)) from error
    if not isinstance(settings, Settings):
        raise TypeError(f"the composed configuration is a {type(settings).__name__}, not Settings")
    _check_known(settings)
    algorithm = settings.algorithm
    if 0 < algorithm.minibatch_size < algorithm.microbatch_size:  # which is a bound, not a size
        algorithm.microbatch_size = algorithm.minibatch_size
    check_settings(settings)
    return settings


def _check_known(settings: Settings) -> None:
    """`+KEY=VALUE` adds a key that nobody reads; OmegaConf keeps it beside the fields."""
    unknown = list(_added_keys(settings))
    if moved := renamed(unknown):
        raise SettingsError("\n".join(moved))
    for key in unknown:
        close = closest_keys(key, [])
        advice = f"; did you mean {', '.join(close)}?" if close else ""
        raise SettingsError(f"{key}: there is no such key{advice}")


def _added_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of a settings tree that are no field of its dataclasses."""
    if not is_dataclass(node):
        return
    known = {entry.name for entry in fields(node)}
    for name, value in vars(node).items():
        if name not in known:
            yield prefix + name
        yield from _added_keys(value, f"{prefix}{name}.")


def known_keys(node: type = Settings, prefix: str = "") -> list[str]:
    """Every key that can be set, dotted."""
    keys: list[str] = []
    for entry in fields(node):
        nested = entry.type
        if isinstance(nested, type) and is_dataclass(nested):
            keys += known_keys(nested, f"{prefix}{entry.name}.")
        else:
            keys.append(prefix + entry.name)
    return keys


def open_keys(node: type = Settings, prefix: str = "") -> list[str]:
    """Keys of mappings whose names the schema does not know, so that they need no `+`."""
    keys: list[str] = []
    for entry in fields(node):
        nested = entry.type
        if isinstance(nested, type) and is_dataclass(nested):
            keys += open_keys(nested, f"{prefix}{entry.name}.")
        elif get_origin(nested) is dict or entry.default_factory is dict:
            keys.append(prefix + entry.name)
    return keys


def closest_keys(key: str, groups: list[str]) -> list[str]:
    """Known keys and groups that a mistyped one may have meant."""
    candidates = known_keys() + groups
    close = difflib.get_close_matches(key, candidates, n=3, cutoff=0.6)
    last = key.rsplit(".", 1)[-1]
    same = [one for one in candidates if one.rsplit(".", 1)[-1] == last]
    if "." not in key and same:  # a key without its group
        return same[:4]
    close += [one for one in same if one not in close]
    return close[:4]
