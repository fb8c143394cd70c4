"""PromptBatch -> Rollout: sample, then take logprobs, reference logprobs and values together."""

from itertools import chain

import torch

from lora_detox.rollout.generation import Responses
from lora_detox.rollout.passes import Passes, partition_rows
from lora_detox.types import Policy, PromptBatch, Rollout, Sampling


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
        passes: how rows are cut into forward passes.
        seed: of the partition into minibatches.
        full_kl: also take the exact KL at each position, for the `full` penalty.

    Returns:
        The rollout; every float tensor is 0 at padding.
    """
    minibatches = partition_rows(
        prompts.query_mask.sum(dim=1),
        responses.mask.sum(dim=1),
        minibatch_size=minibatch_size,
        passes=passes,
        seed=seed,
    )
    frozen = tuple(tuple(policy.frozen_states() for _ in m) for m in minibatches)
    logprobs, ref_logprobs, values, exact = (torch.zeros(responses.mask.shape) for _ in range(4))
    for rows, kept in zip(chain(*minibatches), chain(*frozen), strict=True):
        batch = (
            prompts.query_ids[rows],
            prompts.query_mask[rows],
            responses.ids[rows],
            responses.mask[rows],
        )
        outputs = policy.respond(*batch, sampling, kept, with_entropy=False)
        logprobs[rows.cpu()], values[rows.cpu()] = outputs.logprobs.cpu(), outputs.values.cpu()
        with policy.reference():
            reference = policy.respond(*batch, sampling, kept, with_entropy=False)
        ref_logprobs[rows.cpu()] = reference.logprobs.cpu()
        if full_kl:
            exact[rows.cpu()] = policy.full_kl(*batch, sampling, kept).cpu()
    device = responses.ids.device
    return Rollout(
        prompts=prompts,
        response_ids=responses.ids,
        response_mask=responses.mask,
        logprobs=logprobs.to(device),
        ref_logprobs=ref_logprobs.to(device),
        values=values.to(device),
        response_texts=responses.texts,
        minibatches=minibatches,
        full_kl=exact.to(device) if full_kl else None,
        frozen=frozen,
    )
