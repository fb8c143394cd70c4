"""From scores and logprobs to a loss: each function a call of the engine's own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lora_detox.advantages import ScoreScaler
from lora_detox.advantages.gae import gae
from lora_detox.advantages.kl_penalty import ref_kl
from lora_detox.advantages.rewards import token_rewards
from lora_detox.choices import KlPenalty
from lora_detox.classic.advice import caution
from lora_detox.classic.config import PPOConfig
from lora_detox.classic.core import masked_mean, masked_var, masked_whiten
from lora_detox.policy.token_stats import exact_kl
from lora_detox.update.ppo_loss import TokenBatch, ppo_loss


def transform_scores(scores: Tensor, config: PPOConfig, scaler: ScoreScaler) -> Tensor:
    """Scores after scaling, centring and clipping, as the config has them now.

    Args:
        scores: one number per response [B].
        config: `use_score_scaling`, `use_score_norm` and `score_clip`.
        scaler: holds the running mean and deviation; learns these scores.

    Returns:
        Scores [B].
    """
    scaler.scale, scaler.center = True, config.use_score_norm
    if config.use_score_scaling:
        scores = scaler(scores)
    if config.score_clip is not None:
        scores = scores.clamp(-config.score_clip, config.score_clip)
    return scores


def kl_per_token(kind: str, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """The KL penalty of each token, nats.

    Args:
        kind: "kl", "abs", "mse" or "full".
        logprobs: of the tokens [...]; over the vocabulary [..., V] for "full".
        ref_logprobs: the same under the reference.

    Returns:
        The penalty [...].
    """
    penalty = KlPenalty(kind)
    if penalty is KlPenalty.full:
        size, shape = logprobs.shape[-1], logprobs.shape[:-1]
        rows, ref_rows = logprobs.reshape(-1, size), ref_logprobs.reshape(-1, size)
        at = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
        return exact_kl(rows, ref_rows, at, lambda logits, _: logits, size).reshape(shape)
    row, ref_row = logprobs.reshape(1, -1), ref_logprobs.reshape(1, -1)
    everywhere = torch.ones_like(row, dtype=torch.bool)
    return ref_kl(row, ref_row, everywhere, penalty).reshape(logprobs.shape)


def rewards_of(scores: Tensor, kls: Tensor, masks: Tensor, kl_coef: float) -> tuple[Tensor, Tensor]:
    """-kl_coef * KL at every token, plus the score at the last one that counts.

    Args:
        scores: one number per response [B], higher is better.
        kls: penalty of each token [B, R], nats.
        masks: 1 at the tokens that count [B, R].
        kl_coef: the KL coefficient, in units of the score per nat.

    Returns:
        Rewards, and their part without the score, each [B, R].
    """
    scores = torch.as_tensor(scores, device=masks.device, dtype=torch.float32)
    non_score = -kl_coef * kls
    kept = masks != 0
    up_to_last = kept.flip(1).cumsum(dim=1).flip(1) > 0  # and so a mask made of lengths
    return non_score + token_rewards(scores, torch.zeros_like(kls), up_to_last, 0.0), non_score


def advantages_of(
    values: Tensor, rewards: Tensor, mask: Tensor, config: PPOConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Generalised advantage estimates, whitened over the batch.

    Credit passes over tokens that a response mask leaves out.

    Args:
        values: at sampling time [B, R].
        rewards: per token [B, R].
        mask: 1 at the tokens that count [B, R].
        config: `gamma`, `lam` and `whiten_rewards`.

    Returns:
        Values (0 outside the mask), advantages and returns, each [B, R].
    """
    values, rewards = values * mask, rewards * mask
    if config.whiten_rewards:
        rewards = masked_whiten(rewards, mask, shift_mean=False)
    everywhere = torch.ones_like(rewards, dtype=torch.bool)
    advantages = gae(rewards, values, everywhere, config.gamma, config.lam)
    returns = advantages + values
    return values, masked_whiten(advantages, mask).detach(), returns


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


def bounded_loss(
    config: PPOConfig, logprobs: Tensor, vpreds: Tensor, entropy: Tensor, batch: TokenBatch
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Policy loss, `vf_coef` * value loss and statistics of a mini-batch.

    A mini-batch whose mean ratio exceeds `ratio_threshold` gives zeros without gradient, and then
    no step is taken. (TRL multiplied by 0 and stepped.)

    Args:
        config: clip ranges, the value's weight and `ratio_threshold`.
        logprobs: under the policy being updated [B, R].
        vpreds: of the value head being updated [B, R].
        entropy: of the distributions [B, R].
        batch: what was known when the responses were sampled.

    Returns:
        Two scalars, and statistics by the names that follow `ppo/`.
    """
    terms = minibatch_loss(config, logprobs, vpreds, entropy, batch)
    policy, value = terms.policy, config.vf_coef * terms.value
    if not terms.ratio <= config.ratio_threshold:
        caution(
            f"A mini-batch is skipped: its mean ratio {terms.ratio:.2f} exceeds "
            f"ratio_threshold={config.ratio_threshold:g}. If this happens often, lower "
            "learning_rate or ppo_epochs."
        )
        policy, value = torch.zeros_like(policy), torch.zeros_like(value)
        terms.stats.update({f"loss/{k}": policy for k in ("policy", "value", "total")})
    return policy, value, terms.stats
