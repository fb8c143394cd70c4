"""Settings -> the controllers that move between iterations."""

from dataclasses import replace

from lora_detox.advantages import LengthCorrection, RunningMean, ScoreScaler
from lora_detox.choices import Diversity, KlControlType, ScoreNorm
from lora_detox.metrics import names
from lora_detox.settings import AlgorithmSettings, BudgetSettings, Settings
from lora_detox.update import (
    AdaptiveKl,
    Bound,
    Budget,
    CollapseGuard,
    Constraint,
    FixedKl,
    KlControl,
    NewBigrams,
    PenaltyTerm,
    StepControl,
)

_ANY = 0.01
"""Fraction of the start's words where no least is asked for."""
WHOLE_OF_SYMBOLS = 0.01
"""Fraction of characters that counts as 100 % of digits and markup: prose has 0.3 to 1.3 %."""


def kl_control(algorithm: AlgorithmSettings) -> KlControl:
    """What sets the KL coefficient: a fixed number, or control towards a target."""
    kl = algorithm.kl
    if kl.control is KlControlType.fixed:
        return FixedKl(kl_coef=kl.coef)
    return AdaptiveKl(kl_coef=kl.coef, target=kl.target, horizon=kl.horizon)


def budget_of(settings: Settings, *, references: bool) -> Budget:
    """What is bound, and held by multipliers in training.

    Args:
        settings: conf/budget, and the length controller of algorithm.expert.
        references: whether prompts have references, so that ROUGE-L is the quality; else it is
            the perplexity under the reference policy.

    Returns:
        Constraints and bounds; none with budget=off and budget.words=null.
    """
    budget, controller = settings.budget, settings.budget.controller
    measured = _quality_bounds(budget, references=references)
    gains = {
        names.DISTINCT_2: controller.distinct_2_gain,
        names.RELEVANCE: controller.relevance_gain,
        names.SIMILARITY: controller.relevance_gain,
    }
    held = [
        Constraint(
            bound=_with_margin(bound, controller.margin),
            term=term,
            gain=gains.get(bound.measure, controller.gain),
            damping=controller.damping,
            smoothing=controller.smoothing,
            pressure=controller.multipliers.get(bound.measure, 0.0),
            multiplier=controller.multipliers.get(bound.measure, 0.0),
        )
        for term, bound in measured
    ]
    bounds = [bound for _, bound in measured]
    if budget.kl is not None:
        bounds.append(Bound(measure=names.REF_KL, above=True, limit_at=budget.kl))
        held.append(
            Constraint(
                bound=bounds[-1],
                term=PenaltyTerm.KL,
                gain=controller.gain,
                damping=controller.damping,
                start=0.0,
                pressure=controller.multipliers.get(names.REF_KL, 0.0),
                multiplier=controller.multipliers.get(names.REF_KL, 0.0),
            )
        )
    if budget.length is not None or budget.length_most is not None:
        for measure in (names.RESPONSE_TOKENS, names.RESPONSE_WORDS):
            least = 0.0 if budget.length is None else budget.length
            most = budget.length_most
            bounds.append(Bound(measure=measure, above=False, allowed=1 - least, most=most))
    return Budget(held + _held_words(settings), bounds)


def _quality_bounds(budget: BudgetSettings, *, references: bool) -> list[tuple[PenaltyTerm, Bound]]:
    """Bounds on quality and diversity, each with what its multiplier weighs."""
    measured = []
    if references and budget.rouge_l is not None:
        bound = Bound(measure=names.ROUGEL, above=False, allowed=budget.rouge_l)
        measured.append((PenaltyTerm.QUALITY, bound))
    if not references and budget.perplexity is not None:
        bound = Bound(measure=names.PERPLEXITY, above=True, allowed=budget.perplexity)
        measured.append((PenaltyTerm.REFERENCE, bound))
    if budget.distinct_2 is not None:
        bound = Bound(measure=names.DISTINCT_2, above=False, allowed=budget.distinct_2)
        pays_entropy = budget.controller.distinct_2_pays is Diversity.entropy
        term = PenaltyTerm.SURPRISE if pays_entropy else PenaltyTerm.BIGRAMS
        measured.append((term, bound))
    if budget.relevance is not None:
        bound = Bound(measure=names.RELEVANCE, above=False, allowed=budget.relevance)
        measured.append((PenaltyTerm.QUALITY, bound))
    if budget.similarity is not None:
        bound = Bound(measure=names.SIMILARITY, above=False, allowed=budget.similarity)
        measured.append((PenaltyTerm.QUALITY, bound))
    if budget.symbols is not None:
        bound = Bound(
            measure=names.SYMBOLS, above=True, plus=budget.symbols, whole=WHOLE_OF_SYMBOLS
        )
        measured.append((PenaltyTerm.QUALITY, bound))
    return measured


def new_bigrams_of(budget: Budget) -> NewBigrams | None:
    """What finds the new pairs of words that a constraint pays for; None where none does."""
    paid = any(one.term is PenaltyTerm.BIGRAMS for one in budget.constraints.values())
    return NewBigrams() if paid else None


def _held_words(settings: Settings) -> list[Constraint]:
    """The words of a response, held by budget.words and within the bounds on the length."""
    budget, expert = settings.budget, settings.algorithm.expert
    own = budget.words or (None, None)
    least = [one for one in (budget.length, own[0]) if one is not None]
    most = [one for one in (budget.length_most, own[1]) if one is not None]
    if not least and not most:
        return []
    measure = names.TYPICAL_WORDS
    upper = Bound(measure=measure, above=True, allowed=min(most) - 1) if most else None
    return [
        Constraint(
            bound=Bound(measure=measure, above=False, allowed=1 - max(least, default=_ANY)),
            term=PenaltyTerm.WORD,
            gain=expert.length_gain,
            damping=expert.length_damping,
            most=upper,
        )
    ]


def _with_margin(bound: Bound, margin: float) -> Bound:
    """What training aims at: inside what is allowed; a required improvement stays as it is."""
    if bound.plus is not None:
        return replace(bound, plus=(1 - margin) * bound.plus)
    return replace(bound, allowed=(1 - margin) * bound.allowed) if bound.allowed > 0 else bound


def guard_of(settings: Settings) -> CollapseGuard | None:
    """What counts as collapse; None where it is off."""
    guard = settings.guard
    if not guard.enabled:
        return None
    return CollapseGuard(limits=guard, retries=guard.retries)


def score_scaler(algorithm: AlgorithmSettings) -> ScoreScaler:
    """How scores are brought to one scale."""
    return ScoreScaler(
        scale=algorithm.score_norm is not ScoreNorm.none,
        center=algorithm.score_norm is ScoreNorm.whiten,
        clip=algorithm.expert.score_clip,
    )


def length_correction(settings: Settings) -> LengthCorrection:
    """Whether scores are freed of what length predicts: the task says so, the reward may differ."""
    own = settings.reward.length_debias
    return LengthCorrection(enabled=settings.task.length_debias if own is None else own)


def step_control(algorithm: AlgorithmSettings) -> StepControl:
    """How far an update may move the policy before the learning rate falls."""
    return StepControl(target=algorithm.step_kl)


def running_mean(algorithm: AlgorithmSettings) -> RunningMean:
    """The baseline of earlier iterations; unused by the other baselines."""
    return RunningMean(decay=algorithm.expert.baseline_decay)
