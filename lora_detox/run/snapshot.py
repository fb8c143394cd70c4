"""Training at one moment, in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Stateful(Protocol):
    """What has plain numbers in a checkpoint."""

    def state(self) -> dict[str, Any]:
        """For a checkpoint; what JSON can hold."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Training at one moment, in memory and within every checkpoint since.

    Attributes:
        iteration: how many iterations were behind.
        parameters: trainable parameters by name.
        optimizer: its tensors by index and name.
        controls: state of the controllers.
        average: mean of the adapter's weights by name; empty where none is kept.
        observed: how many iterations are in that mean.
    """

    iteration: int
    parameters: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    controls: dict[str, Any]
    average: dict[str, Tensor] = field(default_factory=dict)
    observed: int = 0
