"""Bring scores of any scorer to one scale before the KL penalty is set against them."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass
class ScoreScaler:
    """Divides scores by their running standard deviation, centres and clips them if set.

    The moments are merged over all batches so far (Chan et al. 1979) and are part of a checkpoint.

    Attributes:
        scale: divide by the running standard deviation.
        center: subtract the running mean too.
        clip: bound of the result's absolute value, None for no bound.
        count: scores seen.
        mean: their mean.
        squares: their summed squared distance to the mean.
    """

    scale: bool = True
    center: bool = False
    clip: float | None = None
    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def std(self) -> float:
        """Standard deviation of all scores so far (unbiased); 1 before there are two."""
        return float((self.squares / (self.count - 1)) ** 0.5) if self.count > 1 else 1.0

    @property
    def factor(self) -> float:
        """What a difference of two scores is multiplied with."""
        return 1 / max(self.std, 1e-6) if self.scale else 1.0

    def __call__(self, score: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """Count a batch of scores in and return it transformed."""
        self._merge(score.double())
        result = score.float()
        if self.center:
            result = result - self.mean
        if self.scale:
            result = result / max(self.std, 1e-6)
        return result if self.clip is None else result.clamp(-self.clip, self.clip)

    def _merge(self, score: Tensor) -> None:
        batch = float(len(score))
        batch_mean = float(score.mean())
        distance = batch_mean - self.mean
        total = self.count + batch
        self.squares += float(((score - batch_mean) ** 2).sum())
        self.squares += distance**2 * self.count * batch / total
        self.mean += distance * batch / total
        self.count = total

    def state(self) -> dict[str, float]:
        """The moments, for a checkpoint."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def restore(self, state: dict[str, float]) -> None:
        """Take the moments of a checkpoint."""
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
