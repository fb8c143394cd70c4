"""Rollout + score -> Advantages: penalty, rewards, baseline, whitening, in this order."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lora_detox.advantages.baselines import (
    RunningMean,
    group_mean,
    group_std,
    leave_one_out,
)
from lora_detox.advantages.gae import gae
from lora_detox.advantages.kl_penalty import ref_kl
from lora_detox.advantages.rewards import sequence_rewards, token_rewards
from lora_detox.advantages.whitening import scale_only, whiten
from lora_detox.choices import Baseline, KlPenalty
from lora_detox.types import Advantages, Rollout

GROUP_EPSILON = 1e-4
"""Added to a group's standard deviation: equal scores give no advantage, not an infinite one."""


@dataclass(frozen=True, kw_only=True)
class AdvantagePlan:
    """How scores become advantages.

    Attributes:
        kl_penalty: which estimate of the KL to the reference is charged.
        gamma: discount in [0, 1].
        gae_lambda: in [0, 1]; of the value baseline.
        whiten_rewards: scale the rewards to variance 1 over the batch, keeping their mean.
        whiten_advantages: mean 0, variance 1 over the batch.
        baseline: what returns are compared with.
        responses_per_prompt: size of a group, whose responses stand in a row.
        sequence_level: everything that a response earned lands on its last token, so that each of
            its tokens has the same return.
        kl_in_loss: the update charges the KL; the rewards do not.
        mean_by_response: each response weighs the same in the policy loss (GRPO), not each token.
    """

    kl_penalty: KlPenalty
    gamma: float
    gae_lambda: float
    whiten_rewards: bool
    whiten_advantages: bool = True
    baseline: Baseline = Baseline.value
    responses_per_prompt: int = 1
    sequence_level: bool = False
    kl_in_loss: bool = False
    mean_by_response: bool = False


def estimate_advantages(
    rollout: Rollout,
    score: Float[Tensor, "B"],
    kl_coef: float,
    plan: AdvantagePlan,
    token_bonus: float | Float[Tensor, "B R"] = 0.0,
    running_mean: RunningMean | None = None,
) -> Advantages:
    """What each token earned; everything is masked and taken over the whole rollout batch.

    Args:
        rollout: logprobs, reference logprobs and values of the sampled tokens.
        score: one number per response, after scaling; higher is better.
        kl_coef: KL coefficient, in units of the (scaled) score per nat.
        plan: penalty, baseline, discount and whitening.
        token_bonus: what each token earns, in units of the (scaled) score.
        running_mean: the baseline of earlier iterations; learns this one. For that baseline only.

    Returns:
        Rewards, penalty, advantages and returns, each [B, R].
    """
    mask = rollout.response_mask
    penalty = ref_kl(rollout.logprobs, rollout.ref_logprobs, mask, plan.kl_penalty, rollout.full_kl)
    charged = 0.0 if plan.kl_in_loss else kl_coef
    rewards = token_rewards(score.to(mask.device), penalty, mask, charged, token_bonus)
    if plan.sequence_level:
        rewards = sequence_rewards(rewards, mask)
    if plan.whiten_rewards:
        rewards = scale_only(rewards, mask)
    if plan.baseline is Baseline.value:
        advantages = gae(rewards, rollout.values, mask, plan.gamma, plan.gae_lambda)
        returns = (advantages + rollout.values) * mask
    else:
        returns = gae(rewards, torch.zeros_like(rewards), mask, plan.gamma, 1.0)  # reward to go
        advantages = _above_baseline(returns, plan, running_mean) * mask
    if plan.whiten_advantages:
        advantages = whiten(advantages, mask)
    if plan.mean_by_response:  # the loss is linear in the advantages and a mean over tokens
        lengths = mask.sum(dim=1, keepdim=True)
        advantages = advantages * lengths.float().mean() / lengths
    return Advantages(
        rewards=rewards,
        ref_kl=penalty,
        advantages=advantages,
        returns=returns,
        kl_coef_in_loss=kl_coef if plan.kl_in_loss else 0.0,
    )


def _above_baseline(
    returns: Float[Tensor, "B R"], plan: AdvantagePlan, running_mean: RunningMean | None
) -> Float[Tensor, "B R"]:
    """Reward to go of each token minus the baseline of its response's whole return."""
    whole, group = returns[:, 0], plan.responses_per_prompt
    if plan.baseline is Baseline.leave_one_out:
        baseline = leave_one_out(whole, group)
    elif plan.baseline in (Baseline.group_mean, Baseline.group_zscore):
        baseline = group_mean(whole, group)
    elif running_mean is None:
        raise ValueError("baseline=running_mean needs running_mean; got None")
    else:
        baseline = running_mean(whole)
    advantages = returns - baseline[:, None]
    if plan.baseline is Baseline.group_zscore:  # GRPO; Dr. GRPO leaves it out
        advantages = advantages / (group_std(whole, group) + GROUP_EPSILON)[:, None]
    return advantages
