"""The schema of conf/algorithm: the update and its numbers."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from lora_detox.choices import (
    Baseline,
    KlControlType,
    KlLevel,
    KlPenalty,
    KlPlace,
    LossMean,
    Schedule,
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
class AlgorithmSettings:
    """conf/algorithm: the update and its numbers."""

    name: str = MISSING
    baseline: Baseline = Baseline.value
    responses_per_prompt: int = positive(1)
    group_std: bool = False
    baseline_decay: float = fraction(0.9)
    average: float | None = inner_fraction(None)
    credit_every: int | None = positive(None, "tokens")
    loss_mean: LossMean = LossMean.token
    iterations: int = positive(MISSING)
    rollout_batch_size: int = positive(MISSING, "responses")
    minibatch_size: int = positive(MISSING, "responses")
    microbatch_size: int = positive(MISSING, "responses")
    microbatch_tokens: int | None = positive(None, "tokens")
    ppo_epochs: int = positive(MISSING)
    learning_rate: float = positive(MISSING)
    value_learning_rate: float | None = positive(None)
    schedule: Schedule = Schedule.constant
    warmup_iterations: int = not_negative(0, "iterations")
    weight_decay: float = not_negative(0.0)
    kl_control: KlControlType = KlControlType.adaptive
    kl_coef: float = not_negative(0.2, "score units per nat")
    kl_target: float = positive(6.0, "nats per response")
    kl_horizon: float = positive(10000, "responses")
    kl_penalty: KlPenalty = KlPenalty.kl
    kl_level: KlLevel = KlLevel.token
    kl_place: KlPlace = KlPlace.reward
    gamma: float = fraction(1.0)
    gae_lambda: float = fraction(0.95)
    clip_range: float = positive(0.2)
    value_clip_range: float = positive(0.2, "score units")
    value_coef: float = not_negative(0.1)
    max_grad_norm: float | None = positive(None)
    target_kl: float | None = positive(None, "nats per token")
    step_kl: float | None = positive(0.001, "nats per token")
    ratio_threshold: float = positive(10.0)
    scale_scores: bool = True
    center_scores: bool = True
    score_clip: float | None = positive(None, "score units")
    length_neutral: bool = False
    length_target: float | None = positive(None, "as a fraction of the start's")
    length_both_ways: bool = False
    length_gain: float = positive(0.1)
    length_damping: float = positive(30.0)
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
