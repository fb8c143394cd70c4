"""Whole weights in the place of quantized ones while responses are written.

bitsandbytes unpacks 4-bit weights, and quantizes activations for 8-bit ones, in each product again.
Writing reads all weights once a token, so they are unpacked once for all tokens of a rollout where
there is room for both. The products are those of the unpacked weights: with int8 without the
rounding of activations.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.utils.integrations import dequantize_bnb_weight, get_bnb_param_type
from torch import Tensor, nn
from torch.nn import functional

from lora_detox.choices import Dequantize

ROOM = 0.1
"""Fraction of a GPU's memory that stays free beside the whole weights, for caches and logits."""


def quantized_layers(model: nn.Module) -> list[Any]:
    """Linear layers of bitsandbytes; an adapter that shows the weight below it is none of them."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and get_bnb_param_type(module.weight)
    ]


def dense_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """What their whole weights take in a dtype."""
    weights: int = sum(one.in_features * one.out_features for one in quantized_layers(model))
    return weights * dtype.itemsize


def has_room(model: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a GPU has memory for both; a CPU's is not asked, as its choice is the user's."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + cached >= dense_bytes(model, dtype) + ROOM * total


def dequantizes(model: nn.Module, device: torch.device, how: Dequantize) -> bool:
    """Whether responses are written with whole weights now.

    Args:
        model: the backbone.
        device: where it lives.
        how: what `quantization.dequantize_for_decoding` says.

    Returns:
        False for a backbone that is not quantized.
    """
    if how is Dequantize.never or not quantized_layers(model):
        return False
    return how is Dequantize.always or has_room(model, device, compute_dtype(model))


def compute_dtype(model: Any) -> torch.dtype:
    """Of the states between the layers, which is that of the whole weights."""
    dtype: torch.dtype = model.dtype
    return dtype if dtype.is_floating_point else torch.float16


@contextmanager
def dequantized(model: nn.Module) -> Iterator[None]:
    """Within this context quantized layers multiply by whole weights; adapters on them go on.

    Args:
        model: the backbone; its packed weights are not touched.
    """
    dtype, layers = compute_dtype(model), quantized_layers(model)
    try:
        for layer in layers:
            state = getattr(layer, "state", None)
            weight = dequantize_bnb_weight(layer.weight, state=state).to(dtype)
            layer.forward = partial(_product, weight, layer.bias)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _product(weight: Tensor, bias: Tensor | None, hidden: Tensor) -> Tensor:
    return functional.linear(hidden.to(weight.dtype), weight, bias).to(hidden.dtype)
