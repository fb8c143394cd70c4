"""A learning rate that falls where an update moves the policy too far."""

from dataclasses import dataclass
from math import isfinite, sqrt

GROWTH = 1.1
"""Most by which the factor grows from one iteration to the next."""
FALL = 0.5
"""Least that it falls to."""


@dataclass
class StepControl:
    """Holds the KL between the policies before and after an update at or below a target.

    Schulman et al. 2017 (section 4) adapt a penalty to a target KL; here it is the step, as the KL
    grows with its square: factor *= sqrt(target / KL), within [0.5, 1.1] per iteration and
    never above 1. A learning rate is then an upper bound, and too large a one becomes a good one.

    Attributes:
        target: nats per token, as `UpdateStats.moved_kl`; None leaves the factor 1.
        factor: on the learning rates, in (0, 1].
    """

    target: float | None
    factor: float = 1.0

    def update(self, moved_kl: float) -> None:
        """Learn how far an update went; a number that is not finite counts as far too far."""
        if self.target is None:
            return
        finite = isfinite(moved_kl)
        change = sqrt(self.target / max(moved_kl, 1e-12)) if finite else FALL
        self.factor = min(1.0, self.factor * min(GROWTH, max(FALL, change)))

    def state(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"factor": self.factor}

    def restore(self, state: dict[str, float]) -> None:
        """Take the state of a checkpoint."""
        self.factor = state["factor"]
