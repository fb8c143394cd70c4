"""Settings -> the controllers that move between iterations."""

from dataclasses import fields, replace
from typing import Any

from lora_detox.advantages import LengthCorrection, RunningMean, ScoreScaler
from lora_detox.choices import KlControlType
from lora_detox.metrics import names
from lora_detox.settings import AlgorithmSettings, Settings
from lora_detox.update import (
    AdaptiveKl,
    Bound,
    Budget,
    CollapseGuard,
    Constraint,
    FixedKl,
    KlControl,
    PenaltyTerm,
    StepControl,
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
    measured: list[tuple[PenaltyTerm, Bound]] = []
    if references and asked.rouge_l is not None:
        bound = Bound(measure=names.ROUGEL, above=False, allowed=asked.rouge_l)
        measured.append((PenaltyTerm.QUALITY, bound))
    if not references and asked.perplexity is not None:
        bound = Bound(measure=names.PERPLEXITY, above=True, allowed=asked.perplexity)
        measured.append((PenaltyTerm.REFERENCE, bound))
    if asked.distinct_2 is not None:
        bound = Bound(measure=names.DISTINCT_2, above=False, allowed=asked.distinct_2)
        measured.append((PenaltyTerm.SURPRISE, bound))
    held = [
        Constraint(
            bound=_aimed(bound, asked.aim),
            term=term,
            gain=asked.distinct_2_gain if term is PenaltyTerm.SURPRISE else asked.gain,
            damping=asked.damping,
            smoothing=asked.smoothing,
        )
        for term, bound in measured
    ]
    bounds = [bound for _, bound in measured]
    if asked.kl is not None:
        bounds.append(Bound(measure=names.REF_KL, above=True, limit_at=asked.kl))
        held.append(
            Constraint(
                bound=bounds[-1],
                term=PenaltyTerm.KL,
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
                term=PenaltyTerm.WORD,
                gain=algorithm.length_gain,
                damping=algorithm.length_damping,
                both_ways=algorithm.length_both_ways,
            )
        )
    return Budget(held, bounds)


def _aimed(bound: Bound, aim: float) -> Bound:
    """What training aims at: a share of what is allowed; an improvement that is asked for stays."""
    return replace(bound, allowed=aim * bound.allowed) if bound.allowed > 0 else bound


def guard_of(settings: Settings) -> CollapseGuard | None:
    """What counts as collapse; None where nobody watches."""
    asked = settings.guard
    if not asked.enabled:
        return None
    return CollapseGuard(limits=asked, retries=asked.retries)


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


def same_names(kind: type, group: Any) -> dict[str, Any]:
    """The values of a settings group under the names of a dataclass's fields."""
    return {entry.name: getattr(group, entry.name) for entry in fields(kind)}
