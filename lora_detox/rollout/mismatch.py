"""What a server drew with, against what our own pass says of the same tokens."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lora_detox.rollout.generation import Responses
from lora_detox.types import Rollout


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """The gap between two engines on the tokens of a rollout.

    Attributes:
        mean_gap: mean |ours - theirs| of a token's logprob, nats.
        largest_gap: the largest, nats.
        mean_ratio: mean of exp(ours - theirs), 1 in expectation where theirs are true.
        clipped: fraction of tokens whose ratio is above the largest weight.
        weights: ratios cut at the largest weight [B, R], 1 at padding.
    """

    mean_gap: float
    largest_gap: float
    mean_ratio: float
    clipped: float
    weights: Float[Tensor, "B R"]


def mismatch_of(rollout: Rollout, responses: Responses, most_ratio: float) -> Mismatch:
    """Compare the logprobs of sampling with the recomputed ones.

    w = min(exp(logprobs - sampled logprobs), most_ratio): truncated importance sampling (Ionides
    2008). With it the policy gradient is that of our policy, though another engine drew.

    Args:
        rollout: with our logprobs.
        responses: with those that the tokens were drawn with.
        most_ratio: largest weight, 1 or more.

    Returns:
        The gap in numbers, and the weights.
    """
    mask = rollout.response_mask
    gap = (rollout.logprobs - responses.logprobs)[mask].double()
    ratio = gap.exp()
    weights = torch.ones_like(rollout.logprobs)
    weights[mask] = ratio.clamp(max=most_ratio).to(weights.dtype)
    if not len(gap):
        return Mismatch(mean_gap=0.0, largest_gap=0.0, mean_ratio=1.0, clipped=0.0, weights=weights)
    return Mismatch(
        mean_gap=float(gap.abs().mean()),
        largest_gap=float(gap.abs().max()),
        mean_ratio=float(ratio.mean()),
        clipped=float((ratio > most_ratio).double().mean()),
        weights=weights,
    )
