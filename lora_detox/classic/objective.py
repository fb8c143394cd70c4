"""From scores and logprobs to a loss: the old methods, each a call of the engine."""

import torch
from torch import Tensor

from lora_detox.advantages.gae import gae
from lora_detox.advantages.kl_penalty import KlPenalty, ref_kl
from lora_detox.advantages.rewards import token_rewards
from lora_detox.classic.caution import caution
from lora_detox.classic.config import PPOConfig
from lora_detox.classic.core import entropy_from_logits, masked_whiten
from lora_detox.classic.kl_control import FixedKLController
from lora_detox.classic.losses import minibatch_loss
from lora_detox.policy.token_stats import exact_kl
from lora_detox.update.ppo_loss import TokenBatch


class PPOObjective:
    """What the trainer computes from tensors alone; subclasses may override each method.

    Attributes:
        config: read whenever a method runs.
        kl_ctl: holds the price of KL.
    """

    config: PPOConfig
    kl_ctl: FixedKLController

    def _kl_penalty(self, logprob: Tensor, ref_logprob: Tensor) -> Tensor:
        """The penalty `config.kl_penalty` of each token, nats.

        Args:
            logprob: of the tokens [...]; over the vocabulary [..., V] for "full".
            ref_logprob: the same under the reference.

        Returns:
            The penalty [...].
        """
        penalty = KlPenalty(self.config.kl_penalty)
        if penalty is KlPenalty.FULL:
            size, shape = logprob.shape[-1], logprob.shape[:-1]
            rows, ref_rows = logprob.reshape(-1, size), ref_logprob.reshape(-1, size)
            at = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
            return exact_kl(rows, ref_rows, at, lambda logits, _: logits, size).reshape(shape)
        row, ref_row = logprob.reshape(1, -1), ref_logprob.reshape(1, -1)
        everywhere = torch.ones_like(row, dtype=torch.bool)
        return ref_kl(row, ref_row, everywhere, penalty).reshape(logprob.shape)

    def compute_rewards(
        self, scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Penalty at every token, and the score at the last one that counts.

        Args:
            scores: one number per response [B], higher is better.
            logprobs: under the policy [B, R], or [B, R, V] for the "full" penalty.
            ref_logprobs: the same under the reference.
            masks: 1 at the tokens that count [B, R].

        Returns:
            Rewards, their part without the score, and the penalty in nats, each [B, R].
        """
        scores = torch.as_tensor(scores, device=masks.device, dtype=torch.float32)
        kls = self._kl_penalty(logprobs, ref_logprobs)
        non_score = -self.kl_ctl.value * kls
        kept = masks != 0
        up_to_last = kept.flip(1).cumsum(dim=1).flip(1) > 0  # and so a mask made of lengths
        return (
            non_score + token_rewards(scores, torch.zeros_like(kls), up_to_last, 0.0),
            non_score,
            kls,
        )

    def compute_advantages(
        self, values: Tensor, rewards: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Generalised advantage estimates, whitened over the batch.

        Credit passes over tokens that a response mask leaves out.

        Args:
            values: at sampling time [B, R].
            rewards: per token [B, R].
            mask: 1 at the tokens that count [B, R].

        Returns:
            Values (0 outside the mask), advantages and returns, each [B, R].
        """
        values, rewards = values * mask, rewards * mask
        if self.config.whiten_rewards:
            rewards = masked_whiten(rewards, mask, shift_mean=False)
        everywhere = torch.ones_like(rewards, dtype=torch.bool)
        advantages = gae(rewards, values, everywhere, self.config.gamma, self.config.lam)
        returns = advantages + values
        return values, masked_whiten(advantages, mask).detach(), returns

    def loss(  # noqa: PLR0913 - as programs call it
        self,
        old_logprobs: Tensor,
        values: Tensor,
        logits: Tensor | None,
        vpreds: Tensor,
        logprobs: Tensor,
        mask: Tensor,
        advantages: Tensor,
        returns: Tensor,
        *,
        entropy: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Policy and value loss of a mini-batch; every tensor [B, R] unless said otherwise.

        A mini-batch whose mean ratio exceeds `ratio_threshold` gives zeros without gradient, and
        then no step is taken. (TRL multiplied by 0 and stepped.)

        Args:
            old_logprobs: when the responses were sampled.
            values: then.
            logits: now [B, R, V]; for the entropy only.
            vpreds: values now.
            logprobs: now.
            mask: 1 at the tokens that count.
            advantages: whitened.
            returns: of `compute_advantages`.
            entropy: of the distributions now, instead of `logits`.

        Returns:
            Policy loss, `vf_coef` * value loss, and statistics.
        """
        if entropy is None:
            entropy = old_logprobs if logits is None else entropy_from_logits(logits.detach())
        batch = TokenBatch(
            logprobs=old_logprobs,
            values=values,
            advantages=advantages,
            returns=returns,
            mask=mask != 0,
        )
        terms = minibatch_loss(self.config, logprobs, vpreds, entropy, batch)
        policy, value = terms.policy, self.config.vf_coef * terms.value
        if not terms.ratio <= self.config.ratio_threshold:
            self._on_skip(f"mean ratio {terms.ratio:.2f} exceeds ratio_threshold")
            policy, value = torch.zeros_like(policy), torch.zeros_like(value)
            terms.stats.update({f"loss/{k}": policy for k in ("policy", "value", "total")})
        return policy, value, terms.stats

    def _on_skip(self, why: str) -> None:
        """Say that a mini-batch is left out."""
        caution(f"A mini-batch is skipped: {why}.")
