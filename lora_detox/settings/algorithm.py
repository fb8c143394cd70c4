"""The schema of conf/algorithm: the update and its numbers."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from lora_detox.choices import (
    Action,
    Baseline,
    KlCharge,
    KlControlType,
    LossMean,
    Schedule,
    ScoreNorm,
    TrainerKind,
)
from lora_detox.ranges import fraction, inner_fraction, not_negative, positive


@dataclass
class TrainerSettings:
    """conf/algorithm/trl_*.yaml and best_of_n.yaml: what those methods need of their own."""

    kind: TrainerKind = TrainerKind.native
    epochs: float = positive(1.0)
    beta: float = not_negative(0.1)
    least_gap: float = not_negative(0.0, "score units")


@dataclass
class KlSettings:
    """algorithm.kl: what distance to the reference costs."""

    control: KlControlType = KlControlType.adaptive
    coef: float = not_negative(0.2, "score units per nat")
    target: float = positive(6.0, "nats per response")
    horizon: float = positive(10000, "responses")
    charge: KlCharge = KlCharge.kl


@dataclass
class ExpertSettings:
    """algorithm.expert: what rarely needs a turn."""

    microbatch_tokens: int | None = positive(None, "tokens")
    weight_decay: float = not_negative(0.0)
    gamma: float = fraction(1.0)
    value_clip_range: float = positive(0.2, "score units")
    value_coef: float = not_negative(0.1)
    value_learning_rate: float | None = positive(None)
    ratio_threshold: float = positive(10.0)
    target_kl: float | None = positive(None, "nats per token")
    score_clip: float | None = positive(None, "score units")
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    baseline_decay: float = fraction(0.9)
    prefix_credit_every: int | None = positive(None, "tokens")
    length_gain: float = positive(0.1)
    length_damping: float = positive(30.0)


@dataclass
class AlgorithmSettings:
    """conf/algorithm: the update and its numbers."""

    name: str = MISSING
    baseline: Baseline = Baseline.value
    responses_per_prompt: int = positive(1)
    action: Action = Action.token
    iterations: int = positive(MISSING)
    rollout_batch_size: int = positive(MISSING, "responses")
    minibatch_size: int = positive(MISSING, "responses")
    microbatch_size: int = positive(MISSING, "responses")
    ppo_epochs: int = positive(4)
    learning_rate: float = positive(MISSING)
    schedule: Schedule = Schedule.constant
    warmup_iterations: int = not_negative(0, "iterations")
    step_kl: float | None = positive(0.001, "nats per token")
    average: float | None = inner_fraction(None)
    kl: KlSettings = field(default_factory=KlSettings)
    score_norm: ScoreNorm = ScoreNorm.whiten
    loss_mean: LossMean = LossMean.token
    gae_lambda: float = fraction(0.95)
    clip_range: float = positive(0.2)
    max_grad_norm: float | None = positive(None)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    expert: ExpertSettings = field(default_factory=ExpertSettings)
