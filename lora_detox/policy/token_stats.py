"""From logits to what training needs of each token, in chunks so that [B, R, V] never exists."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lora_detox.machine import chunk_elements
from lora_detox.policy.chunk_stats import chunk_stats, widened, with_gradient
from lora_detox.types import Sampling

ToLogits = Callable[[Float[Tensor, "N H"], Int[Tensor, "N"]], Float[Tensor, "N V"]]


def sampling_logits(
    logits: Float[Tensor, "N V"],
    positions: Int[Tensor, "N"],
    sampling: Sampling,
    eos_token_ids: tuple[int, ...],
) -> Float[Tensor, "N V"]:
    """The logits that tokens are drawn from; sampler and scorer both use this function.

    Args:
        logits: raw logits; their columns of end tokens may be overwritten.
        positions: index of each token within its response, from 0.
        sampling: temperature, top-k, top-p and minimum length.
        eos_token_ids: the end tokens, which `min_new_tokens` forbids at early positions.

    Returns:
        Logits over temperature, -inf where a token cannot be drawn; of bf16 and fp16 in fp32,
        unless there is nothing to compute.
    """
    if sampling.min_new_tokens > 0:
        early = positions < sampling.min_new_tokens
        for end in eos_token_ids:  # single columns: no pass over the vocabulary
            logits[:, end].masked_fill_(early, -torch.inf)
    if sampling.temperature != 1.0 or sampling.top_k > 0 or sampling.top_p < 1.0:
        logits = widened(logits)
    if sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        threshold = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if sampling.top_p < 1.0:
        logits = logits.masked_fill(~nucleus(logits, sampling.top_p), -torch.inf)
    return logits


def nucleus(logits: Float[Tensor, "N V"], top_p: float) -> Bool[Tensor, "N V"]:
    """The tokens that top-p sampling draws from.

    Args:
        logits: of any scale.
        top_p: probability to reach, in (0, 1].

    Returns:
        True at the smallest set that reaches probability `top_p` (Holtzman et al. 2020), which
        the likeliest token always belongs to, also where `top_p` is 0 in the dtype of the logits.
    """
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    kept = probabilities.cumsum(dim=-1) - probabilities < top_p
    kept[:, :1] = True
    return torch.zeros_like(kept).scatter(-1, order, kept)


def token_logprobs(
    hidden: Float[Tensor, "N H"],
    token_ids: Int[Tensor, "N"],
    positions: Int[Tensor, "N"],
    to_logits: ToLogits,
    vocabulary: int,
    *,
    with_entropy: bool = True,
    head_learns: bool = False,
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Log-probability of each token and entropy of its distribution, both in nats.

    The logits of a chunk exist once and for a moment only: where a gradient is wanted, each
    token's derivative is taken in the forward pass, so that neither the memory nor the work of the
    backward pass grows with the vocabulary. With `head_learns`, `to_logits` has parameters that
    want a gradient too, and a chunk's logits are computed again in the backward pass. The entropy
    carries no gradient: it is reported, not trained; without `with_entropy` it is 0.
    """
    size = _chunk_rows(hidden, vocabulary)
    parts = list(zip(hidden.split(size), token_ids.split(size), positions.split(size), strict=True))
    learns = torch.is_grad_enabled() and (hidden.requires_grad or head_learns)
    if not learns or head_learns:
        stats_of = partial(_stats_of, to_logits=to_logits, with_entropy=with_entropy)
        if learns:
            stats_of = partial(checkpoint, stats_of, use_reentrant=False)
        stats = [stats_of(*part) for part in parts]
        return _joined([logprobs for logprobs, _ in stats]), _joined([e for _, e in stats])
    logprobs, entropies, derivatives = [], [], []
    for states, ids, at in parts:
        leaf = states.detach().requires_grad_()
        with torch.enable_grad():
            logits = to_logits(leaf, at)
        chunk = chunk_stats(logits.detach(), ids, with_entropy=with_entropy, with_slope=True)
        logprobs.append(chunk.logprobs)
        entropies.append(chunk.entropies)
        # Each token's logprob depends on its own state only.
        derivatives.append(torch.autograd.grad(logits, leaf, chunk.slope)[0])
    attach: Any = _WithDerivative.apply  # torch leaves this method without types
    linked: Tensor = attach(hidden, _joined(logprobs), _joined(derivatives))
    return linked, _joined(entropies)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _chunk_rows(hidden: Tensor, columns: int) -> int:
    return max(1, chunk_elements(hidden.device) // columns)


def _stats_of(
    states: Float[Tensor, "n H"],
    ids: Int[Tensor, "n"],
    positions: Int[Tensor, "n"],
    to_logits: ToLogits,
    *,
    with_entropy: bool,
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    logits = to_logits(states, positions)
    if logits.requires_grad:
        return with_gradient(logits, ids, with_entropy=with_entropy)
    chunk = chunk_stats(logits, ids, with_entropy=with_entropy, with_slope=False)
    return chunk.logprobs, chunk.entropies


class _WithDerivative(torch.autograd.Function):
    """Given values [N] as a function of states [N, H] with known derivatives [N, H]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, values: Tensor, derivatives: Tensor) -> Tensor:
        ctx.save_for_backward(derivatives)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (derivatives,) = ctx.saved_tensors
        return gradients[0].to(derivatives.dtype)[:, None] * derivatives, None, None


def exact_kl(
    hidden: Float[Tensor, "N H"],
    ref_hidden: Float[Tensor, "N H"],
    positions: Int[Tensor, "N"],
    to_logits: ToLogits,
    vocabulary: int,
    to_ref_logits: ToLogits | None = None,
) -> Float[Tensor, "N"]:
    """KL(policy || reference) over the whole vocabulary at each position, nats, >= 0.

    `to_ref_logits` is for a reference with an output matrix of its own.
    """
    to_ref_logits = to_ref_logits or to_logits
    size = _chunk_rows(hidden, 2 * vocabulary)
    parts = []
    for states, ref_states, at in zip(
        hidden.split(size), ref_hidden.split(size), positions.split(size), strict=True
    ):
        log_p = widened(to_logits(states, at)).log_softmax(dim=-1).clamp(min=-1e4)
        ref_logits = widened(to_ref_logits(ref_states, at))
        ref_log_p = ref_logits.log_softmax(dim=-1).clamp(min=-1e4)
        parts.append((log_p.exp() * (log_p - ref_log_p)).sum(dim=-1))
    return torch.cat(parts)
