"""PPO epochs over one rollout: accumulate microbatches, check, step."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lora_detox.fitting import PASSES, attempt, rows_at_once
from lora_detox.processes import processes
from lora_detox.signals import end_if_asked
from lora_detox.types import (
    Advantages,
    Policy,
    Rollout,
    Sampling,
    UpdateStats,
    moved_kl,
)
from lora_detox.update.gradients import add_up_gradients
from lora_detox.update.minibatches import (
    FIELDS,
    Microbatch,
    Minibatch,
    Sums,
    Totals,
    minibatches_of,
)
from lora_detox.update.ppo_loss import TokenBatch, ppo_loss, ref_kl_loss


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


_POLICY, _VALUE, _RATIO = (FIELDS.index(name) for name in ("policy", "value", "ratio"))


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
        # Dropout has no generator of its own, and must resume alike; other rows, other draws.
        torch.manual_seed(iteration + (processes().rank << 32))
        minibatches, totals = minibatches_of(rollout), Totals(rollout.response_mask.device)
        ratio_errors: list[Tensor] = []
        epochs, early_stopped = 0, False
        with self.policy.training():
            for _ in range(self.plan.ppo_epochs):
                epochs += 1
                epoch = Totals(rollout.response_mask.device)
                for index in torch.randperm(len(minibatches), generator=generator).tolist():
                    error = self._minibatch(
                        rollout,
                        advantages,
                        minibatches[index],
                        (totals, epoch),
                        first=epochs == 1,
                    )
                    ratio_errors.append(error)
                if self._moved_too_far(epoch, rollout.noise_kl):
                    early_stopped = True
                    break
        return self._stats(totals, ratio_errors[0], rollout, epochs, early_stopped=early_stopped)

    def _moved_too_far(self, epoch: Totals, noise_kl: float) -> bool:
        limit = self.plan.target_kl
        if limit is None:
            return False
        return moved_kl(float(epoch.means[FIELDS.index("approx_kl")]), noise_kl) > 1.5 * limit

    def _minibatch(
        self,
        rollout: Rollout,
        advantages: Advantages,
        minibatch: Minibatch,
        running: tuple[Totals, Totals],
        *,
        first: bool,
    ) -> Tensor:
        """Accumulate a minibatch's gradient, take one step or none; its largest ratio error."""
        own = Totals(rollout.response_mask.device)
        sums = self._accumulate(rollout, advantages, minibatch, with_entropy=first)
        sums = self._over_processes(sums, minibatch.tokens, rollout.response_mask.device)
        for part in sums:
            for one in (own, *running):
                one.add(part.losses, part.entropy, part.tokens)
        norm, means = self._clip_gradients(), own.means
        finite = norm.isfinite() & means[_POLICY].isfinite() & means[_VALUE].isfinite()
        bad = ~finite | (means[_RATIO] > self.plan.ratio_threshold)
        self._step_unless(bad)
        totals, _ = running
        totals.steps = totals.steps + ~bad
        totals.norm = totals.norm + torch.where(bad, 0.0, norm.double())
        return torch.stack([part.error for part in sums]).max()

    def _over_processes(self, sums: list[Sums], tokens: int, device: torch.device) -> list[Sums]:
        """Gradient and sums of the whole minibatch, as one part; with one process as they are."""
        us, count = processes(), len(FIELDS) + 1
        if us.size == 1:
            return sums
        add_up_gradients(self.policy.trainable_parameters())
        numbers = torch.zeros(count + us.size, dtype=torch.float64, device=device)
        for part in sums:
            numbers[:count] += torch.cat([part.losses, part.entropy[None]])
        if sums:  # each process has a place of its own, so that no maximum has to travel
            numbers[count + us.rank] = torch.stack([part.error for part in sums]).max()
        us.add_up(numbers)
        losses, entropy, errors = numbers.split([len(FIELDS), 1, us.size])
        return [Sums(losses=losses, entropy=entropy[0], error=errors.max(), tokens=tokens)]

    def _accumulate(
        self,
        rollout: Rollout,
        advantages: Advantages,
        minibatch: Minibatch,
        *,
        with_entropy: bool,
    ) -> list[Sums]:
        """The gradient of this process's rows, and what `_microbatch` says of each part of them.

        Where memory runs out, the list becomes one of smaller microbatches, and the minibatch
        begins anew: without gradients, with the same draws.
        """
        microbatches, device = minibatch.parts, rollout.response_mask.device
        draws = _draws(device)
        while True:
            microbatches[:] = [part for one in microbatches for part in self._cut(one, rollout)]
            self.optimizer.zero_grad(set_to_none=True)
            sums: list[Sums] = []
            for one in microbatches:
                end_if_asked()
                work = partial(self._microbatch, rollout, advantages, one, minibatch.tokens)
                done = attempt(PASSES, len(one.rows), partial(work, with_entropy=with_entropy))
                if done is None:
                    break
                sums.extend(done)
            if len(sums) == len(microbatches):
                return sums
            _draw_again(draws, device)

    def _cut(self, microbatch: Microbatch, rollout: Rollout) -> list[Microbatch]:
        """The same rows in parts that fit into memory, as far as that is known."""
        size = rows_at_once(PASSES, len(microbatch.rows))
        if size == len(microbatch.rows):
            return [microbatch]
        return [
            Microbatch(
                rows=rows,
                frozen=None if microbatch.frozen is None else self.policy.frozen_states(),
                tokens=int(rollout.response_mask[rows].sum()),
            )
            for rows in microbatch.rows.split(size)
        ]

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
        microbatch: Microbatch,
        minibatch_tokens: int,
        *,
        with_entropy: bool,
    ) -> Sums:
        """Forward and backward of some rows, weighted by their part of the minibatch's tokens."""
        plan, prompts, rows = self.plan, rollout.prompts, microbatch.rows
        outputs = self.policy.respond(
            prompts.query_ids[rows],
            prompts.query_mask[rows],
            rollout.response_ids[rows],
            rollout.response_mask[rows],
            self.sampling,
            microbatch.frozen,
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
        return Sums(
            losses=losses,
            entropy=outputs.entropy.sum().double(),
            error=(drift.exp() - 1).abs().max(),
            tokens=microbatch.tokens,
        )

    def _clip_gradients(self) -> Tensor:
        """The gradient norm before clipping; a list, as an iterator would be empty next time."""
        parameters = list(self.policy.trainable_parameters())
        limit = self.plan.max_grad_norm
        return torch.nn.utils.clip_grad_norm_(parameters, torch.inf if limit is None else limit)

    def _stats(
        self,
        totals: Totals,
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


def _draws(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Where the generators of dropout are, on the CPU and on a GPU."""
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), on_gpu


def _draw_again(draws: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """Put the generators back to where they were."""
    on_cpu, on_gpu = draws
    torch.set_rng_state(on_cpu)
    if on_gpu is not None:
        torch.cuda.set_rng_state(on_gpu, device)
