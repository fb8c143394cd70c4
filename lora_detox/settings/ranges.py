"""Which numbers each key takes."""

import math
from typing import Any

from lora_detox.errors import SettingsError
from lora_detox.settings.groups import Settings

POSITIVE = (
    "algorithm.iterations",
    "algorithm.rollout_batch_size",
    "algorithm.minibatch_size",
    "algorithm.microbatch_size",
    "algorithm.microbatch_tokens",
    "algorithm.ppo_epochs",
    "algorithm.responses_per_prompt",
    "algorithm.learning_rate",
    "algorithm.kl_target",
    "algorithm.kl_horizon",
    "algorithm.clip_range",
    "algorithm.value_clip_range",
    "algorithm.ratio_threshold",
    "algorithm.max_grad_norm",
    "algorithm.target_kl",
    "algorithm.step_kl",
    "algorithm.length_target",
    "algorithm.length_gain",
    "algorithm.length_damping",
    "algorithm.credit_every",
    "algorithm.score_clip",
    "algorithm.value_learning_rate",
    "algorithm.trainer.epochs",
    "budget.length",
    "budget.kl",
    "budget.gain",
    "budget.distinct_2_gain",
    "budget.patience",
    "guard.kl",
    "guard.ratio",
    "guard.entropy_rise",
    "guard.perplexity",
    "guard.reward_rise",
    "adapter.rank",
    "adapter.alpha",
    "generation.temperature",
    "generation.batch_size",
    "evaluation.every",
    "evaluation.validation_prompts",
    "evaluation.test_prompts",
    "evaluation.samples_per_prompt",
    "evaluation.validation_samples",
    "evaluation.batch_size",
    "evaluation.resamples",
    "evaluation.prompts",
    "evaluation.samples",
    "evaluation.new_tokens",
    "sft.epochs",
    "sft.max_steps",
    "sft.learning_rate",
    "sft.max_grad_norm",
    "sft.batch_size",
    "sft.gradient_accumulation",
    "sft.max_response_tokens",
    "sft.log_every",
    "reward_model.rank",
    "reward_model.epochs",
    "reward_model.max_steps",
    "reward_model.learning_rate",
    "reward_model.batch_size",
    "reward_model.max_tokens",
    "reward_model.log_every",
    "reward_model.identity_least",
    "data.max_query_tokens",
    "data.limit",
    "reward.batch_size",
    "reward.max_tokens",
    "judge.batch_size",
    "reward.length_words",
    "judge.length_words",
    "judge.max_tokens",
    "checkpoint.keep",
    "plan.memory_gib",
    "plan.query_tokens",
    "threads",
)
NOT_NEGATIVE = (
    "algorithm.kl_coef",
    "algorithm.value_coef",
    "algorithm.weight_decay",
    "algorithm.warmup_iterations",
    "algorithm.trainer.beta",
    "algorithm.trainer.least_gap",
    "budget.damping",
    "guard.retries",
    "generation.top_k",
    "generation.min_new_tokens",
    "quantization.int8_threshold",
    "data.bad_row_limit",
    "checkpoint.every",
    "budget.start_rollouts",
    "sft.warmup_steps",
    "sft.weight_decay",
    "reward_model.warmup_steps",
    "reward_model.weight_decay",
    "seed",
)
CHANGE = ("budget.perplexity",)
UNIT = (
    "algorithm.gamma",
    "algorithm.gae_lambda",
    "algorithm.baseline_decay",
    "algorithm.average",
    "budget.aim",
    "budget.rouge_l",
    "budget.distinct_2",
    "budget.smoothing",
    "budget.target",
    "guard.entropy",
    "guard.length",
    "guard.distinct_2",
    "guard.repetition",
    "guard.judge_fall",
    "adapter.dropout",
    "generation.top_p",
    "data.min_toxicity",
    "data.max_toxicity",
    "reward_model.toxic_from",
)


def check_ranges(settings: Settings) -> None:
    """Hold every number to its range.

    Args:
        settings: as composed.

    Raises:
        SettingsError: with the key, what was got and what is wanted.
    """
    for keys, want in (
        (POSITIVE, "a number above 0"),
        (NOT_NEGATIVE, "0 or more"),
        (UNIT, "a number from 0 to 1"),
        (CHANGE, "a number above -1"),
    ):
        for key in keys:
            value: Any = settings
            for part in key.split("."):
                value = getattr(value, part)
            if value is None:
                continue
            least = -1 if keys is CHANGE else 0
            too_low = value <= least if keys in (POSITIVE, CHANGE) else value < least
            if too_low or (keys is UNIT and value > 1) or math.isnan(value):
                raise SettingsError(f"{key}: got {value}, want {want}")
    shares = list(settings.budget.interpolate)
    falling = sorted(set(shares), reverse=True)
    if shares != falling or any(not 0 < share < 1 for share in shares):
        raise SettingsError(
            f"budget.interpolate: got {shares}, want falling numbers between 0 and 1, or []"
        )
    if settings.generation.top_p == 0:
        raise SettingsError("generation.top_p: got 0, want a number above 0, at most 1")
