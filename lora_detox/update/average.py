"""The mean of the weights along training, which wanders less than its newest point."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class WeightAverage:
    """Exponential mean of parameters over iterations.

    Polyak and Juditsky 1992; for policies under a KL penalty: Rame et al. 2024, "WARP". The weight
    of the past is `decay`, and less in the first iterations, so that the start does not weigh
    longer than it should: min(decay, (1 + n) / (10 + n)) at the n-th.

    Args:
        parameters: by name; averaged where they are, never changed by `observe`.
        decay: weight of the past in the long run, in (0, 1).
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self._parameters, self.decay = dict(parameters), decay
        self.mean = {name: p.detach().clone() for name, p in parameters.items()}
        self.observed = 0

    @torch.no_grad()
    def observe(self) -> None:
        """Take the parameters of now into the mean."""
        self.observed += 1
        decay = min(self.decay, (1 + self.observed) / (10 + self.observed))
        for name, parameter in self._parameters.items():
            self.mean[name].lerp_(parameter, 1 - decay)

    def take(self, mean: Mapping[str, Tensor], observed: int) -> None:
        """Go on from a mean of that many observations."""
        self.observed = observed
        write_parameters(self.mean, mean)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters are the mean while this lasts, and bit for bit themselves after it."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        write_parameters(self._parameters, self.mean)
        try:
            yield
        finally:
            write_parameters(self._parameters, own)


@torch.no_grad()
def write_parameters(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Overwrite parameters in place, each by the value of its name."""
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
