"""Settings -> the plain arguments of each stage of the arrow."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from math import cos, pi
from typing import Any

import torch

from lora_detox.advantages import (
    AdvantagePlan,
    Baseline,
    LengthCorrection,
    RunningMean,
    ScoreScaler,
)
from lora_detox.advantages.kl_penalty import KlPenalty
from lora_detox.machine import resolve_device
from lora_detox.metrics import names
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.rollout import Passes
from lora_detox.settings import (
    AlgorithmSettings,
    BaselineType,
    KlControlType,
    KlLevel,
    KlPlace,
    LossMean,
    Schedule,
    Settings,
)
from lora_detox.types import Sampling
from lora_detox.update import (
    AdaptiveKl,
    Bound,
    Budget,
    Constraint,
    FixedKl,
    Guard,
    GuardLimits,
    KlControl,
    Pays,
    PpoPlan,
    StepControl,
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the main path needs of the settings.

    Attributes:
        iterations: turns of the arrow.
        sampling: how tokens are drawn in training.
        generation: further arguments of `generate_responses`.
        collection: further arguments of `collect_rollout`.
        advantages: how scores become advantages.
        ppo: numbers of the update.
    """

    iterations: int
    sampling: Sampling
    generation: dict[str, Any]
    collection: dict[str, Any]
    advantages: AdvantagePlan
    ppo: PpoPlan


def sampling_of(settings: Settings) -> Sampling:
    """How tokens are drawn in training."""
    generation = settings.generation
    return Sampling(
        temperature=generation.temperature,
        top_k=generation.top_k,
        top_p=generation.top_p,
        min_new_tokens=generation.min_new_tokens,
    )


def plan_of(settings: Settings, dtype: torch.dtype) -> Plan:
    """The plan of a detox run with a backbone of some dtype."""
    algorithm, generation = settings.algorithm, settings.generation
    penalty = KlPenalty(algorithm.kl_penalty.value)
    least, most = generation.response_tokens
    return Plan(
        iterations=algorithm.iterations,
        sampling=sampling_of(settings),
        generation={"response_tokens": (least, most), "batch_size": generation.batch_size},
        collection={
            "minibatch_size": algorithm.minibatch_size,
            "passes": passes(settings, dtype),
            "full_kl": penalty is KlPenalty.FULL,
        },
        advantages=AdvantagePlan(
            kl_penalty=penalty,
            gamma=algorithm.gamma,
            gae_lambda=algorithm.gae_lambda,
            whiten_rewards=algorithm.whiten_rewards,
            whiten_advantages=algorithm.whiten_advantages,
            baseline=Baseline(algorithm.baseline.value),
            responses_per_prompt=algorithm.responses_per_prompt,
            group_std=algorithm.group_std,
            sequence_level=algorithm.kl_level is KlLevel.sequence,
            kl_in_loss=algorithm.kl_place is KlPlace.loss,
            mean_by_response=algorithm.loss_mean is LossMean.response,
        ),
        ppo=PpoPlan(**_same_names(PpoPlan, algorithm)),
    )


def _same_names(kind: type, group: Any) -> dict[str, Any]:
    """The values of a settings group under the names of a dataclass's fields."""
    return {entry.name: getattr(group, entry.name) for entry in fields(kind)}


def passes(settings: Settings, dtype: torch.dtype) -> Passes:
    """How rows are cut into forward passes on the device of the run, in the backbone's dtype."""
    algorithm = settings.algorithm
    device = resolve_device(settings.device)
    return Passes.on(device, algorithm.microbatch_size, algorithm.microbatch_tokens, dtype=dtype)


def backbone_plan(settings: Settings, path: str) -> BackbonePlan:
    """Which backbone to load; `path` is `policy.path` after embedded names are resolved."""
    policy, quantization = settings.policy, settings.quantization
    return BackbonePlan(
        path=path,
        revision=policy.revision,
        adapter=policy.adapter,
        dtype=policy.dtype.value,
        quantization=quantization.type.value,
        int8_threshold=quantization.int8_threshold,
        double_quant=quantization.double_quant,
        device=settings.device,
        gradient_checkpointing=policy.gradient_checkpointing,
        allow_fp16_t5=policy.allow_fp16_t5,
        value_head=settings.algorithm.baseline is BaselineType.value,
    )


def adapter_plan(settings: Settings) -> AdapterPlan:
    """Which adapter to put on it."""
    adapter = settings.adapter
    return AdapterPlan(
        rank=adapter.rank,
        alpha=adapter.alpha,
        dropout=adapter.dropout,
        targets=tuple(adapter.targets),
        scope=adapter.scope,
        rslora=adapter.rslora,
        dora=adapter.dora,
    )


def kl_control(algorithm: AlgorithmSettings) -> KlControl:
    """Adaptive or fixed price of a nat."""
    if algorithm.kl_control is KlControlType.fixed:
        return FixedKl(kl_coef=algorithm.kl_coef)
    return AdaptiveKl(
        kl_coef=algorithm.kl_coef, target=algorithm.kl_target, horizon=algorithm.kl_horizon
    )


