"""What training may change and what it may not: checksums of the adapter and of the base."""

import math
from collections.abc import Mapping

import torch

from lora_detox.errors import DataError, DivergenceError, ProcessError
from lora_detox.policy.policy import LoraPolicy
from lora_detox.processes import processes
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


def check_alike(facts: Mapping[str, object]) -> None:
    """All processes of a run read the same and begin alike.

    Args:
        facts: name of each to what it is in this process.

    Raises:
        DataError: with each that differs.
    """
    everyone = processes().gather(dict(facts))
    for rank, theirs in enumerate(everyone):
        differs = [
            f"{name}: {now} in process 0, {theirs.get(name)} in process {rank}"
            for name, now in everyone[0].items()
            if theirs.get(name) != now
        ]
        if differs:
            raise DataError(
                f"the processes of this run do not begin alike ({'; '.join(differs)}); want the "
                "same files and versions for each, on devices of one kind"
            )


def check_drift(policy: LoraPolicy) -> None:
    """The adapters of all processes are one: their updates were the same.

    Args:
        policy: of this process.

    Raises:
        ProcessError: they have drifted apart.
    """
    if processes().size == 1:
        return
    sums = processes().gather(trained_checksum(policy))
    apart = [rank for rank, one in enumerate(sums) if not math.isclose(one, sums[0], rel_tol=1e-9)]
    if apart:
        raise ProcessError(
            f"the adapter of process {apart[0]} is no longer that of process 0 (sums of absolute "
            f"weights {sums[apart[0]]:.9g} and {sums[0]:.9g}); want machines of one kind with the "
            "same versions for every process"
        )
