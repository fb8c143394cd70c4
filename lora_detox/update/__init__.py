"""Stage 5: Rollout + Advantages -> UpdateStats, and new weights."""

from lora_detox.update.kl_control import AdaptiveKl, FixedKl, KlControl
from lora_detox.update.length_control import LengthControl
from lora_detox.update.optimise import PpoPlan, PpoUpdate

__all__ = ["AdaptiveKl", "FixedKl", "KlControl", "LengthControl", "PpoPlan", "PpoUpdate"]
