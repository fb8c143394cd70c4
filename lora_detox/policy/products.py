"""Products of states with frozen fp32 weights, by oneDNN on CPUs where MKL is slower.

PyTorch multiplies fp32 matrices by MKL. On AMD's CPUs that takes up to 2.7 times as long as
oneDNN's product of the same matrices, most where rows are few (decoding) or columns are many (the
output matrix); decision 0026 has the tables. Weights stay as they are and are not copied.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lora_detox.machine import (
    ONEDNN_COLUMNS,
    ONEDNN_WEIGHTS,
    multiplies_by_onednn,
    onednn_has_avx512,
)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """States times W^T plus b, without gradients; by oneDNN where it takes these tensors.

    Args:
        x: states [..., K].
        weight: [N, K].
        bias: [N], or none.

    Returns:
        [..., N].
    """
    if _takes(x, weight):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    return functional.linear(x, weight, bias)


def state_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the states of a linear layer from that of its output, itself without gradients.

    Args:
        gradient: [..., N].
        weight: of the layer [N, K].

    Returns:
        [..., K].
    """
    if _takes(gradient, weight.t()) and onednn_has_avx512():
        return linear(gradient, weight.t(), None)
    return gradient @ weight


def frozen_linear(module: nn.Linear, plain: Any, x: Tensor) -> Tensor:
    """Forward method of a linear layer, by oneDNN while its weights are frozen.

    Args:
        module: the layer.
        plain: its own forward method, for whatever else.
        x: states [..., K].

    Returns:
        [..., N].
    """
    weight, bias = module.weight, module.bias
    if any(p is not None and p.requires_grad for p in (weight, bias)) or not _takes(x, weight):
        out: Tensor = plain(x)
        return out
    if torch.is_grad_enabled() and x.requires_grad:
        linked: Tensor = _FrozenLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return linked
    return linear(x, weight, bias)


def _takes(x: Tensor, weight: Tensor) -> bool:
    """Whether both are plain fp32 tensors of a size for which this CPU prefers oneDNN."""
    if torch.compiler.is_compiling():  # which cannot ask for threads and the CPU's name
        return False
    by_weights = torch.get_num_threads() > 1 or onednn_has_avx512()
    large = weight.numel() >= ONEDNN_WEIGHTS if by_weights else len(weight) >= ONEDNN_COLUMNS
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and large
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and multiplies_by_onednn()
    )


class _FrozenLinear(torch.autograd.Function):
    """x W^T + b with W and b frozen; only W, which is there anyway, stays for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return state_gradient(gradients[0], weight), None, None
