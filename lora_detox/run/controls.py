"""Everything that moves between iterations, as one thing: observed, saved, restored, rewound."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from lora_detox.advantages import LengthCorrection, RunningMean, ScoreScaler
from lora_detox.metrics import names
from lora_detox.metrics.diversity import lettered_words
from lora_detox.metrics.quality import RolloutQuality
from lora_detox.types import Rollout, Scores, UpdateStats
from lora_detox.update import (
    Budget,
    CollapseGuard,
    FixedKl,
    KlControl,
    NewBigrams,
    StepControl,
)

PrefixCredit = Callable[[Rollout, Float[Tensor, "B"]], Float[Tensor, "B R"]]
"""Rollout and corrected scores [B] -> which tokens changed the score [B, R], score units."""


class Shaped(NamedTuple):
    """What the advantages are estimated from.

    Attributes:
        score: one number per response [B], corrected and scaled, higher is better.
        kl_coef: KL coefficient of this iteration, score units per nat.
        token_bonus: what each token earns beside the score [B, R], score units, 0 at padding.
    """

    score: Float[Tensor, "B"]
    kl_coef: float
    token_bonus: Float[Tensor, "B R"]


@dataclass(kw_only=True)
class Controls:
    """Controllers and running statistics of a run.

    Attributes:
        kl: sets the KL coefficient.
        step: lowers the learning rate where an update moves the policy too far.
        scaler: brings scores to one scale.
        length: takes out of the score what the length of a response predicts.
        baseline: mean return of earlier iterations, for algorithms that compare with it.
        budget: constraints with their multipliers, and the bounds of the result.
        guard: collapse guard; None where there is none.
        credit: which tokens changed the score; None gives each score to its last token alone.
        word_starts: True at tokens of the vocabulary that begin a word [V].
        new_bigrams: what each word adds to distinct-2; None where nothing is paid for it.
    """

    kl: KlControl = field(default_factory=lambda: FixedKl(kl_coef=0.0))
    step: StepControl = field(default_factory=lambda: StepControl(target=None))
    scaler: ScoreScaler = field(default_factory=ScoreScaler)
    length: LengthCorrection = field(default_factory=lambda: LengthCorrection(enabled=False))
    baseline: RunningMean = field(default_factory=RunningMean)
    budget: Budget = field(default_factory=lambda: Budget([], []))
    guard: CollapseGuard | None = None
    credit: PrefixCredit | None = None
    word_starts: Bool[Tensor, "V"] | None = None
    new_bigrams: NewBigrams | None = None

    def shape(self, rollout: Rollout, scores: Scores, quality: RolloutQuality) -> Shaped:
        """Scores as training sees them, with what is charged and earned beside them.

        Args:
            rollout: B responses.
            scores: of the reward.
            quality: of the rollout; what is bound by response among it.

        Returns:
            Score, KL coefficient and token bonus of this iteration; the score statistics have
            learned the batch.
        """
        words = [lettered_words(text) for text in rollout.response_texts]
        self.length.observe(scores.score, words)
        corrected = self.length(scores.score, words)
        credit = None if self.credit is None else self.credit(rollout, corrected)
        score = self.scaler(corrected)
        begins = None if self.word_starts is None else self.word_starts[rollout.response_ids]
        new = None
        if self.new_bigrams is not None and begins is not None:
            new = self.new_bigrams(rollout.response_texts, begins, rollout.response_mask)
        bonus = self.budget.token_bonus(rollout, quality.per_response, begins, new)
        if credit is not None:
            bonus = bonus + self.scaler.factor * credit
        return Shaped(score, self._kl_coef(), bonus)

    def _kl_coef(self) -> float:
        """Higher after each time that the run went back, and where the KL is over its bound."""
        factor = 1.0 if self.guard is None else self.guard.kl_factor
        return factor * self.kl.kl_coef + self.budget.added_kl_coef()

    def learning_rate_factor(self) -> float:
        """On the scheduled learning rates, in (0, 1]."""
        return self.step.factor * (1.0 if self.guard is None else self.guard.step_factor)

    def columns(self) -> dict[str, float]:
        """Their numbers of this iteration, for metrics.jsonl."""
        return {
            **self.budget.columns(),
            "score_std": self.scaler.std,
            "length_slope": self.length.slope,
            "step_factor": self.step.factor,
        }

    def observe(self, measures: Mapping[str, float], stats: UpdateStats, responses: int) -> None:
        """Learn what an iteration brought; the next one is shaped by it.

        Args:
            measures: of the rollout, by names of `metrics.names`.
            stats: of the update.
            responses: how many there were.
        """
        self.kl.update(measures[names.REF_KL], responses)
        self.step.update(stats.moved_kl)
        self.budget.observe(measures)

    def state(self) -> dict[str, Any]:
        """For a checkpoint; what JSON can hold."""
        guard = None if self.guard is None else self.guard.state()
        return {name: part.state() for name, part in self._rewound().items()} | {"guard": guard}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.rewind(state)
        if self.guard is not None:
            self.guard.restore(state["guard"])

    def rewind(self, state: Mapping[str, Any]) -> None:
        """Go back to an earlier state; the collapse guard keeps count of how often that was."""
        for name, part in self._rewound().items():
            part.restore(state[name])

    def _rewound(self) -> dict[str, Any]:
        rewound = {
            "kl": self.kl,
            "step": self.step,
            "scaler": self.scaler,
            "length": self.length,
            "baseline": self.baseline,
            "budget": self.budget,
        }
        if self.new_bigrams is not None:
            rewound["new_bigrams"] = self.new_bigrams
        return rewound
