"""The clipped objective of PPO (Schulman et al. 2017, eq. 7 and 9), on masked tokens.

RLOO, GRPO and REINFORCE use its policy part: the ratio is taken by token, the advantages differ.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """What the loss needs of given tokens; every tensor [B, R]."""

    logprobs: Float[Tensor, "B R"]
    values: Float[Tensor, "B R"]
    advantages: Float[Tensor, "B R"]
    returns: Float[Tensor, "B R"]
    mask: Bool[Tensor, "B R"]


@dataclass(frozen=True, kw_only=True)
class PpoLoss:
    """Sums over the batch's tokens, so that microbatches add up to their minibatch."""

    policy: Float[Tensor, ""]
    value: Float[Tensor, ""]
    ratio: Float[Tensor, ""]
    approx_kl: Float[Tensor, ""]
    clipped: Float[Tensor, ""]
    value_clipped: Float[Tensor, ""]


def ppo_loss(
    new_logprobs: Float[Tensor, "B R"],
    new_values: Float[Tensor, "B R"],
    batch: TokenBatch,
    clip_range: float,
    value_clip_range: float,
) -> PpoLoss:
    """Policy and value loss summed over real tokens.

    policy: -min(ratio * A, clip(ratio, 1 - c, 1 + c) * A) with ratio = exp(new - old logprobs);
    value: half of max((V - R)^2, (V_clipped - R)^2), V_clipped within `value_clip_range` of the
    value at sampling time. Divide by the number of real tokens of the minibatch.

    Args:
        new_logprobs: under the policy being updated, with gradient.
        new_values: of the value head being updated, with gradient.
        batch: what was known at sampling time.
        clip_range: c > 0.
        value_clip_range: > 0, in units of the reward.

    Returns:
        Sums over the real tokens; `policy` and `value` carry gradient.
    """
    mask = batch.mask
    log_ratio = (new_logprobs - batch.logprobs) * mask
    ratio = log_ratio.exp()
    free = -batch.advantages * ratio
    clipped = -batch.advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    near = batch.values + (new_values - batch.values).clamp(-value_clip_range, value_clip_range)
    free_error, near_error = (new_values - batch.returns) ** 2, (near - batch.returns) ** 2
    return PpoLoss(
        policy=(torch.maximum(free, clipped) * mask).sum(),
        value=0.5 * (torch.maximum(free_error, near_error) * mask).sum(),
        ratio=(ratio.detach() * mask).sum(),
        approx_kl=0.5 * (log_ratio.detach() ** 2 * mask).sum(),
        clipped=((clipped > free) & mask).sum(dtype=ratio.dtype),
        value_clipped=((near_error > free_error) & mask).sum(dtype=ratio.dtype),
    )


def ref_kl_loss(
    new_logprobs: Float[Tensor, "B R"],
    ref_logprobs: Float[Tensor, "B R"],
    mask: Bool[Tensor, "B R"],
) -> Float[Tensor, ""]:
    """KL to the reference as a loss: k3 summed over real tokens (GRPO, Shao et al. 2024, eq. 4).

    k3 = exp(d) - 1 - d with d = ref_logprobs - new_logprobs; its gradient pulls each sampled
    token's probability towards the reference's.

    Args:
        new_logprobs: under the policy being updated, with gradient.
        ref_logprobs: under the reference policy.
        mask: True at real tokens.

    Returns:
        The sum, nats, >= 0; divide by the number of real tokens of the minibatch.
    """
    difference = (ref_logprobs - new_logprobs).masked_fill(~mask, 0.0)
    return (torch.expm1(difference) - difference).sum()
