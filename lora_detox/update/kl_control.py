"""The KL coefficient: what a nat of KL costs, fixed or adapted to a target KL."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class KlControl(Protocol):
    """Holds `kl_coef` and moves it after each iteration."""

    kl_coef: float

    def update(self, kl: float, samples: int) -> None:
        """Learn the mean KL per response (nats) of `samples` new responses."""

    def state(self) -> dict[str, float]:
        """For a checkpoint."""

    def restore(self, state: dict[str, float]) -> None:
        """Take the state of a checkpoint."""


@dataclass
class _KlCoef:
    """What both kinds keep."""

    kl_coef: float

    def state(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"kl_coef": self.kl_coef}

    def restore(self, state: dict[str, float]) -> None:
        """Take the state of a checkpoint."""
        self.kl_coef = state["kl_coef"]


@dataclass
class FixedKl(_KlCoef):
    """A KL coefficient that stays."""

    def update(self, kl: float, samples: int) -> None:
        """Nothing moves."""


@dataclass
class AdaptiveKl(_KlCoef):
    """Proportional control towards a target KL (Ziegler et al. 2019, section 2.2).

    e = clip(kl / target - 1, -0.2, 0.2); kl_coef *= 1 + e * samples / horizon.

    Attributes:
        kl_coef: KL coefficient, score units per nat, > 0.
        target: mean KL per response to aim at, nats, > 0.
        horizon: samples over which a full-size error changes `kl_coef` by 20 %.
    """

    target: float
    horizon: float

    def update(self, kl: float, samples: int) -> None:
        """Raise `kl_coef` where the KL is above the target, lower it below."""
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.kl_coef *= 1 + error * samples / self.horizon
