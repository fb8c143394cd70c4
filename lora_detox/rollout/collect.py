"""PromptBatch -> Rollout: sample, then take logprobs, reference logprobs and values together."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lora_detox.fitting import PASSES, fitted, rows_at_once
from lora_detox.processes import processes
from lora_detox.rollout.generation import Responses
from lora_detox.rollout.passes import Passes, partition_rows
from lora_detox.signals import end_if_asked
from lora_detox.types import FrozenStates, Policy, PromptBatch, Rollout, Sampling

_NUMBERS = ("logprobs", "ref_logprobs", "values")


@torch.no_grad()
def collect_rollout(
    policy: Policy,
    prompts: PromptBatch,
    responses: Responses,
    sampling: Sampling,
    *,
    minibatch_size: int,
    passes: Passes,
    seed: int,
    full_kl: bool = False,
) -> Rollout:
    """Attach to sampled responses what the policy, the reference and the value head say of them.

    One pass of the policy gives logprobs and values, one of the reference its logprobs, in the
    very microbatches that the update will use.

    Args:
        policy: policy, reference and value head on one backbone.
        prompts: B prompts.
        responses: their sampled responses; ids are kept, text is never encoded again.
        sampling: what the responses were drawn with.
        minibatch_size: rows per optimizer step; must divide B.
        passes: how rows are cut into forward passes; into smaller ones where memory runs out.
        seed: of the partition into minibatches.
        full_kl: also take the exact KL at each position, for the `full` penalty.

    Returns:
        The rollout; every float tensor is 0 at padding. Its minibatches have the rows that this
        process reads, its tensors those of all.
    """
    minibatches = partition_rows(
        prompts.query_mask.sum(dim=1),
        responses.mask.sum(dim=1),
        minibatch_size=minibatch_size,
        passes=replace(passes, rows=rows_at_once(PASSES, passes.rows)),
        seed=seed,
    )
    read = _Reading(policy, prompts, responses, sampling, full_kl=full_kl)
    done = [[one for rows in m for one in fitted(PASSES, rows, read)] for m in minibatches]
    read.share()
    device = responses.ids.device
    return Rollout(
        prompts=prompts,
        response_ids=responses.ids,
        response_mask=responses.mask,
        response_texts=responses.texts,
        minibatches=tuple(tuple(rows for rows, _ in m) for m in done),
        full_kl=read.filled["full_kl"].to(device) if full_kl else None,
        frozen=tuple(tuple(kept for _, kept in m) for m in done),
        noise_kl=processes().gather(read.noise)[0] or 0.0,
        **{name: read.filled[name].to(device) for name in _NUMBERS},
    )


class _Reading:
    """What is read of the rows of this process, one microbatch a call.

    `filled` has the numbers of all rows by name, 0 where none is read; `noise` is that of the first
    microbatch, None before it; `rows` were read by this process.
    """

    def __init__(
        self,
        policy: Policy,
        prompts: PromptBatch,
        responses: Responses,
        sampling: Sampling,
        *,
        full_kl: bool,
    ) -> None:
        self.policy, self.prompts, self.responses = policy, prompts, responses
        self.sampling, self.full_kl = sampling, full_kl
        shape = responses.mask.shape
        self.filled = {name: torch.zeros(shape) for name in (*_NUMBERS, "full_kl")}
        self.noise: float | None = None
        self.rows: list[Tensor] = []

    def __call__(self, rows: Tensor) -> FrozenStates:
        """Read some rows; what of them the update need not compute again."""
        end_if_asked()
        policy, prompts, responses = self.policy, self.prompts, self.responses
        kept = policy.frozen_states()
        ids = (prompts.query_ids[rows], prompts.query_mask[rows], responses.ids[rows])
        batch = (*ids, responses.mask[rows], self.sampling, kept)
        numbers = _numbers_of(policy, batch, full_kl=self.full_kl)
        if self.noise is None:
            self.noise = noise_kl(policy, batch, numbers["logprobs"])
        places = rows.cpu()
        for name, values in numbers.items():
            self.filled[name][places] = values.cpu()
        self.rows.append(places)
        return kept

    def share(self) -> None:
        """Give all processes the numbers of all rows."""
        none = torch.zeros(0, dtype=torch.long)  # where this process has no rows
        processes().fill(torch.cat([none, *self.rows]), *self.filled.values())


def rollout_of_start(prompts: PromptBatch, responses: Responses) -> Rollout:
    """What can be measured of responses while the policy is its reference; no update may follow.

    Args:
        prompts: B prompts.
        responses: sampled from policy and reference alike, so that what they were drawn with are
            the logprobs of both.

    Returns:
        A rollout without values, minibatches and noise.
    """
    return Rollout(
        prompts=prompts,
        response_ids=responses.ids,
        response_mask=responses.mask,
        logprobs=responses.logprobs,
        ref_logprobs=responses.logprobs,
        values=torch.zeros_like(responses.logprobs),
        response_texts=responses.texts,
        minibatches=(),
    )


def noise_kl(policy: Policy, batch: tuple[Any, ...], logprobs: Tensor) -> float:
    """How far rounding alone takes logprobs: mean of 0.5 * difference^2, nats per token.

    Args:
        policy: of which `logprobs` are known.
        batch: arguments of `respond` for one microbatch.
        logprobs: of its tokens [b, R], 0 at padding.

    Returns:
        0 where nothing is rounded (fp32). Tokens that only one of the passes can draw are left out.
    """
    with policy.nudged() as rounds:
        if not rounds:
            return 0.0
        again = policy.respond(*batch, with_entropy=False).logprobs
    gap = (again - logprobs).nan_to_num(posinf=0.0, neginf=0.0)
    return 0.5 * float(gap.square().sum() / batch[3].sum().clamp(min=1))


def _numbers_of(policy: Policy, batch: tuple[Any, ...], *, full_kl: bool) -> dict[str, Tensor]:
    """Numbers of one microbatch by name, each [b, R]."""
    own = policy.respond(*batch, with_entropy=False)
    with policy.reference():
        reference = policy.respond(*batch, with_entropy=False)
    numbers = dict(zip(_NUMBERS, (own.logprobs, reference.logprobs, own.values), strict=True))
    return numbers | ({"full_kl": policy.full_kl(*batch)} if full_kl else {})
