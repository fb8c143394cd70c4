"""What training may cost: bounds on measures of the rollout, each held by a multiplier.

As little toxicity as possible within bounds is a constrained problem. Its Lagrangian adds a penalty
term for each measure, weighted by a multiplier. The multipliers follow the violation by
proportional-integral control with projection to >= 0 (Stooke et al. 2020, "Responsive Safety in RL
by PID Lagrangian Methods"). The response length is held in the same way: an empty response is civil
too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lora_detox.types import Rollout


@dataclass(frozen=True, kw_only=True)
class Bound:
    """How bad a measure may get.

    Attributes:
        measure: its name.
        above: True where more is worse (perplexity), False where less is (ROUGE-L).
        allowed: fraction of the start's value by which it may be worse.
        plus: how much worse it may be in its own unit, in the place of the fraction, for a measure
            that may start near 0; None takes the fraction.
        whole: least value that counts as 100 % of a measure with `plus`.
        limit_at: the limit itself, for a measure that starts at 0 (KL); None takes the fraction.
        most: the other side of a measure of which there may be too little and too much (length),
            fraction of the start's; None leaves it free.
    """

    measure: str
    above: bool
    allowed: float = 0.0
    plus: float | None = None
    whole: float = 1.0
    limit_at: float | None = None
    most: float | None = None

    @property
    def is_absolute(self) -> bool:
        """Whether the limit is no multiple of the start, which may then be 0 or less."""
        return self.limit_at is not None or self.plus is not None

    def limit(self, start: float) -> float:
        """The worst value that is inside, in the measure's unit."""
        if self.limit_at is not None:
            return self.limit_at
        if self.plus is not None:
            return start + self.plus if self.above else start - self.plus
        return start * (1 + self.allowed if self.above else 1 - self.allowed)

    def upper(self, start: float) -> float | None:
        """The largest value that is inside, where the other side is held too."""
        return None if self.most is None else self.most * start

    def excess(self, value: float, start: float) -> float:
        """Fraction of the limit by which a value is outside, <= 0 inside; 0 for a limit of 0.

        With `plus` the fraction is of `whole` where the limit is less: from a start of 0 to a
        little is no rise without bounds.
        """
        upper = self.upper(start)
        beyond = value / upper - 1 if upper else -math.inf
        return max(beyond, self._excess(value, start))

    def _excess(self, value: float, start: float) -> float:
        limit = self.limit(start)
        if self.plus is not None:
            outside = value - limit if self.above else limit - value
            return outside / max(limit, self.whole)
        if limit <= 0:
            return 0.0
        return value / limit - 1 if self.above else 1 - value / limit

    def better_by(self, values: Float[Tensor, "B"], start: float) -> Float[Tensor, "B"]:
        """How much better than the start each value is, fraction of the start; 0 for none > 0.

        With `plus` it is a fraction of the same number as the excess.
        """
        if self.plus is not None:
            better = start - values if self.above else values - start
            return better / max(self.limit(start), self.whole)
        if start <= 0:
            return torch.zeros_like(values)
        return 1 - values / start if self.above else values / start - 1


class PenaltyTerm(StrEnum):
    """What a multiplier weighs; too little of it is penalised.

    `word`: every token that begins a word, the w-th word in proportion to 1 / w. A response then
    earns about the log of its words: the second counts for more than the thirtieth. `reference`:
    the reference's logprob of each token, above its mean at the start. `surprise`: minus the
    policy's own logprob, above the batch's mean, which is an entropy bonus. `bigrams`: pairs of
    words that no other response has (`bigrams.NewBigrams`). `quality`: a number per response,
    relative to the start. `kl`: minus the KL, so the multiplier is added to the KL coefficient.
    """

    WORD = "word"
    REFERENCE = "reference"
    SURPRISE = "surprise"
    BIGRAMS = "bigrams"
    QUALITY = "quality"
    KL = "kl"


