"""The loss of a mini-batch and its statistics, from the engine's clipped objective."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lora_detox.classic.config import PPOConfig
from lora_detox.classic.core import masked_mean, masked_var
from lora_detox.update.ppo_loss import TokenBatch, ppo_loss


@dataclass(frozen=True, kw_only=True)
class MinibatchLoss:
    """Means over the mini-batch's tokens.

    Attributes:
        policy: clipped surrogate.
        value: half the clipped squared error, before `vf_coef`.
        ratio: mean probability ratio, new to old.
        stats: by the names that follow `ppo/`.
    """

    policy: Tensor
    value: Tensor
    ratio: float
    stats: dict[str, Tensor]


def minibatch_loss(
    config: PPOConfig, logprobs: Tensor, vpreds: Tensor, entropy: Tensor, batch: TokenBatch
) -> MinibatchLoss:
    """The objective of one mini-batch.

    Args:
        config: clip ranges and the value's weight.
        logprobs: under the policy being updated [B, R].
        vpreds: of the value head being updated [B, R].
        entropy: of the distributions [B, R].
        batch: what was known when the responses were sampled.

    Returns:
        Loss and statistics; `policy` and `value` carry gradient.
    """
    sums = ppo_loss(logprobs, vpreds, batch, config.cliprange, config.cliprange_value)
    tokens, mask = batch.mask.sum(), batch.mask
    policy, value = sums.policy / tokens, sums.value / tokens
    with torch.no_grad():
        drift = (logprobs - batch.logprobs) * mask
        stats = {
            "loss/policy": policy,
            "loss/value": value,
            "loss/total": policy + config.vf_coef * value,
            "policy/entropy": masked_mean(entropy, mask),
            "policy/approxkl": sums.approx_kl / tokens,
            "policy/policykl": -drift.sum() / tokens,
            "policy/clipfrac": sums.clipped / tokens,
            "policy/advantages": batch.advantages,
            "policy/advantages_mean": masked_mean(batch.advantages, mask),
            "policy/ratio": drift.exp(),
            "returns/mean": masked_mean(batch.returns, mask),
            "returns/var": masked_var(batch.returns, mask),
            "val/vpred": masked_mean(vpreds, mask),
            "val/error": masked_mean((vpreds - batch.returns) ** 2, mask),
            "val/clipfrac": sums.value_clipped / tokens,
            "val/mean": masked_mean(batch.values, mask),
            "val/var": masked_var(batch.values, mask),
        }
    return MinibatchLoss(
        policy=policy,
        value=value,
        ratio=float(sums.ratio / tokens),
        stats={name: number.detach() for name, number in stats.items()},
    )
