"""PPO epochs over one rollout: accumulate microbatches, check, step."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lora_detox.types import Advantages, FrozenStates, Policy, Rollout, Sampling, UpdateStats
from lora_detox.update.ppo_loss import PpoLoss, TokenBatch, ppo_loss, ref_kl_loss


@dataclass(frozen=True, kw_only=True)
class PpoPlan:
    """Numbers of the update; units and sources stand in conf/algorithm/ppo.yaml."""

    ppo_epochs: int
    clip_range: float
    value_clip_range: float
    value_coef: float
    max_grad_norm: float | None
    ratio_threshold: float
    target_kl: float | None


@dataclass
class _Totals:
    """Running sums of one update, over minibatches."""

    tokens: float = 0.0
    entropy: float = 0.0
    steps: int = 0
    skipped: int = 0
    epochs: int = 0
    norm: float = 0.0
    first_ratio_error: float | None = None
    early_stopped: bool = False
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, loss: PpoLoss, entropy: float, tokens: int) -> None:
        self.tokens += tokens
        self.entropy += entropy
        for name, value in vars(loss).items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())

    def mean(self, name: str) -> float:
        return self.sums.get(name, 0.0) / max(self.tokens, 1.0)


class PpoUpdate:
    """Holds the optimizer; `step` moves the adapter and the value head by one rollout.

    Args:
        policy: whose `trainable_parameters` the optimizer moves.
        optimizer: any torch optimizer over those parameters.
        plan: epochs, clipping and stopping.
        sampling: the distribution that responses were drawn from.
        learning_rate_at: factor on each group's initial learning rate by iteration, from 0.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        plan: PpoPlan,
        sampling: Sampling,
        learning_rate_at: Callable[[int], float] = lambda iteration: 1.0,
    ) -> None:
        self.policy, self.optimizer, self.plan, self.sampling = policy, optimizer, plan, sampling
        self.learning_rate_at = learning_rate_at
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def step(self, rollout: Rollout, advantages: Advantages, iteration: int) -> UpdateStats:
        """Run the PPO epochs; minibatch order and adapter dropout are drawn from `iteration`.

        A minibatch whose loss or gradient is not finite, or whose mean ratio exceeds
        `ratio_threshold`, leads to no optimizer step and counts as skipped. An epoch that ends with
        `approx_kl` above 1.5 * `target_kl` is the last.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.learning_rate_at(iteration)
        generator = torch.Generator().manual_seed(iteration)
        torch.manual_seed(iteration)  # dropout has no generator of its own, and must resume alike
        totals = _Totals()
        with self.policy.training():
            for _ in range(self.plan.ppo_epochs):
                totals.epochs += 1
                epoch = _Totals()
                for index in torch.randperm(len(rollout.minibatches), generator=generator).tolist():
                    self._minibatch(rollout, advantages, index, totals, epoch)
                limit = self.plan.target_kl
                if limit is not None and epoch.mean("approx_kl") > 1.5 * limit:
                    totals.early_stopped = True
                    break
        return self._stats(totals)

    def _minibatch(
        self,
        rollout: Rollout,
        advantages: Advantages,
        index: int,
        totals: _Totals,
        epoch: _Totals,
    ) -> None:
        """Accumulate the gradient of a minibatch and take one optimizer step, or none."""
        plan, microbatches = self.plan, rollout.minibatches[index]
        frozen = (None,) * len(microbatches) if rollout.frozen is None else rollout.frozen[index]
        tokens = int(sum(rollout.response_mask[rows].sum() for rows in microbatches))
        own, ratio_error = _Totals(), 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for rows, kept in zip(microbatches, frozen, strict=True):
            loss, entropy, error = self._microbatch(
                rollout, advantages, rows, kept, tokens, with_entropy=totals.epochs == 1
            )
            ratio_error = max(ratio_error, error)
            for running in (own, totals, epoch):
                running.add(loss, entropy, int(rollout.response_mask[rows].sum()))
        if totals.first_ratio_error is None:
            totals.first_ratio_error = ratio_error
        norm = self._clip_gradients()
        finite = torch.isfinite(norm) and all(
            torch.isfinite(torch.tensor(own.mean(name))) for name in ("policy", "value")
        )
        if not finite or own.mean("ratio") > plan.ratio_threshold:
            totals.skipped += 1
            self.optimizer.zero_grad(set_to_none=True)
            return
        self.optimizer.step()
        totals.steps += 1
        totals.norm += float(norm)

    def _microbatch(
        self,
        rollout: Rollout,
        advantages: Advantages,
        rows: Tensor,
        frozen: FrozenStates | None,
        minibatch_tokens: int,
        *,
        with_entropy: bool,
    ) -> tuple[PpoLoss, float, float]:
        """Forward and backward of some rows, weighted by their part of the minibatch's tokens."""
        plan, prompts = self.plan, rollout.prompts
        outputs = self.policy.respond(
            prompts.query_ids[rows],
            prompts.query_mask[rows],
            rollout.response_ids[rows],
            rollout.response_mask[rows],
            self.sampling,
            frozen,
            with_entropy=with_entropy,
        )
        batch = TokenBatch(
            logprobs=rollout.logprobs[rows],
            values=rollout.values[rows],
            advantages=advantages.advantages[rows],
            returns=advantages.returns[rows],
            mask=rollout.response_mask[rows],
        )
        loss = ppo_loss(
            outputs.logprobs, outputs.values, batch, plan.clip_range, plan.value_clip_range
        )
        objective = loss.policy
        if self.policy.has_value_head:
            objective = objective + plan.value_coef * loss.value
        if advantages.kl_coef_in_loss:
            kl = ref_kl_loss(outputs.logprobs, rollout.ref_logprobs[rows], batch.mask)
            objective = objective + advantages.kl_coef_in_loss * kl
        (objective / minibatch_tokens).backward()
        drift = (outputs.logprobs.detach() - batch.logprobs) * batch.mask
        return loss, float(outputs.entropy.sum()), float((drift.exp() - 1).abs().max())

    def _clip_gradients(self) -> Tensor:
        """The gradient norm before clipping; a list, as an iterator would be empty next time."""
        parameters = list(self.policy.trainable_parameters())
        limit = self.plan.max_grad_norm
        return torch.nn.utils.clip_grad_norm_(parameters, torch.inf if limit is None else limit)

    def _stats(self, totals: _Totals) -> UpdateStats:
        valued = self.policy.has_value_head
        return UpdateStats(
            policy_loss=totals.mean("policy"),
            value_loss=totals.mean("value") if valued else None,
            entropy=totals.entropy * totals.epochs / max(totals.tokens, 1.0),
            approx_kl=totals.mean("approx_kl"),
            clip_fraction=totals.mean("clipped"),
            value_clip_fraction=totals.mean("value_clipped") if valued else None,
            ratio=totals.mean("ratio"),
            first_ratio_error=totals.first_ratio_error or 0.0,
            gradient_norm=totals.norm / max(totals.steps, 1),
            learning_rate=float(self.optimizer.param_groups[0]["lr"]),
            optimizer_steps=totals.steps,
            skipped_steps=totals.skipped,
            ppo_epochs=totals.epochs,
            early_stopped=totals.early_stopped,
        )
