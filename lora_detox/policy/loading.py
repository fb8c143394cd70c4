"""From a path to a frozen backbone with an adapter, a value head and a tokenizer."""

import copy
import itertools
import os
from typing import Any

import torch
from peft import get_peft_model
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from lora_detox.errors import SettingsError
from lora_detox.fitting import is_out_of_memory
from lora_detox.machine import attention_of, keep_freed_memory, resolve_device, trim_heap
from lora_detox.policy.adapter import AdapterPlan, lora_config
from lora_detox.policy.adapter_init import OFF_AT_START
from lora_detox.policy.attention import attend_by_length
from lora_detox.policy.families import family_of
from lora_detox.policy.lean import make_lean
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.preflight import (
    BackbonePlan,
    check_backbone,
    read_config,
    resolve_dtype,
)
from lora_detox.policy.reference import Reference, copies
from lora_detox.policy.start_check import StartCheck
from lora_detox.policy.stored_adapter import load_stored
from lora_detox.policy.tokenizer import load_tokenizer, response_ends
from lora_detox.policy.weight_check import check_complete, check_numbers, loading_failed


def load_policy(
    plan: BackbonePlan, adapter: AdapterPlan, backbone: PreTrainedModel | None = None
) -> LoraPolicy:
    """Load one backbone and put the adapter and the value head on it.

    Args:
        plan: the backbone; with `plan.adapter` training starts from that adapter, and a frozen
            copy of it is the reference policy (DESIGN 2.3).
        adapter: the fresh adapter where `plan.adapter` is None.
        backbone: that of the plan where it is loaded already and nothing sits on it (`twin`).

    Returns:
        A policy whose only trainable parameters are those of the adapter and the value head.

    Raises:
        SettingsError: see `check_backbone` and `StartCheck`; also an adapter without trainable
            parameters.
    """
    config = check_backbone(plan, adapter)
    tokenizer = load_tokenizer(plan, config)
    ends = response_ends(plan, tokenizer, config)
    backbone = _load_backbone(plan, config) if backbone is None else backbone
    family = family_of(config)
    backbone.generation_config.eos_token_id = list(ends)  # trainers that sample on their own
    beside = "" if plan.adapter is None else f" with policy.adapter={plan.adapter}"
    check = StartCheck(backbone, family, tokenizer, plan.path + beside)
    bare = check.plain(backbone)
    model, reference = _with_adapter(backbone, plan, adapter)
    start = bare if plan.adapter is None else check.plain(backbone)
    if plan.sharded and reference.originals:
        raise SettingsError(
            f"policy.adapter: {plan.adapter} changes weights of the base (PiSSA, OLoRA), which "
            "policy.sharded=true divides over processes; want another adapter, or "
            "policy.sharded=false"
        )
    if plan.gradient_checkpointing and not plan.sharded:  # divided layers do so on their own
        enable_checkpointing(backbone)
    make_lean(model)
    policy = LoraPolicy(
        model,
        tokenizer,
        family,
        with_value_head=plan.value_head,
        eos_token_ids=ends,
        reference=reference,
    )
    if not any(p.requires_grad for p in model.parameters()):
        raise SettingsError(
            "policy.adapter: the adapter has no trainable parameter, so nothing would be learned"
        )
    if plan.adapter is not None:
        check.learns(policy, plan.adapter)
    check.policy(policy, start)
    check.reference(policy, start if plan.frozen_reference else bare)
    if plan.sharded:
        policy.shard(resolve_device(plan.device))
    trim_heap()
    keep_freed_memory(policy.device)
    return policy


def load_backbone(plan: BackbonePlan) -> PreTrainedModel:
    """Load a backbone alone, to put several adapters on twins of it.

    Args:
        plan: the backbone, checked (`check_backbone`); its adapter is not read.

    Returns:
        The frozen weights on their device.

    Raises:
        SettingsError: weights that cannot be read.
    """
    return _load_backbone(plan, read_config(plan))


def twin(backbone: PreTrainedModel) -> PreTrainedModel:
    """A model of the same weights: its modules are its own, its tensors are those of the first.

    Args:
        backbone: unquantized, without an adapter.

    Returns:
        The twin; what an adapter adds to it the first one does not have.
    """
    tensors = itertools.chain(backbone.parameters(), backbone.buffers())
    return copy.deepcopy(backbone, {id(one): one for one in tensors})


def _with_adapter(
    backbone: PreTrainedModel, plan: BackbonePlan, adapter: AdapterPlan
) -> tuple[Any, Reference]:
    """The backbone with the stored adapter, or else a fresh one, and how it is the reference."""
    if plan.adapter is not None:
        return load_stored(
            backbone, plan.adapter, keep_start=plan.frozen_reference, force_init=adapter.force_init
        )
    model: Any = get_peft_model(backbone, lora_config(adapter, backbone.config))
    model.peft_config["default"].base_model_name_or_path = plan.path
    if adapter.init in OFF_AT_START:
        return model, Reference()
    return model, Reference(start=copies(p for p in model.parameters() if p.requires_grad))


def enable_checkpointing(backbone: PreTrainedModel) -> None:
    """Recompute activations in the backward pass; Transformers 5.20 gave the method a new name."""
    name = "activation_checkpointing_enable"
    enable = getattr(backbone, name, None) or backbone.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _load_backbone(plan: BackbonePlan, config: PretrainedConfig) -> PreTrainedModel:
    """Weights on their device, all of them those of the file."""
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    dtype = resolve_dtype(plan, config)
    placement: dict[str, Any] = {}
    device = resolve_device(plan.device)
    if plan.quantization != "none":
        placement = {
            "quantization_config": quantization_config(plan, dtype),
            "device_map": {"": device},
        }
    try:
        model, info = auto.from_pretrained(
            os.path.expanduser(plan.path),
            revision=plan.revision,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=plan.trust_remote_code,
            attn_implementation=attention_of(device, dtype),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are an error here, one that names them
            **placement,
        )
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise loading_failed(plan, error) from error
    check_complete(info, plan.path)
    if plan.quantization == "none" and not plan.sharded:  # divided on the CPU, after the checks
        model.to(device)
    check_numbers(model, plan)
    for module in model.modules():
        # On a CPU with avx512_bf16, bitsandbytes repacks 4-bit weights in the first pass without
        # gradient, into a layout whose kernel has no backward: training would silently stand still.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        if hasattr(module, "init_8bit_state"):
            module.register_forward_pre_hook(_keep_scales)
    # A checkpoint's own generation defaults (top-k, minimum length, penalties) would make the
    # sampled distribution differ from the scored one.
    kept = {
        name: getattr(config, name, None)
        for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id", "bos_token_id")
    }
    model.generation_config = GenerationConfig(**kept)
    attend_by_length(model, device, dtype)
    return model


def _keep_scales(layer: Any, _: Any) -> None:
    """Before an int8 layer's pass: PEFT's DoRA makes its weight anew on a CPU, without scales."""
    weight = layer.weight
    if weight.CB is not None and weight.SCB is None:
        weight.SCB = layer.state.SCB


def quantization_config(plan: BackbonePlan, dtype: torch.dtype) -> BitsAndBytesConfig:
    """For bitsandbytes: `int8` is LLM.int8, `nf4` is QLoRA's (Dettmers et al. 2022, 2023)."""
    if plan.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=plan.int8_threshold)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=plan.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )
