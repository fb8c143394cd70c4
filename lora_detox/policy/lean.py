"""The backbone's own formulas in fewer passes over memory.

Beside the matrix products, a forward and backward pass spends its time on reading and writing
activations. Four places write the same thing several times, and are replaced in a loaded model:
the tanh GELU that Transformers spells out as eight operations, root-mean-square normalisation,
PEFT's LoRA layer, which computes the low-rank path of a bf16 backbone in fp32, and GPT-J's rotary
table, which every layer copies for every row. The numbers agree with the plain modules within the
rounding of their dtype (tests/unit/policy/test_lean.py). Buffers that every layer keeps for itself
are kept once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import NewGELUActivation
from transformers.models.gptj.modeling_gptj import GPTJAttention

from lora_detox.machine import multiplies_by_onednn
from lora_detox.policy.products import frozen_linear, linear, state_gradient

RMS_NORMS = {"T5LayerNorm", "MT5LayerNorm", "UMT5LayerNorm", "LlamaRMSNorm", "Qwen2RMSNorm"}
"""Classes that compute weight * (x / rms(x)), with the mean square in fp32."""


def make_lean(model: nn.Module) -> None:
    """Replace what is computed in needlessly many passes; names of parameters stay.

    Args:
        model: a backbone, with or without LoRA layers; changed in place.
    """
    share_buffers(model)
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is NewGELUActivation:
                setattr(module, name, nn.GELU(approximate="tanh"))
        if isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), nn.Linear):
            _wrap_forward(module, _lora_forward)
        elif type(module).__name__ in RMS_NORMS:
            _wrap_forward(module, _norm_forward)
        elif isinstance(module, GPTJAttention):
            module._get_embed_positions = partial(_rotary_table, module)
        elif type(module) is nn.Linear and multiplies_by_onednn():
            _wrap_forward(module, frozen_linear)


def share_buffers(model: nn.Module) -> None:
    """Keep equal buffers of different layers once, where no checkpoint holds them.

    GPT-Neo has a causal mask of 2,048 x 2,048 in each layer: 48 MiB in twelve, of which two differ.
    Such buffers are constants that forward passes read.

    Args:
        model: a backbone, with or without LoRA layers; changed in place.
    """
    kept: dict[tuple[object, ...], list[Tensor]] = {}
    for module in model.modules():
        for name in module._non_persistent_buffers_set:
            buffer = module._buffers.get(name)
            if type(buffer) is not Tensor or buffer.is_meta:  # one without content, as in a plan
                continue
            like = kept.setdefault((buffer.shape, buffer.dtype, buffer.device), [])
            same = next((one for one in like if torch.equal(one, buffer)), None)
            if same is None:
                like.append(buffer)
            else:
                module._buffers[name] = same


def _wrap_forward(module: Any, function: Callable[..., Tensor]) -> None:
    if not isinstance(module.forward, partial):  # a model may come here twice
        module.forward = partial(function, module, module.forward)


def _rotary_table(attention: Any, position_ids: Tensor) -> Tensor:
    """Sines and cosines of all positions [rows, positions, rotary_dim], one table for all rows."""
    if attention.embed_positions.device != position_ids.device:
        attention.embed_positions = attention.embed_positions.to(position_ids.device)
    table: Tensor = attention.embed_positions
    return table.expand(len(position_ids), -1, -1)


def _norm_forward(module: Any, plain: Callable[..., Tensor], hidden: Tensor) -> Tensor:
    weight = module.weight
    if weight.requires_grad or hidden.dtype != weight.dtype or hidden.device.type != "cpu":
        return plain(hidden)
    normed: Tensor = _RmsNorm.apply(hidden, weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed


def _lora_forward(layer: Any, plain: Callable[..., Tensor], x: Tensor, **keywords: Any) -> Tensor:
    base, active = layer.base_layer, [a for a in layer.active_adapters if a in layer.lora_A]
    simple = (
        type(base) is nn.Linear
        and base.weight.dtype == x.dtype
        and len(active) == 1
        and not (keywords or layer.merged or layer.disable_adapters or layer.lora_variant)
        and not (layer.training and getattr(layer.lora_dropout[active[0]], "p", 0.0))
        and layer.lora_B[active[0]].bias is None
    )
    if not simple or base.weight.requires_grad:
        return plain(x, **keywords)
    down, up = layer.lora_A[active[0]].weight, layer.lora_B[active[0]].weight
    scaling = layer.scaling[active[0]]
    out: Tensor = _LoraLinear.apply(x, base.weight, base.bias, down, up, scaling)  # type: ignore[no-untyped-call]
    return out


class _LoraLinear(torch.autograd.Function):
    """x W^T + b + scaling * (x A^T) B^T with W and b frozen, in the dtype of x.

    Hu et al. 2021, equation 3. A and B are kept in fp32 by the optimizer; only x, which other
    layers keep anyway, and x A^T stay for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low_down, low_up = down.to(x.dtype), (up * scaling).to(x.dtype)
        inner = rows @ low_down.t()
        out = linear(rows, weight, bias).addmm_(inner, low_up.t())
        ctx.save_for_backward(rows, weight, low_down, low_up, inner)
        ctx.scaling, ctx.dtypes = scaling, (down.dtype, up.dtype)
        # No view, as Llama 4 adds to the output in place, which autograd forbids on a view.
        return torch.ops.aten._unsafe_view(out, [*x.shape[:-1], out.shape[-1]])  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, low_down, low_up, inner = ctx.saved_tensors
        shape = gradients[0].shape
        gradient = gradients[0].reshape(-1, shape[-1])
        gradient_inner = gradient @ low_up
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = state_gradient(gradient, weight).addmm_(gradient_inner, low_down)
            x_gradient = x_gradient.view(*shape[:-1], -1)
        down_gradient = (gradient_inner.t() @ rows).to(ctx.dtypes[0])
        up_gradient = (gradient.t() @ inner).to(ctx.dtypes[1]).mul_(ctx.scaling)
        return x_gradient, None, None, down_gradient, up_gradient, None


class _RmsNorm(torch.autograd.Function):
    """weight * x / rms(x) with a frozen weight (Zhang and Sennrich 2019, equation 4).

    The gradient is that of layer normalisation with a mean of 0, less the term of that mean, so
    torch's one-pass kernel serves.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        if hidden.requires_grad:
            size = hidden.shape[-1]
            norm = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32)
            ctx.save_for_backward(hidden, weight, torch.rsqrt(norm.square() / size + epsilon))
        return functional.rms_norm(hidden, weight.shape, weight, epsilon)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        hidden, weight, scale = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        whole, *_ = torch.ops.aten.native_layer_norm_backward(
            gradient,
            hidden,
            weight.shape,
            torch.zeros_like(scale),
            scale,
            weight.float(),
            None,
            [True, False, False],
        )
        mean_term = (gradient @ weight).unsqueeze(-1) * scale / weight.numel()
        return whole.add_(mean_term.to(whole.dtype)), None, None