@dataclass
class Constraint:
    """A bound and the multiplier that holds it.

    Attributes:
        bound: what is held.
        term: what the multiplier weighs.
        gain: score units per unit of excess and iteration, > 0 (K_I).
        damping: weight of the excess of now beside the sum of those so far (K_P / K_I).
        smoothing: weight of the newest rollout in the running level, in (0, 1].
        most: where the measure is held from the other side too; between the two bounds the pressure
            goes back to 0. None leaves that side free.
        start: the measure at the start; None takes the first rollout, sampled by the policy of
            the start.
        level: running mean of the measure over rollouts, drawn halfway to each paired evaluation.
        pressure: integral of the excess, score units; below 0 only above `most`.
        multiplier: weight of the term in the next iteration, score units for 100 % of the
            measure; below 0 only above `most`.
    """

    bound: Bound
    term: PenaltyTerm
    gain: float
    damping: float = 2.0
    smoothing: float = 1.0
    most: Bound | None = None
    start: float | None = None
    level: float | None = None
    pressure: float = 0.0
    multiplier: float = 0.0

    def observe(self, value: float) -> None:
        """Learn the measure of a rollout and move the multiplier."""
        self.start = value if self.start is None else self.start
        before = value if self.level is None else self.level
        self.level = before + self.smoothing * (value - before)
        excess = self.excess()
        step = self.gain * excess
        inside = self.most is not None and self._beyond_most() < 0 and self._short() < 0
        low = 0.0 if self.most is None or (inside and self.pressure >= 0) else -math.inf
        high = 0.0 if inside and self.pressure <= 0 else math.inf
        self.pressure = min(high, max(low, self.pressure + step))
        self.multiplier = min(high, max(low, self.pressure + self.damping * step))

    def excess(self) -> float:
        """Fraction of the limit by which the running level is outside; 0 before a rollout.

        Below 0 it is inside, or above `most`. Within a band it has the sign that takes the pressure
        back to 0.
        """
        if self.level is None or self.start is None:
            return 0.0
        short = self._short()
        if self.most is None or short > 0:
            return short
        beyond = self._beyond_most()
        if beyond >= 0:
            return -beyond
        return short if self.pressure > 0 else -beyond if self.pressure < 0 else 0.0

    def _short(self) -> float:
        return self.bound.excess(self.level or 0.0, self.start or 0.0)

    def _beyond_most(self) -> float:
        if self.most is None:
            return -math.inf
        return self.most.excess(self.level or 0.0, self.start or 0.0)

    def correct(self, value: float, start: float) -> None:
        """Learn the measure on validation prompts and what it was there at the start.

        Prompts and draws are the same both times and training never saw them, but they are few:
        the running level goes half of the way.
        """
        if self.bound.plus is not None and self.start is not None and self.level is not None:
            self.level += 0.5 * (self.start + value - start - self.level)
        elif self.start is not None and self.level is not None and start > 0:
            self.level += 0.5 * (self.start * value / start - self.level)

    def limit(self) -> float:
        """The bound in the measure's unit."""
        if self.start is None:
            raise ValueError(f"the start's {self.bound.measure} is not known yet")
        return self.bound.limit(self.start)


def _log_length(begins: Bool[Tensor, "B R"], words: float) -> Float[Tensor, "B R"]:
    """1 / w at the w-th word of each response, scaled so that one of that many words earns 1."""
    whole = sum(1 / w for w in range(1, max(1, round(words)) + 1))
    return begins / (whole * begins.cumsum(dim=1).clamp(min=1))


_KEPT = ("start", "level", "pressure", "multiplier")


