"""Generalised advantage estimation (Schulman et al. 2016, eq. 16)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def gae(
    rewards: Float[Tensor, "B R"],
    values: Float[Tensor, "B R"],
    mask: Bool[Tensor, "B R"],
    gamma: float,
    gae_lambda: float,
) -> Float[Tensor, "B R"]:
    """A[t] = delta[t] + gamma * gae_lambda * A[t+1], delta[t] = r[t] + gamma * V[t+1] - V[t].

    Beyond the last real token of a row the value is 0: the response has ended.

    Args:
        rewards: per token, 0 at padding.
        values: per token, before the update.
        mask: True at real tokens, right-padded.
        gamma: discount in [0, 1].
        gae_lambda: in [0, 1]; 0 trusts the values, 1 the rewards.

    Returns:
        Advantages [B, R], 0 at padding.
    """
    values, rewards = values * mask, rewards * mask
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(rewards[:, 0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * gae_lambda * following) * mask[:, t]
        advantages[:, t], next_value = following, values[:, t]
    return advantages
