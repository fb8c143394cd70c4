"""Who sets the price of a nat."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class KlControl(Protocol):
    """Holds `kl_coef` and moves it after each iteration."""

    kl_coef: float

    def update(self, kl: float, samples: int) -> None:
        """Learn the mean KL per response (nats) of `samples` new responses."""


@dataclass
class FixedKl:
    """A price that stays."""

    kl_coef: float

    def update(self, kl: float, samples: int) -> None:
        """Nothing moves."""


@dataclass
class AdaptiveKl:
    """Proportional control towards a target KL (Ziegler et al. 2019, section 2.2).

    e = clip(kl / target - 1, -0.2, 0.2); kl_coef *= 1 + e * samples / horizon.

    Attributes:
        kl_coef: price of a nat, > 0.
        target: mean KL per response to aim at, nats, > 0.
        horizon: samples over which a full-size error changes the price by 20 %.
    """

    kl_coef: float
    target: float
    horizon: float

    def update(self, kl: float, samples: int) -> None:
        """Raise the price above the target, lower it below."""
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.kl_coef *= 1 + error * samples / self.horizon
