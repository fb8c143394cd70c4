"""The rows of an update: which go through the model together, and what a pass says of them."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from lora_detox.processes import processes
from lora_detox.types import FrozenStates, Rollout
from lora_detox.update.ppo_loss import PpoLoss

FIELDS = tuple(one.name for one in fields(PpoLoss))


@dataclass(frozen=True, kw_only=True)
class Microbatch:
    """Rows that go through the model together.

    Attributes:
        rows: of the rollout [b].
        frozen: keeper of what training cannot change of them; None keeps nothing.
        tokens: their response tokens.
    """

    rows: Tensor
    frozen: FrozenStates | None
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Minibatch:
    """The rows of one optimizer step.

    Attributes:
        parts: the rows of this process, by forward pass.
        tokens: response tokens of its rows in all processes.
    """

    parts: list[Microbatch]
    tokens: int


class Sums(NamedTuple):
    """What the forward and backward pass of some rows says, as sums over their tokens.

    Attributes:
        losses: by FIELDS.
        entropy: nats.
        error: the largest ratio error.
        tokens: how many there are.
    """

    losses: Tensor
    entropy: Tensor
    error: Tensor
    tokens: int


class Totals:
    """Running sums of one update, in fp64 on the policy's device: the host does not wait for them.

    `losses` are those of `ppo_loss` by FIELDS, `entropy` is in nats, `tokens` are known beforehand,
    `steps` counts the optimizer steps that were taken, `norm` is the sum of their gradient norms.
    """

    def __init__(self, device: torch.device) -> None:
        self.losses = torch.zeros(len(FIELDS), dtype=torch.float64, device=device)
        self.entropy, self.steps, self.norm = self.losses.new_zeros(3).unbind()
        self.tokens = 0

    def add(self, losses: Tensor, entropy: Tensor, tokens: int) -> None:
        """Of one microbatch."""
        self.losses = self.losses + losses
        self.entropy = self.entropy + entropy
        self.tokens += tokens

    @property
    def means(self) -> Tensor:
        """The losses by token."""
        return self.losses / max(self.tokens, 1)


def minibatches_of(rollout: Rollout) -> list[Minibatch]:
    """The rows of this process in each minibatch; the host waits once for all token counts."""
    lengths = rollout.response_mask.sum(dim=1)
    sums = [lengths[rows].sum() for minibatch in rollout.minibatches for rows in minibatch]
    counts = iter(torch.stack(sums).tolist() if sums else ())
    own = [
        [
            Microbatch(
                rows=rows,
                frozen=None if rollout.frozen is None else rollout.frozen[index][place],
                tokens=next(counts),
            )
            for place, rows in enumerate(minibatch)
        ]
        for index, minibatch in enumerate(rollout.minibatches)
    ]
    of_all = processes().gather([sum(one.tokens for one in parts) for parts in own])
    return [
        Minibatch(parts=parts, tokens=sum(tokens))
        for parts, *tokens in zip(own, *of_all, strict=True)
    ]
