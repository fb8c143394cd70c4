"""Bytes that each phase of an iteration holds beside the weights, counted on fake tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lora_detox.memory.live_bytes import LiveBytes
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.token_stats import token_logprobs
from lora_detox.rollout.sampling import draw
from lora_detox.types import FrozenStates, Sampling


@dataclass(frozen=True, kw_only=True)
class PassShape:
    """Rows that go through the model together, and the longest of them.

    Attributes:
        rows: responses.
        query: query tokens.
        response: response tokens.
    """

    rows: int
    query: int
    response: int


@dataclass(frozen=True, kw_only=True)
class UpdateBytes:
    """Forward and backward of one microbatch, in bytes.

    Attributes:
        kept: held between forward and backward.
        transient: further bytes at the peak (logits of a chunk, or gradients on their way).
        frozen: states below the adapter that stay for all epochs.
    """

    kept: int
    transient: int
    frozen: int


@dataclass(frozen=True, kw_only=True)
class GenerationBytes:
    """Writing the responses of one batch, in bytes.

    Attributes:
        cache: keys and values at the last token, encoder states included.
        transient: further bytes at the peak (logits, sampling, or the reading of the queries).
    """

    cache: int
    transient: int


def update_bytes(policy: LoraPolicy, shape: PassShape, sampling: Sampling) -> UpdateBytes:
    """Count a microbatch of the update; the states below the adapter are there already.

    Args:
        policy: from `fake_policy`.
        shape: of the microbatch.
        sampling: the distribution of tokens.

    Returns:
        Bytes; gradients of the adapter are left out.
    """
    frozen = policy.frozen_states()
    if policy.frozen_part.exists:
        with torch.no_grad():
            _hidden(policy, shape, frozen)
    frozen_bytes = _bytes_of(frozen)
    with policy.training(), LiveBytes() as live:
        hidden = _hidden(policy, shape, frozen)
        loss = _loss(policy, hidden, sampling)
        kept = live.live
        loss.backward()
        for parameter in policy.trainable_parameters():
            parameter.grad = None
    return UpdateBytes(kept=kept, transient=live.peak - kept, frozen=frozen_bytes)


def reference_bytes(policy: LoraPolicy, shape: PassShape, sampling: Sampling) -> int:
    """Most bytes of a pass without gradient over one microbatch, frozen states not counted."""
    frozen = policy.frozen_states()
    with torch.no_grad(), LiveBytes() as live:
        _loss(policy, _hidden(policy, shape, frozen), sampling)
    peak: int = live.peak
    return peak - _bytes_of(frozen)


def generation_bytes(policy: LoraPolicy, shape: PassShape, sampling: Sampling) -> GenerationBytes:
    """Count the first two steps of writing; the cache grows in proportion from there.

    Args:
        policy: from `fake_policy`.
        shape: of the batch that is written together.
        sampling: the distribution of tokens.

    Returns:
        Bytes at the last token, or at the reading of the queries where that is more.
    """
    query_ids = torch.zeros(shape.rows, shape.query, dtype=torch.long)
    uniform = torch.zeros(shape.rows, dtype=torch.float64)
    with torch.no_grad(), LiveBytes() as live:
        session = policy.decoding(query_ids, torch.ones_like(query_ids).bool(), sampling)
        token_ids = _draw(session.next_logits(None), uniform)
        reading, first = live.peak, live.live
        live.reset_peak()
        token_ids = _draw(session.next_logits(token_ids), uniform)
        grown = live.live - first
        transient = live.peak - live.live
    cache = first + grown * max(0, shape.response - 1)
    del token_ids
    return GenerationBytes(cache=cache, transient=max(transient, reading - cache))


def _draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """As `sample_responses` does at each position."""
    token_ids = draw(logits, uniform, greedy=False)
    logits.log_softmax(dim=-1).gather(-1, token_ids[:, None])
    return token_ids


def _hidden(policy: LoraPolicy, shape: PassShape, frozen: FrozenStates | None) -> Tensor:
    """States behind the response tokens [N, H], as `LoraPolicy.respond` has them."""
    query_ids = torch.zeros(shape.rows, shape.query, dtype=torch.long)
    response_ids = torch.zeros(shape.rows, shape.response, dtype=torch.long)
    masks = (torch.ones_like(ids).bool() for ids in (query_ids, response_ids))
    query_mask, response_mask = masks
    with policy.frozen_part.use(frozen):
        hidden = policy.family.response_hidden(
            policy.backbone,
            query_ids,
            query_mask,
            response_ids,
            response_mask,
            frozen if policy.frozen_part.encoder else None,
        )
    return hidden.flatten(0, 1).clone()  # the real one selects by mask, which copies


def _loss(policy: LoraPolicy, hidden: Tensor, sampling: Sampling) -> Tensor:
    """A number that depends on logprobs and values, as the PPO loss does."""
    tokens = torch.zeros(len(hidden), dtype=torch.long)
    logprobs, entropy = token_logprobs(
        hidden,
        tokens,
        torch.zeros_like(tokens),
        policy.to_logits(sampling),
        policy.vocabulary,
        head_learns=policy.head_learns,
    )
    loss: Tensor = logprobs.sum() + entropy.sum()
    return loss if policy.value_head is None else loss + policy.value_head(hidden).sum()


def _bytes_of(frozen: FrozenStates | None) -> int:
    if frozen is None:
        return 0
    lower = frozen.lower if isinstance(frozen.lower, tuple) else (frozen.lower,)
    tensors = [one for one in (frozen.encoded, *lower) if isinstance(one, Tensor)]
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
