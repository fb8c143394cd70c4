"""Responses to any number of prompts, in length-sorted batches, with seeds by row."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lora_detox.fitting import GENERATION, fitted
from lora_detox.processes import processes
from lora_detox.rollout.sampling import sample_responses
from lora_detox.types import Policy, PromptBatch, Sampling


@dataclass(frozen=True, kw_only=True)
class Responses:
    """Sampled responses in the order of their prompts.

    Attributes:
        ids: token ids [B, R], end-of-sequence included.
        mask: True at sampled tokens [B, R].
        logprobs: what each token was drawn with [B, R], nats, 0 at padding.
        texts: B decoded responses.
        discarded_tokens: tokens of further responses that were drawn and not kept.
    """

    ids: Int[Tensor, "B R"]
    mask: Bool[Tensor, "B R"]
    logprobs: Float[Tensor, "B R"]
    texts: list[str]
    discarded_tokens: int = 0


@runtime_checkable
class Generate(Protocol):
    """Anything that answers prompts as `generate_responses` does."""

    def __call__(
        self,
        policy: Policy,
        prompts: PromptBatch,
        sampling: Sampling,
        *,
        response_tokens: tuple[int, int],
        batch_size: int,
        seed: int,
    ) -> Responses:
        """One response to each prompt, in their order."""


@torch.no_grad()
def generate_responses(
    policy: Policy,
    prompts: PromptBatch,
    sampling: Sampling,
    *,
    response_tokens: tuple[int, int],
    batch_size: int,
    seed: int,
) -> Responses:
    """Sample one response to each prompt.

    Args:
        policy: what writes.
        prompts: B prompts.
        sampling: distribution of tokens.
        response_tokens: each row's bound on new tokens is drawn from this inclusive range (the
            output-length sampler of the GPT-J detox script); equal ends fix it.
        batch_size: rows that are written together, fewer where memory runs out; sorted by query
            length first, so that a batch wastes little on padding.
        seed: of all draws; row i gets the same numbers whatever the batch size, and whichever of
            several processes writes it.

    Returns:
        Responses in the order of the prompts, in every process all of them.
    """
    count, (low, high) = len(prompts.texts), response_tokens
    device = prompts.query_ids.device
    generator = torch.Generator().manual_seed(seed)
    bounds = torch.randint(low, high + 1, (count,), generator=generator).to(device)
    uniforms = torch.rand(count, high, generator=generator, dtype=torch.float64).to(device)
    ids = torch.full((count, high), policy.pad_token_id, device=device)
    mask = torch.zeros((count, high), dtype=torch.bool, device=device)
    logprobs = torch.zeros((count, high), device=device)
    order = prompts.query_mask.sum(dim=1).argsort(descending=True, stable=True)
    own = processes().share(order)

    def write(rows: Tensor) -> None:
        columns = prompts.query_mask[rows].any(dim=0)
        query_ids, query_mask = prompts.query_ids[rows], prompts.query_mask[rows]
        ids[rows], mask[rows], logprobs[rows] = sample_responses(
            policy,
            query_ids[:, columns],
            query_mask[:, columns],
            sampling,
            bounds[rows],
            uniforms[rows],
        )

    with policy.merged():
        for rows in filter(len, own.split(batch_size)):
            fitted(GENERATION, rows, write)
    processes().fill(own, ids, mask, logprobs)
    width = max(1, int(mask.any(dim=0).sum()))
    ids, mask, logprobs = ids[:, :width], mask[:, :width], logprobs[:, :width]
    texts = policy.decode_texts(ids, mask)
    return Responses(ids=ids, mask=mask, logprobs=logprobs, texts=texts)
