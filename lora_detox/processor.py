"""What the CPU of this machine multiplies fast."""

import torch


def has_fast_bf16() -> bool:
    """Whether it multiplies bf16 matrices in hardware (AVX-512 BF16 or AMX)."""
    return _has("avx512_bf16") or has_bf16_tiles()


def has_bf16_tiles() -> bool:
    """Whether it multiplies bf16 matrices in tiles (AMX), six times as fast as fp32 ones.

    Whatever else a pass does weighs more there: compiling kernels, launching them, small
    operations.
    """
    return _has("amx_bf16")


def _has(name: str) -> bool:
    ask = getattr(torch.cpu, "get_capabilities", None)  # torch 2.6 has none
    return ask is not None and bool(ask().get(name))
