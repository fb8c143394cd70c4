"""What training may change and what it may not: checksums of the adapter and of the base."""

import torch

from lora_detox.errors import DivergenceError
from lora_detox.policy.policy import LoraPolicy
from lora_detox.progress import phase
from lora_detox.scores.control_rewards import CONSTANT


def trained_checksum(policy: LoraPolicy) -> float:
    """A number that changes when any adapter parameter does: the sum of their absolute values."""
    with torch.no_grad():
        return sum(float(p.double().abs().sum()) for p in policy.adapter_parameters())


def base_checksum(policy: LoraPolicy) -> str:
    """Digest of every weight that is not the adapter's; a large base takes a while to read."""
    with phase("reading the frozen weights (checksum)"):
        return policy.base_checksum()


def check_moved(policy: LoraPolicy, at_start: float, reward_function: str | None = None) -> None:
    """After the first update the adapter must have changed: a frozen one looks healthy too.

    Args:
        policy: after one update.
        at_start: its `trained_checksum` before.
        reward_function: of the settings; the constant reward moves nothing, as a control should.

    Raises:
        DivergenceError: no adapter parameter left its start.
    """
    if reward_function != CONSTANT and trained_checksum(policy) == at_start:
        raise DivergenceError(
            "the adapter has not moved in the first update: nothing is being learned; check "
            "algorithm.learning_rate and that the scores differ between responses"
        )
