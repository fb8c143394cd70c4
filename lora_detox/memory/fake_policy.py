"""A policy without weights, whose passes can be counted in bytes (see `live_bytes`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import get_peft_model
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from lora_detox.errors import SettingsError
from lora_detox.memory.live_bytes import fake_tensors
from lora_detox.memory.weights import empty_backbone, quantized_linears
from lora_detox.policy.adapter import AdapterPlan, lora_config
from lora_detox.policy.adapter_kinds import kind_of
from lora_detox.policy.attention import attend_by_length
from lora_detox.policy.families import family_of
from lora_detox.policy.lean import make_lean
from lora_detox.policy.loading import enable_checkpointing
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.preflight import BackbonePlan, check_adapter, resolve_dtype

_UNCOUNTED = {
    "BOFT",
    "FOURIERFT",
    "FROD",
    "LOHA",
    "LOKR",
    "SHIRA",
    "UNILORA",
    "VBLORA",
    "WAVEFT",
}
"""Kinds whose passes depend on numbers, so that they do not run on tensors without."""


@contextmanager
def fake_policy(
    plan: BackbonePlan, adapter: AdapterPlan, config: PretrainedConfig
) -> Iterator[LoraPolicy]:
    """The policy that `load_policy` would load, as fake tensors; within this context only.

    Args:
        plan: the backbone; of a stored adapter only names and shapes are read.
        adapter: the fresh adapter where `plan.adapter` is None.
        config: of the model.

    Yields:
        The policy, quantized layers standing for those of bitsandbytes.

    Raises:
        SettingsError: a stored adapter that does not train here, or that looks at numbers.
    """
    dtype = resolve_dtype(plan, config)
    backbone = empty_backbone(plan, config, dtype)
    device = torch.device(plan.device if plan.device != "auto" else "cpu")
    attend_by_length(backbone, device, dtype)
    keeps_input = plan.quantization == "int8"
    for name in quantized_linears(backbone, plan, dtype):
        layer: Any = backbone.get_submodule(name)
        layer.__class__, layer.keeps_input = _QuantizedLinear, keeps_input
    lora: Any = (
        lora_config(adapter, config)
        if plan.adapter is None
        else check_adapter(plan, plan.adapter, config)
    )
    if kind_of(lora) in _UNCOUNTED:
        raise SettingsError(
            f"policy.adapter: kind {kind_of(lora)} of {plan.adapter} looks at the numbers of the "
            "weights, which stage=plan does not have; plan with policy.adapter=null, which counts "
            "the LoRA of adapter.rank in its place"
        )
    lora.inference_mode = False
    if hasattr(lora, "init_lora_weights"):
        lora.init_lora_weights = True  # what others begin with takes no more memory
    with torch.device("meta"):
        model = get_peft_model(backbone, lora, low_cpu_mem_usage=True)
    if plan.gradient_checkpointing:
        enable_checkpointing(backbone)
    make_lean(model)
    with fake_tensors(model):
        yield LoraPolicy(model, _tokenizer(), family_of(config), with_value_head=plan.value_head)


class _QuantizedLinear(nn.Linear):
    """Allocates what a linear layer of bitsandbytes does: the dense weight, for a moment."""

    keeps_input: bool

    def forward(self, states: Tensor) -> Tensor:
        apply: Any = _DenseForAMoment.apply
        output: Tensor = apply(states, self.weight, self.bias, self.keeps_input)
        return output


class _DenseForAMoment(torch.autograd.Function):
    """bitsandbytes' MatMul8bitLt (keeps its input) and MatMul4Bit (does not)."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, keeps_input: bool
    ) -> Tensor:
        ctx.weight, ctx.kept = weight, states if keeps_input else None
        dense = torch.empty_like(weight, dtype=states.dtype)
        return nn.functional.linear(states, dense, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        dense = torch.empty_like(ctx.weight, dtype=gradients[0].dtype)
        return gradients[0] @ dense, None, None, None


def _tokenizer() -> PreTrainedTokenizerFast:
    """Only its special tokens are asked for."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>")),
        pad_token="<pad>",
        eos_token="</s>",
    )
