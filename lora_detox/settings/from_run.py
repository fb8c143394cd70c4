"""The settings of a run, as its folder holds them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_detox.errors import SettingsError
from lora_detox.settings.compose import known_keys, open_keys
from lora_detox.settings.groups import Settings
from lora_detox.settings.plain import flat
from lora_detox.settings.renamed import renamed
from lora_detox.settings.stored import stored_json, stored_settings


def settings_of_run(folder: Path, key: str) -> Settings:
    """What a run was made with; a key that is younger than the run has its default.

    Args:
        folder: of the run.
        key: of the settings that named the run, for the message.

    Returns:
        Its settings.

    Raises:
        SettingsError: the file cannot be read, or was written by a version with other keys.
    """
    file = folder / "config.yaml"
    stored = stored_settings(file, key, "want a whole folder of a finished run")
    merged = _merged(stored, file, key)
    try:
        settings = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise _unfit(file, key, error) from error
    if not isinstance(settings, Settings):
        raise TypeError(f"{file} became a {type(settings).__name__}, not Settings")
    return settings


def resumed_config(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """What a run goes on with: its own settings, and what is said anew.

    Where a group is chosen again (`task=...`) the whole is taken as it was composed: the command
    of the run is typed a second time then, and every difference is found.

    Args:
        config: as composed, with `run_dir` and `resume`.
        overrides: of the command line.

    Returns:
        The settings of the folder with the values of the overrides; the composed ones where the
        folder has none that can be read.
    """
    keys = _keys(overrides)
    stored = _stored_of_unfinished(Path(config.run_dir)) if sets_keys_alone(overrides) else None
    if stored is None:
        return config
    try:
        merged = _merged(stored, Path(config.run_dir) / "config.yaml", "resume=true")
    except SettingsError:  # whoever goes on with the run tells more of it
        return config
    for key in [*keys, "resume", "run_dir"]:
        OmegaConf.update(merged, key, OmegaConf.select(config, key), force_add=True)
    return merged


def sets_keys_alone(overrides: Sequence[str]) -> bool:
    """Whether overrides set keys and choose no option of a group, so that a folder's own stay."""
    known, opened = set(known_keys()), tuple(f"{key}." for key in open_keys())
    return all(key in known or key.startswith(opened) for key in _keys(overrides))


def _keys(overrides: Sequence[str]) -> list[str]:
    """The keys of overrides, without Hydra's own."""
    keys = [one.lstrip("+~").split("=", 1)[0] for one in overrides]
    return [key for key in keys if not key.startswith("hydra.")]


def _stored_of_unfinished(run_dir: Path) -> dict[str, Any] | None:
    """The settings in config.yaml, or else in the newest checkpoint; None where neither has any."""
    try:
        return stored_settings(run_dir / "config.yaml", "resume=true", "")
    except SettingsError:
        records = run_dir.glob("checkpoints/*/run.json")
    for record in sorted(records, key=lambda one: one.stat().st_mtime, reverse=True):
        try:
            kept = stored_json(record, "resume=true", "").get("settings")
        except SettingsError:
            continue
        if isinstance(kept, dict) and isinstance(kept.get("policy"), dict):
            return kept
    return None


def _merged(stored: Mapping[str, Any], file: Path, key: str) -> DictConfig:
    """Stored values over the defaults of the schema, every key of them known."""
    values = flat(dict(stored))
    if asking := [name for name, value in values.items() if "${" in str(value)]:
        raise SettingsError(
            f"{key}: {file} has a value that asks for another one ({min(asking)}: "
            f"{values[min(asking)]}), which no run writes; put the value itself there"
        )
    if moved := renamed(sorted(values)):
        raise SettingsError(
            f"{key}: {file} was written by an earlier version ({'; '.join(moved)}); rename its "
            "keys there"
        )
    schema = OmegaConf.structured(Settings)
    for one in open_keys():
        OmegaConf.set_struct(OmegaConf.select(schema, one), False)
    try:
        merged = OmegaConf.merge(schema, dict(stored))
    except OmegaConfBaseException as error:
        raise _unfit(file, key, error) from error
    if not isinstance(merged, DictConfig):
        raise TypeError(f"{file} became a {type(merged).__name__}")
    return merged


def _unfit(file: Path, key: str, error: Exception) -> SettingsError:
    reason = str(error).strip().splitlines()[0]
    return SettingsError(f"{key}: {file} does not fit this version ({reason}); correct it there")
