"""Values and combinations that cannot work, found before anything heavy is imported."""

import math
from dataclasses import asdict
from typing import Any

from lora_detox.errors import SettingsError
from lora_detox.settings.choices import (
    AdapterType,
    BaselineType,
    KlPenaltyType,
    KlPlace,
    Protocol,
    QuantizationType,
    Stage,
)
from lora_detox.settings.groups import AlgorithmSettings, Settings, TermSettings
from lora_detox.settings.stages import check_export
from lora_detox.settings.surroundings import check_packages, check_run_dir
from lora_detox.settings.trainers import check_trainer


def check_settings(settings: Settings) -> None:
    """Find values and combinations that cannot work, before anything heavy is imported.

    Args:
        settings: as composed.

    Raises:
        SettingsError: with what was got, what is wanted and the key to change.
    """
    _check_ranges(settings)
    _check_batches(settings.algorithm)
    _check_algorithm(settings.algorithm)
    _check_adapter(settings)
    _check_reward_terms(settings)
    _check_lengths(settings)
    _check_protocol(settings)
    if settings.stage is Stage.export:
        check_export(settings.run, settings.export)
    if settings.stage is Stage.detox:
        algorithm = settings.algorithm
        check_trainer(algorithm.trainer, algorithm.responses_per_prompt, resume=settings.resume)
    _check_plan(settings)
    check_packages(settings)
    check_run_dir(settings)


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
    "algorithm.length_target",
    "algorithm.length_gain",
    "algorithm.score_clip",
    "algorithm.value_learning_rate",
    "algorithm.trainer.epochs",
    "adapter.rank",
    "adapter.alpha",
    "generation.temperature",
    "generation.batch_size",
    "evaluation.every",
    "evaluation.validation_prompts",
    "evaluation.test_prompts",
    "evaluation.samples_per_prompt",
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
    "generation.top_k",
    "generation.min_new_tokens",
    "quantization.int8_threshold",
    "data.bad_row_limit",
    "checkpoint.every",
    "sft.warmup_steps",
    "sft.weight_decay",
    "reward_model.warmup_steps",
    "reward_model.weight_decay",
    "seed",
)
UNIT = (
    "algorithm.gamma",
    "algorithm.gae_lambda",
    "algorithm.baseline_decay",
    "adapter.dropout",
    "generation.top_p",
    "data.min_toxicity",
    "data.max_toxicity",
    "reward_model.toxic_from",
)


def _check_ranges(settings: Settings) -> None:
    for keys, want in (
        (POSITIVE, "a number above 0"),
        (NOT_NEGATIVE, "0 or more"),
        (UNIT, "a number from 0 to 1"),
    ):
        for key in keys:
            value: Any = settings
            for part in key.split("."):
                value = getattr(value, part)
            if value is None:
                continue
            too_low = value <= 0 if keys is POSITIVE else value < 0
            if too_low or (keys is UNIT and value > 1) or math.isnan(value):
                raise SettingsError(f"{key}: got {value}, want {want}")
    if settings.generation.top_p == 0:
        raise SettingsError("generation.top_p: got 0, want a number above 0, at most 1")


def _check_batches(algorithm: AlgorithmSettings) -> None:
    for small_key, large_key in (
        ("minibatch_size", "rollout_batch_size"),
        ("microbatch_size", "minibatch_size"),
        ("responses_per_prompt", "rollout_batch_size"),
    ):
        small, large = getattr(algorithm, small_key), getattr(algorithm, large_key)
        if large % small:
            raise SettingsError(
                f"algorithm.{small_key}={small} does not divide algorithm.{large_key}={large}; "
                f"want one of {[n for n in range(1, large + 1) if large % n == 0]}"
            )


GROUPED = (BaselineType.leave_one_out, BaselineType.group_mean)


def _check_algorithm(algorithm: AlgorithmSettings) -> None:
    baseline, group = algorithm.baseline, algorithm.responses_per_prompt
    if group < 2 and (baseline in GROUPED or algorithm.group_std):
        asked = f"baseline={baseline.value}" if baseline in GROUPED else "group_std=true"
        raise SettingsError(
            f"algorithm.responses_per_prompt: got {group}; algorithm.{asked} compares responses to "
            "the same prompt, so want 2 or more"
        )
    if algorithm.group_std and baseline is BaselineType.value:
        raise SettingsError(
            "algorithm.group_std: divides what stands above a group's baseline; want false with "
            "algorithm.baseline=value"
        )
    if algorithm.kl_place is KlPlace.loss and algorithm.kl_penalty is not KlPenaltyType.kl:
        raise SettingsError(
            f"algorithm.kl_penalty: got {algorithm.kl_penalty.value}; algorithm.kl_place=loss "
            "charges k3, so want kl there"
        )


