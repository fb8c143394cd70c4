"""The settings of a finished run, as its config.yaml holds them."""

from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_detox.errors import SettingsError
from lora_detox.settings.compose import open_keys
from lora_detox.settings.groups import Settings
from lora_detox.settings.plain import flat
from lora_detox.settings.renamed import renamed
from lora_detox.settings.stored import stored_settings


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
    values = flat(stored)
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
        settings = OmegaConf.to_object(OmegaConf.merge(schema, stored))
    except OmegaConfBaseException as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingsError(
            f"{key}: {file} does not fit this version ({reason}); correct it there"
        ) from error
    if not isinstance(settings, Settings):
        raise TypeError(f"{file} became a {type(settings).__name__}, not Settings")
    return settings
