"""What stage=soup needs is there: finished runs of the very task, model and data of now."""

from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from lora_detox.errors import SettingsError
from lora_detox.settings.groups import Settings
from lora_detox.settings.plain import flat, settings_yaml
from lora_detox.settings.stages import check_finished

_SAME = ("task", "policy", "quantization", "data")
"""Groups that have to be the runs' own: else another base, or test prompts in training."""
_SAME_ADAPTER = ("adapter.type", "adapter.targets", "adapter.scope")


def check_soup(settings: Settings) -> None:
    """Find what cannot be averaged, from files alone.

    Args:
        settings: as composed.

    Raises:
        SettingsError: fewer than two runs, one that is not finished, or one of other settings.
    """
    folders = settings.soup
    if len(set(folders)) < 2:
        raise SettingsError(
            f"soup: got {len(set(folders))} run(s); want two or more finished runs that differ in "
            "their seed, as in 'soup=[runs/a,runs/b]'"
        )
    if settings.adapter.dora:
        raise SettingsError(
            "adapter.dora: magnitudes have no mean with a meaning; stage=soup wants adapter=lora "
            "or adapter=rslora"
        )
    if settings.policy.adapter is not None:
        raise SettingsError(
            f"policy.adapter: got {settings.policy.adapter}; stage=soup starts from the base, want "
            "null"
        )
    now = _compared(OmegaConf.create(settings_yaml(settings)))
    for folder in folders:
        check_finished(folder, "soup")
        then = _compared(OmegaConf.load(Path(folder).expanduser() / "config.yaml"))
        changed = [
            f"{key}: was {then.get(key)}, now {now.get(key)}"
            for key in sorted(now.keys() | then.keys())
            if now.get(key) != then.get(key)
        ]
        if changed:
            raise SettingsError(
                f"soup: {folder} was trained with other settings ({'; '.join(changed)}); give "
                "those of the runs"
            )


def _compared(config: DictConfig | ListConfig) -> dict[str, object]:
    """The keys that have to be the same, dotted."""
    found = flat(OmegaConf.to_container(config))
    return {k: v for k, v in found.items() if k.split(".")[0] in _SAME or k in _SAME_ADAPTER}
