"""The schema of `algorithm.trainer`: who trains, where it is not the main path itself."""

import importlib.util
from dataclasses import dataclass
from enum import StrEnum

from lora_detox.errors import SettingsError


class TrainerKind(StrEnum):
    """Who moves the adapter in stage=detox."""

    native = "native"
    trl_dpo = "trl_dpo"
    trl_grpo = "trl_grpo"
    trl_rloo = "trl_rloo"
    best_of_n = "best_of_n"

    @property
    def is_trl(self) -> bool:
        """Whether a trainer of TRL does it, which takes decoder-only models alone."""
        return self.value.startswith("trl_")


@dataclass
class TrainerSettings:
    """conf/algorithm/trl_*.yaml and best_of_n.yaml: what those methods need of their own."""

    kind: TrainerKind = TrainerKind.native
    epochs: float = 1.0
    beta: float = 0.1
    least_gap: float = 0.0


def check_trainer(trainer: TrainerSettings, responses_per_prompt: int, *, resume: bool) -> None:
    """Whether a method other than the main path can run at all.

    Args:
        trainer: which one, and its numbers.
        responses_per_prompt: responses that are compared with each other.
        resume: whether a run is to be gone on with.

    Raises:
        SettingsError: nothing to compare with, a package that is not there, or a
            resumed run.
    """
    if trainer.kind is TrainerKind.native:
        return
    name = trainer.kind.value
    if responses_per_prompt < 2:
        raise SettingsError(
            f"algorithm.responses_per_prompt: got {responses_per_prompt}; algorithm={name} "
            "compares responses to the same prompt, so want 2 or more"
        )
    if resume:
        raise SettingsError(
            f"resume: algorithm={name} keeps no checkpoints; name another hydra.run.dir"
        )
    if trainer.kind.is_trl and importlib.util.find_spec("trl") is None:
        raise SettingsError(
            f"algorithm={name} trains with TRL, and trl is not installed; "
            "pip install 'lora-detox[trl]'"
        )
