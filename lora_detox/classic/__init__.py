"""The interface of TRL 0.11's PPO on this package's engine.

Old programs run on current Transformers, PEFT and torch by changing one import:

    from lora_detox.classic import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

`docs/migration.md` says how, `docs/classic_differences.md` where the numbers differ and why.
"""

from lora_detox.classic.config import PPOConfig
from lora_detox.classic.core import (
    LengthSampler,
    logprobs_from_logits,
    masked_mean,
    masked_var,
    masked_whiten,
    respond_to_batch,
    set_seed,
    whiten,
)
from lora_detox.classic.kl_control import AdaptiveKLController, FixedKLController
from lora_detox.classic.models import (
    AutoModelForCausalLMWithValueHead,
    AutoModelForSeq2SeqLMWithValueHead,
    PreTrainedModelWrapper,
)
from lora_detox.classic.reference import create_reference_model
from lora_detox.classic.trainer import PPOTrainer

__all__ = [
    "AdaptiveKLController",
    "AutoModelForCausalLMWithValueHead",
    "AutoModelForSeq2SeqLMWithValueHead",
    "FixedKLController",
    "LengthSampler",
    "PPOConfig",
    "PPOTrainer",
    "PreTrainedModelWrapper",
    "create_reference_model",
    "logprobs_from_logits",
    "masked_mean",
    "masked_var",
    "masked_whiten",
    "respond_to_batch",
    "set_seed",
    "whiten",
]