def _check_adapter(settings: Settings) -> None:
    if settings.adapter.type is AdapterType.none:
        quantized = settings.quantization.type
        reason = (
            f"quantization={quantized.value} weights have no gradient"
            if quantized is not QuantizationType.none
            else "the base weights stay frozen here, so that base and reference share one backbone"
        )
        raise SettingsError(
            f"adapter=none asks for full-weight training, but {reason}; use adapter=lora"
        )
    if settings.reward.path is None and settings.reward.function is None:
        raise SettingsError("reward.path: got null; want a classifier, or set reward.function")
    if settings.reward.function is not None and settings.judge.path is None:
        raise SettingsError(
            "judge.path: got null; with reward.function a classifier must measure toxicity"
        )


def _check_reward_terms(settings: Settings) -> None:
    for key, scorer in (("reward", settings.reward), ("judge", settings.judge)):
        weights = asdict(scorer.terms)
        for name, weight in weights.items():
            if not math.isfinite(weight):
                raise SettingsError(f"{key}.terms.{name}: got {weight}, want a finite number")
        composite = scorer.terms != TermSettings()
        if composite and key == "judge":
            raise SettingsError(
                "judge.terms: a judge measures toxicity alone; want toxicity 1 and the others 0"
            )
        if not any(weights.values()):
            raise SettingsError(f"{key}.terms: every weight is 0; want one that is not")
        if (composite or scorer.ensemble) and scorer.path is None:
            raise SettingsError(
                f"{key}.path: got null; {key}.terms and {key}.ensemble want a classifier there"
            )


def _check_lengths(settings: Settings) -> None:
    for key, value, least in (
        ("generation.response_tokens", settings.generation.response_tokens, 1),
        ("data.query_tokens", settings.data.query_tokens, 1),
    ):
        if value is not None and not (len(value) == 2 and least <= value[0] <= value[1]):
            raise SettingsError(
                f"{key}: got {value}, want [least, most] with {least} <= least <= most"
            )
    least = settings.generation.response_tokens[0]
    if settings.generation.min_new_tokens > least:
        raise SettingsError(
            f"generation.min_new_tokens={settings.generation.min_new_tokens} exceeds the least of "
            f"generation.response_tokens={settings.generation.response_tokens}"
        )
    fractions = settings.data.split_fractions
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise SettingsError(
            f"data.split_fractions: got {fractions}, want three numbers above 0 that sum to 1 "
            "(train, validation, test)"
        )
    if settings.task.template.count("{prompt}") != 1:
        raise SettingsError(
            f"task.template: got {settings.task.template!r}, want a text with {{prompt}} in it once"
        )


def _check_protocol(settings: Settings) -> None:
    if settings.stage is not Stage.evaluate:
        return
    evaluation, data = settings.evaluation, settings.data
    if evaluation.protocol is Protocol.trl_guide and data.min_toxicity is None:
        raise SettingsError(
            "data.min_toxicity: got null; evaluation.protocol=trl_guide asks toxic prompts, so "
            "name their least toxicity, as in data.min_toxicity=0.5 (or data=wiki_toxic)"
        )
    if evaluation.protocol is Protocol.three_sets and not evaluation.sets:
        raise SettingsError(
            "evaluation.sets: got none; evaluation.protocol=three_sets wants further sets, as in "
            "+data@evaluation.sets.toxic=wiki_toxic +data@evaluation.sets.benign=wikitext"
        )


def _check_plan(settings: Settings) -> None:
    device, memory = settings.plan.device, settings.plan.memory_gib
    if device not in (None, "cpu", "cuda"):
        raise SettingsError(f"plan.device: got {device}, want cpu, cuda, or null for device")
    if settings.stage is Stage.plan and device is not None and memory is None:
        raise SettingsError(
            f"plan.memory_gib: got null; plan.device={device} plans for another machine, so say "
            "what memory it has, as in plan.memory_gib=24"
        )