def budget_of(settings: Settings, *, references: bool) -> Budget:
    """What is bound and held.

    Args:
        settings: conf/budget, and the length control of conf/algorithm.
        references: whether prompts have references, so that ROUGE-L is the quality; else it is
            the perplexity under the reference policy, and the length is bound too.

    Returns:
        Constraints and bounds; none with budget=off and no length target.
    """
    asked, algorithm = settings.budget, settings.algorithm
    measured: list[tuple[Pays, Bound]] = []
    if references and asked.rouge_l is not None:
        bound = Bound(measure=names.ROUGEL, above=False, allowed=asked.rouge_l)
        measured.append((Pays.QUALITY, bound))
    if not references and asked.perplexity is not None:
        bound = Bound(measure=names.PERPLEXITY, above=True, allowed=asked.perplexity)
        measured.append((Pays.REFERENCE, bound))
    if asked.distinct_2 is not None:
        bound = Bound(measure=names.DISTINCT_2, above=False, allowed=asked.distinct_2)
        measured.append((Pays.SURPRISE, bound))
    held = [
        Constraint(
            bound=_aimed(bound, asked.aim),
            pays=pays,
            gain=asked.distinct_2_gain if pays is Pays.SURPRISE else asked.gain,
            damping=asked.damping,
            smoothing=asked.smoothing,
        )
        for pays, bound in measured
    ]
    bounds = [bound for _, bound in measured]
    if asked.kl is not None:
        bounds.append(Bound(measure=names.REF_KL, above=True, limit_at=asked.kl))
        held.append(
            Constraint(
                bound=bounds[-1],
                pays=Pays.KL,
                gain=asked.gain,
                damping=asked.damping,
                start=0.0,
            )
        )
    least = None if references else asked.length
    if least is not None:
        for measure in (names.RESPONSE_TOKENS, names.RESPONSE_WORDS):
            bounds.append(Bound(measure=measure, above=False, allowed=1 - least))
    shares = [share for share in (least, algorithm.length_target) if share is not None]
    if shares:
        length = Bound(measure=names.TYPICAL_WORDS, above=False, allowed=1 - max(shares))
        held.append(
            Constraint(
                bound=length,
                pays=Pays.WORD,
                gain=algorithm.length_gain,
                damping=algorithm.length_damping,
                both_ways=algorithm.length_both_ways,
            )
        )
    return Budget(held, bounds)


def _aimed(bound: Bound, aim: float) -> Bound:
    """What training aims at: a share of what is allowed; an improvement that is asked for stays."""
    return replace(bound, allowed=aim * bound.allowed) if bound.allowed > 0 else bound


def guard_of(settings: Settings) -> Guard | None:
    """What counts as collapse; None where nobody watches."""
    asked = settings.guard
    if not asked.enabled:
        return None
    limits = GuardLimits(**_same_names(GuardLimits, asked))
    return Guard(limits=limits, retries=asked.retries)


def score_scaler(algorithm: AlgorithmSettings) -> ScoreScaler:
    """How scores are brought to one scale."""
    return ScoreScaler(
        scale=algorithm.scale_scores, center=algorithm.center_scores, clip=algorithm.score_clip
    )


def length_correction(algorithm: AlgorithmSettings) -> LengthCorrection:
    """Whether scores are freed of what length predicts."""
    return LengthCorrection(enabled=algorithm.length_neutral)


def step_control(algorithm: AlgorithmSettings) -> StepControl:
    """How far an update may move the policy before the learning rate falls."""
    return StepControl(target=algorithm.step_kl)


def running_mean(algorithm: AlgorithmSettings) -> RunningMean:
    """The baseline of earlier iterations; unused by the other baselines."""
    return RunningMean(decay=algorithm.baseline_decay)


def learning_rate_schedule(
    algorithm: AlgorithmSettings, guard: Guard | None = None, step: StepControl | None = None
) -> Callable[[int], float]:
    """Factor on the learning rates by iteration: warm-up, then constant, linear or cosine to 0.

    Args:
        algorithm: schedule and warm-up.
        guard: its factor of now is applied on top.
        step: likewise.

    Returns:
        Iteration, from 0 -> factor.
    """
    warmup, total = algorithm.warmup_iterations, algorithm.iterations

    def factor(iteration: int) -> float:
        if iteration < warmup:
            return (iteration + 1) / (warmup + 1)
        progress = (iteration - warmup) / max(1, total - warmup)
        if algorithm.schedule is Schedule.linear:
            return 1 - progress
        if algorithm.schedule is Schedule.cosine:
            return 0.5 * (1 + cos(pi * progress))
        return 1.0

    def controlled(iteration: int) -> float:
        of_guard = 1.0 if guard is None else guard.step_factor
        return factor(iteration) * of_guard * (1.0 if step is None else step.factor)

    return controlled