class Budget:
    """Constraints that training is penalised by, and the bounds that a result must keep.

    Args:
        constraints: each with its multiplier.
        bounds: what the result is held to; may differ from what training aims at.
    """

    def __init__(self, constraints: Sequence[Constraint], bounds: Sequence[Bound]) -> None:
        self.constraints = {one.bound.measure: one for one in constraints}
        self.bounds = {one.measure: one for one in bounds}

    def token_bonus(
        self,
        rollout: Rollout,
        quality: Mapping[str, Float[Tensor, "B"]] | None = None,
        begins: Bool[Tensor, "B R"] | None = None,
        new_bigrams: Float[Tensor, "B R"] | None = None,
    ) -> Float[Tensor, "B R"]:
        """What each token earns beside the score, score units, 0 at padding.

        Args:
            rollout: logprobs and reference logprobs.
            quality: measure -> one number of each response; what is bound and not in it earns
                nothing.
            begins: True at tokens that begin a word; None takes every token.
            new_bigrams: of `NewBigrams`; None where no constraint weighs them.

        Returns:
            The sum over the constraints, with the multipliers of the iterations before.
        """
        mask, quality = rollout.response_mask, quality or {}
        bonus = torch.zeros_like(rollout.logprobs)
        tokens = mask.sum()
        per_token = len(mask) / tokens  # 1 / mean length: a response's sum is then a mean
        for name, one in self.constraints.items():
            if one.multiplier == 0 or one.start is None:
                continue
            if one.term is PenaltyTerm.WORD:
                bonus += one.multiplier * _log_length(
                    mask if begins is None else begins, one.limit()
                )
            elif one.term is PenaltyTerm.REFERENCE:
                mean_at_start = -math.log(one.start)  # a perplexity
                bonus += one.multiplier * per_token * (rollout.ref_logprobs - mean_at_start)
            elif one.term is PenaltyTerm.SURPRISE:
                mean = (rollout.logprobs * mask).sum() / tokens
                bonus -= one.multiplier * per_token * (rollout.logprobs - mean)
            elif one.term is PenaltyTerm.BIGRAMS and new_bigrams is not None:
                bonus += one.multiplier * new_bigrams
            elif one.term is PenaltyTerm.QUALITY and name in quality:
                columns = torch.arange(mask.shape[1], device=mask.device)
                is_last = columns[None] == mask.sum(dim=1, keepdim=True) - 1
                better_by = one.bound.better_by(quality[name], one.start)
                bonus += one.multiplier * better_by[:, None] * is_last
        return bonus * mask

    def added_kl_coef(self) -> float:
        """What the bound on the KL adds to the KL coefficient, score units per nat."""
        held = [one for one in self.constraints.values() if one.term is PenaltyTerm.KL]
        return sum((one.multiplier / one.limit() for one in held if one.start is not None), 0.0)

    def begin(self, rollouts: Sequence[Mapping[str, float]]) -> None:
        """Learn the start from rollouts of it: one alone is off by several per cent."""
        for name, one in self.constraints.items():
            values = [measures[name] for measures in rollouts if name in measures]
            if values and one.start is None:
                one.start = one.level = sum(values) / len(values)

    def unbound(self) -> dict[str, float]:
        """Measures, with their start, of which nothing is bound, as they did not start above 0."""
        return {
            name: one.start
            for name, one in self.constraints.items()
            if one.start is not None and one.start <= 0 and not one.bound.is_absolute
        }

    def observe(self, measures: Mapping[str, float]) -> None:
        """Learn the measures of a rollout; each constraint reads its own."""
        for name, one in self.constraints.items():
            if name in measures:
                one.observe(measures[name])

    def correct(self, now: Mapping[str, float], start: Mapping[str, float]) -> None:
        """Learn the measures on validation prompts, of now and of the start."""
        for name, one in self.constraints.items():
            if name in now and name in start and one.bound.limit_at is None and one.smoothing < 1:
                one.correct(now[name], start[name])

    def excess(self, now: Mapping[str, float], start: Mapping[str, float]) -> dict[str, float]:
        """Fraction of each limit by which an evaluation is outside; <= 0 is inside."""
        return {
            name: bound.excess(now[name], start.get(name, 0.0))
            for name, bound in self.bounds.items()
            if name in now and (name in start or bound.limit_at is not None)
        }

    def columns(self) -> dict[str, float]:
        """Every multiplier and slack (fraction of the limit, > 0 inside), for metrics.jsonl."""
        columns = {}
        for name, one in self.constraints.items():
            columns[f"multiplier_{name}"] = one.multiplier
            columns[f"slack_{name}"] = -one.excess()
        return columns

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {n: {k: getattr(c, k) for k in _KEPT} for n, c in self.constraints.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint."""
        for name, one in self.constraints.items():
            for key in _KEPT:
                setattr(one, key, state[name][key])
