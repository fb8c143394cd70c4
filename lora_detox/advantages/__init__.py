"""Stage 4: Rollout + Scores -> Advantages. Pure functions of tensors."""

from lora_detox.advantages.baselines import RunningMean
from lora_detox.advantages.estimate import AdvantagePlan, estimate_advantages
from lora_detox.advantages.length_correction import LengthCorrection
from lora_detox.advantages.score_scaling import ScoreScaler

__all__ = [
    "AdvantagePlan",
    "LengthCorrection",
    "RunningMean",
    "ScoreScaler",
    "estimate_advantages",
]
