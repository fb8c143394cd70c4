"""The collapse guard: whether training has left the region where its result is of use."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_detox.limits import CollapseLimits

RISE, FALL = "rose", "fell"


@dataclass
class CollapseGuard:
    """Compares each iteration with the first one, so that a run can go back on collapse.

    Attributes:
        limits: what counts as collapse.
        retries: how often the run may go back, >= 0.
        used: how often it has.
        start: numbers of the first iteration.
    """

    limits: CollapseLimits
    retries: int
    used: int = 0
    start: dict[str, float] = field(default_factory=dict)

    @property
    def step_factor(self) -> float:
        """On the learning rate: half for each time that the run went back."""
        return 0.5**self.used

    @property
    def kl_factor(self) -> float:
        """On the KL coefficient: double for each time that the run went back."""
        return 2.0**self.used

    def look(self, row: Mapping[str, Any], start: Mapping[str, float] | None = None) -> str | None:
        """Compare an iteration with the first one, or an evaluation with that of the start.

        Args:
            row: of metrics.jsonl; `score`, `ref_kl_k3`, `ratio`, `entropy`, `perplexity`,
                `response_tokens`, `distinct_2` and `repetition` are read, where they are there.
            start: to compare with; None takes the first row that was seen without.

        Returns:
            What is wrong, in words; None if nothing is.
        """
        numbers = {k: float(v) for k, v in row.items() if isinstance(v, (int, float))}
        finite = ("score", "ref_kl_k3", "ratio", "entropy", "response_tokens")
        broken = [k for k in finite if not math.isfinite(numbers.get(k, 0.0))]
        if broken:
            return f"{', '.join(broken)} not finite"
        if start is None:
            start = self.start = self.start or numbers
        limits = self.limits
        ratio = limits.ratio
        signs = (
            ("KL to the reference", "ref_kl_k3", None, limits.kl),
            ("probability ratio", "ratio", ratio and 1 / ratio, ratio),
            ("entropy", "entropy", _times_start(limits.entropy, start, "entropy"), None),
            ("entropy", "entropy", None, _times_start(limits.entropy_rise, start, "entropy")),
            (
                "perplexity",
                "perplexity",
                None,
                _times_start(limits.perplexity, start, "perplexity"),
            ),
            (
                "response length",
                "response_tokens",
                _times_start(limits.length, start, "response_tokens"),
                None,
            ),
            (
                "distinct-2",
                "distinct_2",
                _times_start(limits.distinct_2, start, "distinct_2"),
                None,
            ),
            (
                "repetition",
                "repetition",
                None,
                limits.repetition and start.get("repetition", 0.0) + limits.repetition,
            ),
        )
        for name, key, least, most in signs:
            value = numbers.get(key)
            if value is None:
                continue
            if least is not None and value < least:
                return f"{name} {FALL} to {value:.3g} (limit {least:.3g})"
            if most is not None and value > most:
                return f"{name} {RISE} to {value:.3g} (limit {most:.3g})"
        return None

    def look_judged(
        self, row: Mapping[str, Any], judged: float | None, judged_at_start: float | None
    ) -> str | None:
        """Whether the reward rises while the held-out classifier (the judge) does not follow.

        Args:
            row: of metrics.jsonl; `score` and `score_std` are read.
            judged: the judge's mean toxicity on validation prompts; None without a judge.
            judged_at_start: the same at the start.

        Returns:
            What is wrong, in words; None if nothing is.
        """
        rise, fall = self.limits.reward_rise, self.limits.judge_fall
        if rise is None or judged is None or not judged_at_start or not self.start:
            return None
        risen = (row["score"] - self.start["score"]) / max(row["score_std"], 1e-6)
        if risen < rise or judged <= (1 - fall) * judged_at_start:
            return None
        return (
            f"the reward rose by {risen:.2g} standard deviations, but the judge's toxicity went "
            f"from {judged_at_start:.3f} to {judged:.3f} (limit {(1 - fall) * judged_at_start:.3f})"
        )

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"used": self.used, "start": self.start}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.used, self.start = state["used"], dict(state["start"])


def _times_start(limit: float | None, start: Mapping[str, float], key: str) -> float | None:
    """A multiple of the start's value; None where either is not known."""
    return None if limit is None or key not in start else limit * start[key]
