"""PPO epochs over one rollout: accumulate microbatches, check, step."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lora_detox.signals import end_if_asked
from lora_detox.types import (
    Advantages,
    FrozenStates,
    Policy,
    Rollout,
    Sampling,
    UpdateStats,
    moved_kl,
)
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


FIELDS = tuple(one.name for one in fields(PpoLoss))
_POLICY, _VALUE, _RATIO = (FIELDS.index(name) for name in ("policy", "value", "ratio"))


class _Totals:
    """Running sums of one update, in fp64 on the policy's device: the host does not wait for them.

    `losses` are those of `ppo_loss` by FIELDS, `entropy` is in nats, `tokens` are known beforehand,
    `steps` counts the optimizer steps that were taken, `norm` is the sum of their gradient norms.
    """

    def __init__(self, device: torch.device) -> None:
        self.losses = torch.zeros(len(FIELDS), dtype=torch.float64, device=device)
        self.entropy, self.steps, self.norm = self.losses.new_zeros(3).unbind()
        self.tokens = 0

    def add(self, losses: Tensor, entropy: Tensor, tokens: int) -> None:
        """Of one microbatch."""
        self.losses = self.losses + losses
        self.entropy = self.entropy + entropy
        self.tokens += tokens

    @property
    def means(self) -> Tensor:
        """The losses by token."""
        return self.losses / max(self.tokens, 1)


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
        `approx_kl`, less that of rounding, above 1.5 * `target_kl` is the last.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.learning_rate_at(iteration)
        generator = torch.Generator().manual_seed(iteration)
        torch.manual_seed(iteration)  # dropout has no generator of its own, and must resume alike
        tokens, totals = _token_counts(rollout), _Totals(rollout.response_mask.device)
        ratio_errors: list[Tensor] = []
        epochs, early_stopped = 0, False
        with self.policy.training():
            for _ in range(self.plan.ppo_epochs):
                epochs += 1
                epoch = _Totals(rollout.response_mask.device)
                for index in torch.randperm(len(rollout.minibatches), generator=generator).tolist():
                    error = self._minibatch(
                        rollout,
                        advantages,
                        index,
                        tokens[index],
                        (totals, epoch),
                        first=epochs == 1,
                    )
                    ratio_errors.append(error)
                if self._moved_too_far(epoch, rollout.noise_kl):
                    early_stopped = True
                    break
        return self._stats(totals, ratio_errors[0], rollout, epochs, early_stopped=early_stopped)

    def _moved_too_far(self, epoch: _Totals, noise_kl: float) -> bool:
        limit = self.plan.target_kl
        if limit is None:
            return False
        return moved_kl(float(epoch.means[FIELDS.index("approx_kl")]), noise_kl) > 1.5 * limit

    def _minibatch(
        self,
        rollout: Rollout,
        advantages: Advantages,
        index: int,
        tokens: list[int],
        running: tuple[_Totals, _Totals],
        *,
        first: bool,
    ) -> Tensor:
        """Accumulate a minibatch's gradient, take one step or none; its largest ratio error."""
        microbatches = rollout.minibatches[index]
        frozen = (None,) * len(microbatches) if rollout.frozen is None else rollout.frozen[index]
        own, errors = _Totals(rollout.response_mask.device), []
        self.optimizer.zero_grad(set_to_none=True)
        for rows, kept, count in zip(microbatches, frozen, tokens, strict=True):
            end_if_asked()
            losses, entropy, error = self._microbatch(
                rollout, advantages, rows, kept, sum(tokens), with_entropy=first
            )
            errors.append(error)
            for one in (own, *running):
                one.add(losses, entropy, count)
        norm, means = self._clip_gradients(), own.means
        finite = norm.isfinite() & means[_POLICY].isfinite() & means[_VALUE].isfinite()
        bad = ~finite | (means[_RATIO] > self.plan.ratio_threshold)
        self._step_unless(bad)
        totals, _ = running
        totals.steps = totals.steps + ~bad
        totals.norm = totals.norm + torch.where(bad, 0.0, norm.double())
        return torch.stack(errors).max()

    def _step_unless(self, bad: Tensor) -> None:
        """One optimizer step, or none; a fused optimizer reads on the device whether.

        It is told as a scaler of gradients tells it of infinite ones (torch.amp.GradScaler).
        """
        if self.optimizer.defaults.get("fused"):
            self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
            self.optimizer.step()
            del self.optimizer.found_inf  # type: ignore[attr-defined]
        elif not bad:
            self.optimizer.step()

    def _microbatch(
        self,
        rollout: Rollout,
        advantages: Advantages,
        rows: Tensor,
        frozen: FrozenStates | None,
        minibatch_tokens: int,
        *,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Forward and backward of some rows, weighted by their part of the minibatch's tokens.

        Sums of the losses by FIELDS and of the entropy, and the largest ratio error.
        """
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
        losses = torch.stack([getattr(loss, name).detach() for name in FIELDS]).double()
        return losses, outputs.entropy.sum().double(), (drift.exp() - 1).abs().max()

    def _clip_gradients(self) -> Tensor:
        """The gradient norm before clipping; a list, as an iterator would be empty next time."""
        parameters = list(self.policy.trainable_parameters())
        limit = self.plan.max_grad_norm
        return torch.nn.utils.clip_grad_norm_(parameters, torch.inf if limit is None else limit)

    def _stats(
        self,
        totals: _Totals,
        ratio_error: Tensor,
        rollout: Rollout,
        epochs: int,
        *,
        early_stopped: bool,
    ) -> UpdateStats:
        """The host waits here, once."""
        numbers = torch.stack([*totals.means, totals.entropy, totals.steps, totals.norm]).tolist()
        means, (entropy, steps, norm) = dict(zip(FIELDS, numbers, strict=False)), numbers[-3:]
        valued = self.policy.has_value_head
        return UpdateStats(
            policy_loss=means["policy"],
            value_loss=means["value"] if valued else None,
            entropy=entropy * epochs / max(totals.tokens, 1),
            approx_kl=means["approx_kl"],
            noise_kl=rollout.noise_kl,
            clip_fraction=means["clipped"],
            value_clip_fraction=means["value_clipped"] if valued else None,
            ratio=means["ratio"],
            first_ratio_error=float(ratio_error),
            gradient_norm=norm / max(steps, 1),
            learning_rate=float(self.optimizer.param_groups[0]["lr"]),
            optimizer_steps=int(steps),
            skipped_steps=epochs * len(rollout.minibatches) - int(steps),
            ppo_epochs=epochs,
            early_stopped=early_stopped,
        )


def _token_counts(rollout: Rollout) -> list[list[int]]:
    """Response tokens by minibatch and microbatch; the host waits once for all of them."""
    lengths = rollout.response_mask.sum(dim=1)
    sums = [lengths[rows].sum() for minibatch in rollout.minibatches for rows in minibatch]
    counts = iter(torch.stack(sums).tolist())
    return [[next(counts) for _ in minibatch] for minibatch in rollout.minibatches]
