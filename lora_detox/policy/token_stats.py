"""From logits to what training needs of each token, in chunks so that [B, R, V] never exists."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lora_detox.types import Sampling

CHUNK_ELEMENTS = 2**24
"""Logits that exist at a time: 64 MiB in fp32."""

ToLogits = Callable[[Float[Tensor, "N H"], Int[Tensor, "N"]], Float[Tensor, "N V"]]


def sampling_logits(
    logits: Float[Tensor, "N V"],
    positions: Int[Tensor, "N"],
    sampling: Sampling,
    eos_token_id: int,
) -> Float[Tensor, "N V"]:
    """The logits that tokens are drawn from; sampler and scorer both use this function.

    Args:
        logits: raw logits, fp32.
        positions: index of each token within its response, from 0.
        sampling: temperature, top-k, top-p and minimum length.
        eos_token_id: the token that `min_new_tokens` forbids at early positions.

    Returns:
        Logits over temperature, -inf where a token cannot be drawn.
    """
    if sampling.min_new_tokens > 0:
        early = (positions < sampling.min_new_tokens)[:, None]
        is_eos = torch.arange(logits.shape[-1], device=logits.device)[None] == eos_token_id
        logits = logits.masked_fill(early & is_eos, -torch.inf)
    if sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        threshold = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if sampling.top_p < 1.0:
        logits = logits.masked_fill(~_nucleus(logits, sampling.top_p), -torch.inf)
    return logits


def _nucleus(logits: Float[Tensor, "N V"], top_p: float) -> Tensor:
    """True at the smallest set that reaches probability `top_p` (Holtzman et al. 2020)."""
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before < top_p)


def token_logprobs(
    hidden: Float[Tensor, "N H"],
    token_ids: Int[Tensor, "N"],
    positions: Int[Tensor, "N"],
    to_logits: ToLogits,
    vocabulary: int,
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Log-probability of each token and entropy of its distribution, both in nats.

    With gradients on, each chunk's logits are recomputed in the backward pass where there is more
    than one chunk, so the memory of the logits does not grow with the batch. The entropy carries no
    gradient: it is watched, not trained.
    """

    def stats(states: Tensor, ids: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        logits = to_logits(states, at)
        normaliser = logits.logsumexp(dim=-1)
        logprobs = logits.gather(-1, ids[:, None])[:, 0] - normaliser
        with torch.no_grad():
            log_p = logits - normaliser[:, None]
            entropy = -(log_p.exp() * log_p.clamp(min=-1e4)).sum(dim=-1)
        return logprobs, entropy

    size = max(1, CHUNK_ELEMENTS // vocabulary)
    if len(hidden) <= size:
        return stats(hidden, token_ids, positions)
    chunks = [
        checkpoint(stats, *part, use_reentrant=False) if torch.is_grad_enabled() else stats(*part)
        for part in zip(
            hidden.split(size), token_ids.split(size), positions.split(size), strict=True
        )
    ]
    return torch.cat([c[0] for c in chunks]), torch.cat([c[1] for c in chunks])


def exact_kl(
    hidden: Float[Tensor, "N H"],
    ref_hidden: Float[Tensor, "N H"],
    positions: Int[Tensor, "N"],
    to_logits: ToLogits,
    vocabulary: int,
) -> Float[Tensor, "N"]:
    """KL(policy || reference) over the whole vocabulary at each position, nats, >= 0."""
    size = max(1, CHUNK_ELEMENTS // (2 * vocabulary))
    parts = []
    for states, ref_states, at in zip(
        hidden.split(size), ref_hidden.split(size), positions.split(size), strict=True
    ):
        log_p = to_logits(states, at).log_softmax(dim=-1).clamp(min=-1e4)
        ref_log_p = to_logits(ref_states, at).log_softmax(dim=-1).clamp(min=-1e4)
        parts.append((log_p.exp() * (log_p - ref_log_p)).sum(dim=-1))
    return torch.cat(parts)
