"""Scores without what the length of a response alone predicts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

PRIOR = 50.0
"""Responses that a slope of 0 weighs as much as: a first small rollout moves it little."""


@dataclass
class LengthCorrection:
    """Takes out of each score its regression on the log of the response's length.

    Classifiers find short text more civil than long text, and every further word is another chance
    to be rude: a policy that writes less earns more by that, until it is silent. The slope of the
    score over log(1 + words) is fitted to the responses of late (ridge regression towards 0) and
    its part is subtracted, so that on average no length earns more than another (length bias of
    reward models: Singhal et al. 2023, "A Long Way To Go"; regressing it out: Chen et al. 2024,
    "ODIN"). What a text says at its length counts as before.

    Attributes:
        enabled: False leaves scores as they are.
        decay: weight of the moments so far when a new rollout comes, 0 to 1.
        sums: decayed sums of 1, x, y, x^2 and x * y.
    """

    enabled: bool = True
    decay: float = 0.9
    sums: list[float] = field(default_factory=lambda: [0.0] * 5)

    @property
    def slope(self) -> float:
        """Score units per unit of log(1 + words)."""
        count, x, y, xx, xy = self.sums
        if count < 2:
            return 0.0
        spread, together = xx - x * x / count, xy - x * y / count
        return together / spread * count / (count + PRIOR) if spread > 1e-6 * count else 0.0

    def observe(self, score: Float[Tensor, "B"], words: Sequence[int]) -> None:
        """Learn from a rollout: scores and numbers of words."""
        if not self.enabled:
            return
        x, y = _log(words).double(), score.detach().cpu().double()
        new = [float(part.sum()) for part in (torch.ones_like(x), x, y, x * x, x * y)]
        self.sums = [self.decay * old + one for old, one in zip(self.sums, new, strict=True)]

    def __call__(self, score: Float[Tensor, "B"], words: Sequence[int]) -> Float[Tensor, "B"]:
        """Scores [B] as if each response had the mean length of late.

        Args:
            score: of texts, not necessarily those that were learned from.
            words: of each text.

        Returns:
            Score units; where it is not enabled, `score` itself.
        """
        if not self.enabled or not self.sums[0]:
            return score
        beyond = _log(words) - self.sums[1] / self.sums[0]
        return score - (self.slope * beyond).to(score.device, score.dtype)

    def state(self) -> dict[str, list[float]]:
        """The moments, for a checkpoint."""
        return {"sums": self.sums}

    def restore(self, state: dict[str, list[float]]) -> None:
        """Take the moments of a checkpoint."""
        self.sums = list(state["sums"])


def _log(words: Sequence[int]) -> Float[Tensor, "B"]:
    return torch.tensor(list(words), dtype=torch.float32).log1p()
