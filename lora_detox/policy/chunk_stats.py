"""Logprob, entropy and slope of tokens from the logits of one chunk, by the means that fit.

On a GPU with Triton they are one kernel (docs/decisions/0025), anywhere else a few operations of
torch. `chunk_stats` chooses; nobody else does.
"""

import logging
import os
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from lora_detox.machine import cached_elements

LOG = logging.getLogger(__name__)
FUSED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TRIED_COLUMNS = 20_000
"""Of the logits that the kernel is tried on: more than a block of it, and not a multiple of one."""
TRIED_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 1e-3}


class ChunkStats(NamedTuple):
    """Of n tokens.

    Attributes:
        logprobs: [n] in nats.
        entropies: [n] of their distributions, in nats; 0 where none was asked for.
        slope: [n, V], derivative of each logprob with respect to the logits, in their dtype:
            1 at the token less the probabilities. Empty where none was asked for.
    """

    logprobs: Tensor
    entropies: Tensor
    slope: Tensor


Stats = Callable[[Tensor, Tensor, bool, bool], tuple[Tensor, Tensor, Tensor]]


def chunk_stats(
    logits: Float[Tensor, "n V"], ids: Int[Tensor, "n"], *, with_entropy: bool, with_slope: bool
) -> ChunkStats:
    """What training needs of each token; carries no gradient.

    Args:
        logits: without a gradient; of fp16 and bf16 everything is computed in fp32.
        ids: the tokens.
        with_entropy: False leaves the entropies 0 and saves their time.
        with_slope: False leaves the slope empty and saves its memory.

    Returns:
        Logprobs, entropies and slope.
    """
    stats = _fused(logits) or plain_stats
    return ChunkStats(*stats(logits, ids, with_entropy, with_slope))


def plain_stats(
    logits: Float[Tensor, "n V"], ids: Int[Tensor, "n"], with_entropy: bool, with_slope: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by operations of torch, on as many rows at a time as the caches hold."""
    rows = max(1, cached_elements(logits.device) // logits.shape[-1])
    if len(logits) <= rows:
        return _of_rows(logits, ids, with_entropy, with_slope)
    slope = torch.empty_like(logits) if with_slope else logits.new_empty(0)
    found = []
    for begin in range(0, len(logits), rows):
        part = slice(begin, begin + rows)
        *numbers, own = _of_rows(logits[part], ids[part], with_entropy, with_slope)
        if with_slope:
            slope[part] = own
        found.append(numbers)
    logprobs, entropies = map(torch.cat, zip(*found, strict=True))
    return logprobs, entropies, slope


def _of_rows(
    logits: Float[Tensor, "n V"], ids: Int[Tensor, "n"], with_entropy: bool, with_slope: bool
) -> tuple[Tensor, Tensor, Tensor]:
    log_p = widened(logits).log_softmax(dim=-1)
    at = ids[:, None]
    logprobs = log_p.gather(-1, at)[:, 0]
    if not with_entropy and not with_slope:
        return logprobs, torch.zeros_like(logprobs), logits.new_empty(0)
    slope = log_p.exp()
    entropies = _entropy(log_p, slope) if with_entropy else torch.zeros_like(logprobs)
    if not with_slope:
        return logprobs, entropies, logits.new_empty(0)
    slope.neg_().scatter_add_(-1, at, slope.new_ones(at.shape))
    return logprobs, entropies, slope.to(logits.dtype)


def widened(logits: Float[Tensor, "n V"]) -> Float[Tensor, "n V"]:
    """The same numbers in fp32, where they had fewer bits."""
    return logits.float() if logits.dtype.itemsize < 4 else logits


def _entropy(
    log_p: Float[Tensor, "n V"], probabilities: Float[Tensor, "n V"]
) -> Float[Tensor, "n"]:
    """In nats; a token of probability 0 counts nothing. Overwrites the -inf of `log_p`."""
    entropy: Tensor = -torch.linalg.vecdot(probabilities, log_p.clamp_(min=-1e4))
    return entropy


def with_gradient(
    logits: Float[Tensor, "n V"], ids: Int[Tensor, "n"], *, with_entropy: bool
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Logprobs and entropies of logits that want a gradient; the entropies have none."""
    log_p = widened(logits).log_softmax(dim=-1)
    logprobs = log_p.gather(-1, ids[:, None])[:, 0]
    if not with_entropy:
        return logprobs, torch.zeros_like(logprobs.detach())
    bare = log_p.detach().clone()  # the backward pass needs log_p
    return logprobs, _entropy(bare, bare.exp())


def _fused(logits: Tensor) -> Stats | None:
    """The kernel, where it runs on the device of these logits."""
    if logits.dtype not in FUSED_DTYPES or isinstance(logits, FakeTensor):
        return None
    kernel = _kernel(logits.device.type)
    return kernel if kernel and _agrees(kernel, logits.device, logits.dtype) else None


@cache
def _kernel(device_type: str) -> Stats | None:
    """For a type of device; on CPUs only where Triton is told to interpret (TRITON_INTERPRET=1)."""
    if device_type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return None
    try:
        from lora_detox.policy import fused_stats  # noqa: PLC0415 - imports Triton
    except ImportError:
        return None
    return fused_stats.fused_stats


@cache
def _agrees(kernel: Stats, device: torch.device, dtype: torch.dtype) -> bool:
    """Tried once: Triton wants a C compiler with Python's headers, and a GPU that it knows."""
    wave = torch.arange(2.0 * TRIED_COLUMNS, device=device).sin().view(2, TRIED_COLUMNS)
    logits = (8 * wave).to(dtype)
    logits[:, 1::7] = -torch.inf
    ids = torch.tensor([0, TRIED_COLUMNS - 1], device=device)
    logits[:, ids] = 8.0
    try:
        found = kernel(logits, ids, True, True)
        expected = plain_stats(logits, ids, True, True)
        tolerance = TRIED_TOLERANCE[dtype]
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    except Exception as error:  # noqa: BLE001 - of a compiler, its driver and the comparison
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        LOG.warning("token statistics go on without their fused kernel: %s", reason)
        return False
    return True
