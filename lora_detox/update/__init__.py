"""Stage 5: Rollout + Advantages -> UpdateStats, and new weights."""

from lora_detox.update.average import WeightAverage, write_parameters
from lora_detox.update.bigrams import NewBigrams
from lora_detox.update.budget import Bound, Budget, Constraint, PenaltyTerm
from lora_detox.update.guard import CollapseGuard
from lora_detox.update.kl_control import AdaptiveKl, FixedKl, KlControl
from lora_detox.update.optimise import PpoPlan, PpoUpdate
from lora_detox.update.step_control import StepControl

__all__ = [
    "AdaptiveKl",
    "Bound",
    "Budget",
    "CollapseGuard",
    "Constraint",
    "FixedKl",
    "KlControl",
    "NewBigrams",
    "PenaltyTerm",
    "PpoPlan",
    "PpoUpdate",
    "StepControl",
    "WeightAverage",
    "write_parameters",
]
