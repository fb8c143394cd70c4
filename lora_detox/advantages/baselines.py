"""What a whole response's return is compared with where there is no value head."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def leave_one_out(returns: Float[Tensor, "B"], group: int) -> Float[Tensor, "B"]:
    """Mean return of the other responses to the same prompt (Ahmadian et al. 2024, section 3.3).

    Args:
        returns: of B responses; those to one prompt stand in a row.
        group: responses per prompt, >= 2; divides B.

    Returns:
        A baseline for each response that its own tokens have no part in.
    """
    grouped = returns.reshape(-1, group)
    return ((grouped.sum(dim=1, keepdim=True) - grouped) / (group - 1)).reshape(-1)


def group_mean(returns: Float[Tensor, "B"], group: int) -> Float[Tensor, "B"]:
    """Mean return of all responses to the same prompt (Shao et al. 2024, section 4.1.1).

    Args:
        returns: of B responses; those to one prompt stand in a row.
        group: responses per prompt; divides B.

    Returns:
        The same baseline for each response of a group.
    """
    return returns.reshape(-1, group).mean(dim=1).repeat_interleave(group)


def group_std(returns: Float[Tensor, "B"], group: int) -> Float[Tensor, "B"]:
    """Unbiased standard deviation of the returns of the same prompt, >= 0.

    Args:
        returns: of B responses; those to one prompt stand in a row.
        group: responses per prompt, >= 2; divides B.

    Returns:
        The same number for each response of a group.
    """
    return returns.reshape(-1, group).std(dim=1).repeat_interleave(group)


@dataclass
class RunningMean:
    """Exponentially weighted mean return of the iterations so far (REINFORCE with a baseline).

    Attributes:
        decay: weight of the past in [0, 1); 0 is the last iteration alone.
        mean: None before the first iteration, which is compared with its own mean.
    """

    decay: float = 0.9
    mean: float | None = None

    def __call__(self, returns: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """The baseline of a batch, from earlier ones; then counts the batch in."""
        batch = float(returns.double().mean())
        baseline = batch if self.mean is None else self.mean
        self.mean = self.decay * baseline + (1 - self.decay) * batch
        return torch.full_like(returns, baseline)

    def state(self) -> dict[str, float | None]:
        """For a checkpoint."""
        return {"mean": self.mean}

    def restore(self, state: dict[str, float | None]) -> None:
        """Take the state of a checkpoint."""
        self.mean = state["mean"]
