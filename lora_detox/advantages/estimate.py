"""Rollout + score -> Advantages: penalty, rewards, GAE, whitening, in this order."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lora_detox.advantages.gae import gae
from lora_detox.advantages.kl_penalty import KlPenalty, ref_kl
from lora_detox.advantages.rewards import token_rewards
from lora_detox.advantages.whitening import scale_only, whiten
from lora_detox.types import Advantages, Rollout


@dataclass(frozen=True, kw_only=True)
class AdvantagePlan:
    """How scores become advantages.

    Attributes:
        kl_penalty: which estimate of the KL to the reference is charged.
        gamma: discount in [0, 1].
        gae_lambda: in [0, 1].
        whiten_rewards: scale the rewards to variance 1 over the batch, keeping their mean.
        whiten_advantages: mean 0, variance 1 over the batch.
    """

    kl_penalty: KlPenalty
    gamma: float
    gae_lambda: float
    whiten_rewards: bool
    whiten_advantages: bool = True


def estimate_advantages(
    rollout: Rollout,
    score: Float[Tensor, "B"],
    kl_coef: float,
    plan: AdvantagePlan,
    token_bonus: float = 0.0,
) -> Advantages:
    """What each token earned; everything is masked and taken over the whole rollout batch.

    Args:
        rollout: logprobs, reference logprobs and values of the sampled tokens.
        score: one number per response, after scaling; higher is better.
        kl_coef: price of a nat of KL in units of the (scaled) score.
        plan: penalty, discount and whitening.
        token_bonus: what each token earns, in units of the (scaled) score.

    Returns:
        Rewards, penalty, advantages and returns, each [B, R].
    """
    mask = rollout.response_mask
    penalty = ref_kl(rollout.logprobs, rollout.ref_logprobs, mask, plan.kl_penalty, rollout.full_kl)
    rewards = token_rewards(score.to(mask.device), penalty, mask, kl_coef, token_bonus)
    if plan.whiten_rewards:
        rewards = scale_only(rewards, mask)
    advantages = gae(rewards, rollout.values, mask, plan.gamma, plan.gae_lambda)
    returns = (advantages + rollout.values) * mask
    if plan.whiten_advantages:
        advantages = whiten(advantages, mask)
    return Advantages(rewards=rewards, ref_kl=penalty, advantages=advantages, returns=returns)
