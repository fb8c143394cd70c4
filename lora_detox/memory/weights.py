"""Bytes of a backbone's weights as they will be stored, counted on the meta device."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.quantizers import AutoHfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from lora_detox.json_text import parse_json
from lora_detox.policy.adapter import empty_model
from lora_detox.policy.loading import quantization_config
from lora_detox.policy.preflight import BackbonePlan, resolve_dtype

NF4_BLOCK = 64
"""Weights that share a scale in 4-bit storage (QLoRA, section 3)."""
NF4_SCALE_BLOCK = 256
"""Scales that share a second scale, with double quantization."""
NF4_TABLES = 16 * 4
"""The 16 levels, fp32, of each 4-bit weight."""
NF4_NESTED = 256 * 4 + 4
"""The 256 levels of the quantized scales and their offset, fp32, with double quantization."""


@dataclass(frozen=True, kw_only=True)
class WeightBytes:
    """A backbone in memory.

    Attributes:
        by_kind: bytes by how they are stored, as "int8", "bfloat16", "int8 scales", "buffers".
        quantized: names of the linear modules whose weights are quantized.
        largest: elements of the largest quantized weight, made dense to be used; 0 if none.
        parameters: weights, whatever they are stored in.
    """

    by_kind: dict[str, int]
    quantized: frozenset[str]
    largest: int
    parameters: int

    @property
    def total(self) -> int:
        """All of it, bytes."""
        return sum(self.by_kind.values())


def weight_bytes(plan: BackbonePlan, config: PretrainedConfig) -> WeightBytes:
    """Count a backbone's weights without loading them.

    Which modules int8 and nf4 leave alone (the output matrix, T5's `wo`) is decided by
    Transformers' own quantizer, on the empty model.

    Args:
        plan: dtype and quantization.
        config: of the model.

    Returns:
        Bytes by kind of storage.
    """
    dtype = resolve_dtype(plan, config)
    model = empty_backbone(plan, config, dtype)
    quantized = quantized_linears(model, plan, dtype)
    kinds: Counter[str] = Counter()
    seen: set[object] = set()
    count = 0
    for name, module in model.named_modules():
        for own, parameter in module._parameters.items():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            count += parameter.numel()
            if name in quantized and own == "weight":
                kinds.update(_quantized_bytes(parameter.shape, plan))
            else:
                kinds[_name(parameter.dtype)] += parameter.numel() * parameter.element_size()
        for own, buffer in module._buffers.items():
            key = _buffer_key(module, own, buffer)
            if buffer is not None and key not in seen:
                seen.add(key)
                kinds["buffers"] += buffer.numel() * buffer.element_size()
    sizes = [model.get_submodule(name).weight.numel() for name in quantized]
    return WeightBytes(
        by_kind=dict(kinds),
        quantized=frozenset(quantized),
        largest=max(sizes, default=0),
        parameters=count,
    )


def _buffer_key(module: nn.Module, name: str, buffer: Tensor | None) -> object:
    """The same for buffers that loading keeps once (`lean.share_buffers`), told without content.

    Layers of a class make theirs from the configuration alone, and GPT-Neo's from `attention_type`.
    """
    if buffer is None or name not in module._non_persistent_buffers_set:
        return id(buffer)
    kind = getattr(module, "attention_type", None)
    return (type(module), name, kind, buffer.shape, buffer.dtype)


def empty_backbone(
    plan: BackbonePlan, config: PretrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """The backbone on the meta device in its dtypes, the output matrix tied as it will be."""
    model = empty_model(config, dtype)
    if _has_own_head(plan, config):
        head: Any = model.get_output_embeddings()
        with torch.device("meta"):
            head.weight = nn.Parameter(torch.empty_like(head.weight))
    fp32 = set(model._keep_in_fp32_modules_strict or [])
    if dtype == torch.float16:
        fp32 |= set(model._keep_in_fp32_modules or [])
    for name, module in model.named_modules():
        if fp32 & set(name.split(".")):
            module.to(torch.float32)
    return model


def quantized_linears(model: PreTrainedModel, plan: BackbonePlan, dtype: torch.dtype) -> set[str]:
    """Names of the linear modules that bitsandbytes will store quantized."""
    if plan.quantization == "none":
        return set()
    quantizer = AutoHfQuantizer.from_config(quantization_config(plan, dtype))
    skipped = quantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and should_convert_module(name, skipped)
    }


def _quantized_bytes(shape: torch.Size, plan: BackbonePlan) -> dict[str, int]:
    """Codes and scales of one quantized weight [out, in]."""
    elements = shape.numel()
    if plan.quantization == "int8":
        return {"int8": elements, "int8 scales": 4 * shape[0]}
    blocks = -(-elements // NF4_BLOCK)
    scales = NF4_TABLES + 4 * blocks
    if plan.double_quant:
        scales = NF4_TABLES + blocks + 4 * -(-blocks // NF4_SCALE_BLOCK) + NF4_NESTED
    return {"nf4": -(-elements // 2), "nf4 scales": scales}


def _has_own_head(plan: BackbonePlan, config: PretrainedConfig) -> bool:
    """Whether the checkpoint has an output matrix although its configuration ties it.

    FLAN-T5 and T5 v1.1 are so, and Transformers 5 reads their configuration as tied.
    """
    stored = stored_tensors(plan.path)
    if stored:
        return "lm_head.weight" in stored and config.model_type in {"t5", "mt5", "umt5"}
    return getattr(config, "scale_decoder_outputs", True) is False


def stored_tensors(path: str) -> dict[str, str]:
    """Names and dtypes ("F32", "BF16") of the tensors in a local folder's safetensors headers."""
    tensors: dict[str, str] = {}
    for file in sorted(Path(path).expanduser().glob("*.safetensors")):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = parse_json(stream.read(length))
        tensors |= {
            name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"
        }
    return tensors


def stored_bytes(path: str) -> int:
    """Bytes of a local folder's safetensors files; 0 for a hub id."""
    return sum(f.stat().st_size for f in Path(path).expanduser().glob("*.safetensors"))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
