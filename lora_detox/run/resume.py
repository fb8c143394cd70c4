"""Checks around going on with a run."""

from pathlib import Path

import torch
from omegaconf import OmegaConf

from lora_detox.errors import DivergenceError, SettingsError
from lora_detox.policy.policy import LoraPolicy
from lora_detox.progress import phase
from lora_detox.scores.control_rewards import CONSTANT
from lora_detox.settings import Settings, flat, renamed, settings_yaml

_FREE = ("resume", "threads", "device", "run_dir", "tracker", "checkpoint")
"""Keys that may differ when a run is resumed: they change no number of it."""


def check_same_settings(settings: Settings, run_dir: Path) -> None:
    """A resumed run must have the settings that it was begun with.

    Args:
        settings: of now.
        run_dir: with the config.yaml of then.

    Raises:
        SettingsError: with each key that differs, its old and its new value.
    """
    written = run_dir / "config.yaml"
    if not settings.resume or not written.is_file():
        return
    old = flat(OmegaConf.to_container(OmegaConf.load(written)))
    new = flat(OmegaConf.to_container(OmegaConf.create(settings_yaml(settings))))
    if moved := renamed(sorted(old)):
        raise SettingsError(
            f"resume=true, but {run_dir} was begun by an earlier version ({'; '.join(moved)}); "
            "begin it anew in another hydra.run.dir"
        )
    changed = [
        f"{key}: was {old.get(key)}, now {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key.split(".")[0] not in _FREE
    ]
    if changed:
        raise SettingsError(
            f"resume=true, but {run_dir} was begun with other settings ({'; '.join(changed)}); "
            "give the same ones, or name another hydra.run.dir"
        )


def trained_checksum(policy: LoraPolicy) -> float:
    """A number that changes when any adapter parameter does: the sum of their absolute values."""
    with torch.no_grad():
        return sum(float(p.double().abs().sum()) for p in policy.adapter_parameters())


def base_checksum(policy: LoraPolicy) -> str:
    """Digest of every weight that is not the adapter's; a large base takes a while to read."""
    with phase("reading the frozen weights (checksum)"):
        return policy.base_checksum()


def check_moved(policy: LoraPolicy, at_start: float, reward_function: str | None = None) -> None:
    """After the first update the adapter must have changed: a frozen one looks healthy too.

    Args:
        policy: after one update.
        at_start: its `trained_checksum` before.
        reward_function: of the settings; the constant reward moves nothing, as a control should.

    Raises:
        DivergenceError: no adapter parameter left its start.
    """
    if reward_function != CONSTANT and trained_checksum(policy) == at_start:
        raise DivergenceError(
            "the adapter has not moved in the first update: nothing is being learned; check "
            "algorithm.learning_rate and that the scores differ between responses"
        )
