"""Logprob, entropy and slope of the logits of some tokens in one kernel. Imports Triton.

Nothing but `chunk_stats` imports this module, which knows where the kernel runs.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

LARGEST_BLOCK = 16384
"""Logits that a program holds at a time, at 16 a thread: 32 warps, the most that there can be."""
PER_WARP = 512


@no_type_check  # Triton compiles the source: what the tests wrap around functions is not for it
def _row_stats(  # noqa: PLR0913, PLR0917 - a kernel has no records
    logits: Any,
    ids: Any,
    logprobs: Any,
    entropies: Any,
    slopes: Any,
    row_stride: Any,
    columns: Any,
    BLOCK: tl.constexpr,
    WITH_ENTROPY: tl.constexpr,
    WITH_SLOPE: tl.constexpr,
) -> None:
    """One program for each row: a read for the sums, and a second one where a slope is wanted.

    With m the greatest logit so far, s = sum exp(x - m) and t = sum exp(x - m) (x - m). Then
    log p = x - m - log s, and the entropy is log s - t / s, in which no two terms cancel. m begins
    with a finite number, as -inf less -inf is none.
    """
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    slopes += row * columns
    top, total, moment = -1e30, 0.0, 0.0
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(logits + at, mask=at < columns, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(top, tl.max(x, axis=0))
        below = x - higher
        weights = tl.exp(below)
        shrink = tl.exp(top - higher)
        if WITH_ENTROPY:
            moved = (moment + total * (top - higher)) * shrink
            moment = moved + tl.sum(tl.where(weights > 0, weights * below, 0.0), axis=0)
        total = total * shrink + tl.sum(weights, axis=0)
        top = higher
    log_total = tl.log(total)
    token = tl.load(ids + row)
    inside = (token >= 0) & (token < columns)
    own = tl.load(logits + token, mask=inside, other=float("nan")).to(tl.float32)
    tl.store(logprobs + row, own - top - log_total)
    if WITH_ENTROPY:
        tl.store(entropies + row, log_total - moment / total)
    else:
        tl.store(entropies + row, 0.0)
    if WITH_SLOPE:
        for start in range(0, columns, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(logits + at, mask=at < columns, other=-float("inf")).to(tl.float32)
            slope = tl.where(at == token, 1.0, 0.0) - tl.exp(x - top - log_total)
            tl.store(slopes + at, slope.to(slopes.dtype.element_ty), mask=at < columns)


_kernel: Any = triton.jit(_row_stats)


@torch.library.custom_op(
    "lora_detox::token_stats",
    mutates_args=(),
    schema="(Tensor logits, Tensor ids, bool with_entropy, bool with_slope)"
    " -> (Tensor, Tensor, Tensor)",
)
def fused_stats(
    logits: Float[Tensor, "n V"], ids: Int[Tensor, "n"], with_entropy: bool, with_slope: bool
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"], Float[Tensor, "..."]]:
    """Of each token, from fp32, bf16 or fp16 logits, without a gradient; sums are fp32.

    The slope has a buffer of its own: what the logits came from may need them in its backward pass.

    Args:
        logits: of any scale; -inf counts as probability 0.
        ids: the tokens. One that is no column has the logprob NaN.
        with_entropy: False leaves the entropies 0.
        with_slope: False leaves the slope empty and reads the logits once instead of twice.

    Returns:
        Logprobs and entropies, fp32, nats, and the slope: the derivative of each logprob with
        respect to the logits, in their dtype.
    """
    rows, columns = logits.shape
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    logprobs, entropies, slopes = _outputs(logits, with_slope)
    if rows and columns:
        block = min(triton.next_power_of_2(columns), LARGEST_BLOCK)
        with torch.cuda.device_of(logits):
            _kernel[(rows,)](
                logits,
                ids.contiguous(),
                logprobs,
                entropies,
                slopes,
                logits.stride(0),
                columns,
                BLOCK=block,
                WITH_ENTROPY=with_entropy,
                WITH_SLOPE=with_slope,
                num_warps=max(1, block // PER_WARP),
            )
    return logprobs, entropies, slopes


@fused_stats.register_fake
def _fake(
    logits: Tensor, ids: Tensor, with_entropy: bool, with_slope: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(logits, with_slope)


def _outputs(logits: Tensor, with_slope: bool) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = logits.shape
    logprobs = logits.new_empty(rows, dtype=torch.float32)
    slopes = logits.new_empty((rows, columns) if with_slope else (0,))
    return logprobs, torch.empty_like(logprobs), slopes
