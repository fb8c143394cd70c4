"""Which modules the LoRA adapter sits on, found before weights load; an adapter between two."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, TaskType
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from lora_detox.errors import SettingsError
from lora_detox.model_files import runs_code
from lora_detox.policy.adapter_init import DEFAULT, check_init
from lora_detox.policy.anatomy import decoder_stack, head_owner

USUAL_TARGETS = (
    ("q_proj", "v_proj"),
    ("q", "v"),
    ("query", "value"),
    ("query_key_value",),
    ("qkv_proj",),
    ("Wqkv",),
    ("q_b_proj", "kv_b_proj"),
    ("q_proj", "kv_b_proj"),
    ("c_attn",),
)
"""Names of attention projections: query and value, or what they are fused into (Hu et al. 2021,
section 7.1). The first of which a model has all are the default."""
_UNREACHED = {
    "doge": {"dt_proj"},
    "encoder-decoder": {"pooler.dense"},
    "falcon_h1": {"out_proj"},
    "falcon_mamba": {"out_proj", "dt_proj"},
    "gemma3n": {"correction_coefs"},
    "gemma3n_text": {"correction_coefs"},
    "jamba": {"dt_proj"},
    "led": {"query_global", "key_global", "value_global"},
    "mamba": {"out_proj", "dt_proj"},
    "mamba2": {"out_proj"},
    "nemotron_h": {"out_proj"},
}
"""Modules whose weights are read past the module, as the kernels of Mamba do, so that no adapter
acts there; Doge's acts on texts of more than 2048 tokens alone, LED's on tokens of global attention
(none is given), and a pooler is read by no decoder."""
_LAYER = re.compile(r"^(?P<stack>.*?)\.(?P<index>\d+)\.")
_SCOPE = re.compile(r"^last[ _:-]?(\d+)$")


@dataclass(frozen=True, kw_only=True)
class AdapterPlan:
    """A LoRA adapter as the settings have it, before it is matched with a model.

    Attributes:
        rank: inner dimension r of the update, >= 1.
        alpha: the update is scaled by alpha / rank (alpha / sqrt(rank) with rslora).
        dropout: on the adapter's input during updates only, in [0, 1).
        targets: module names; empty for the family's default, "all-linear" for every linear layer.
        scope: "all", "decoder", or "last_N" for the last N layers (of the decoder).
        rslora: rank-stabilised scaling (Kalajdzievski 2023).
        dora: weight-decomposed adaptation (Liu et al. 2024).
        init: how it begins, one of `adapter_init`'s names; "true" is PEFT's default.
        force_init: take a start from singular vectors of the base, which collapses.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    scope: str = "all"
    rslora: bool = False
    dora: bool = False
    init: str = DEFAULT
    force_init: bool = False


NO_ADAPTER = AdapterPlan(rank=1, alpha=1.0, targets=("all-linear",), scope="last_1")
"""A bare model is loaded with an adapter that is 0, because the policy around it wants one."""


def interpolate_adapter(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], fraction: float
) -> dict[str, Tensor]:
    """Interpolate an adapter's update from one towards another, or go on past the other.

    An update is B A. One that starts at B = 0 is scaled by B alone: A of the start is random then,
    and a mixture of both A would add an update that nothing has learned.

    Args:
        start: trainable weights by PEFT's names.
        end: likewise.
        fraction: of `end` in the update, above 0; above 1 it is larger than that of `end`.

    Returns:
        The weights at that point.
    """
    between = {}
    for name, tensor in end.items():
        up = start.get(name.replace("lora_A", "lora_B"))
        fresh = "lora_A" in name and up is not None and not up.any()
        between[name] = tensor if fresh else torch.lerp(start[name], tensor, fraction)
    return between


def lora_config(
    plan: AdapterPlan, config: PretrainedConfig, *, quantized: bool = False
) -> LoraConfig:
    """The PEFT configuration of a plan for one model.

    Args:
        plan: as the settings have it.
        config: the model's configuration; its modules are listed without loading weights.
        quantized: whether the base is stored in fewer bits.

    Returns:
        A LoraConfig whose `target_modules` all exist.

    Raises:
        SettingsError: no module matches, or the scope makes no sense (candidates are listed), or
            the initialisation does not fit.
    """
    names = _target_names(plan, config)
    init: bool | str = True
    if plan.init != DEFAULT:
        modules = empty_model(config).named_modules()
        layers = [part for name, part in modules if any(is_named(name, one) for one in names)]
        init = check_init(
            plan.init,
            layers,
            rank=plan.rank,
            dora=plan.dora,
            quantized=quantized,
            force=plan.force_init,
        )
    return LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if config.is_encoder_decoder else TaskType.CAUSAL_LM,
        r=plan.rank,
        lora_alpha=plan.alpha,
        lora_dropout=plan.dropout,
        target_modules=names,
        use_rslora=plan.rslora,
        use_dora=plan.dora,
        init_lora_weights=init,
        fan_in_fan_out=config.model_type == "gpt2",
        bias="none",
    )


def _target_names(plan: AdapterPlan, config: PretrainedConfig) -> list[str]:
    every = linear_names(config, everywhere=True)
    linear = linear_names(config)
    wanted = plan.targets or _default_targets(linear, str(config.model_type))
    if tuple(wanted) == ("all-linear",):
        matched = linear
    else:
        absent = [w for w in wanted if not any(is_named(name, w) for name in linear)]
        if absent:
            candidates = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise SettingsError(
                f"adapter.targets: {', '.join(absent)} matches no linear module of this "
                f"{config.model_type} model; candidates: {', '.join(candidates)}, or all-linear"
            )
        matched = [name for name in linear if any(is_named(name, w) for w in wanted)]
    scoped = [name for name in matched if _in_scope(name, plan.scope, linear, config)]
    if plan.scope != "all":
        scoped = _without_experts(scoped, plan, str(config.model_type))
    if not scoped:
        raise SettingsError(
            f"adapter.scope={plan.scope} leaves none of the {len(matched)} modules that "
            f"adapter.targets selects; widen the scope or name other targets"
        )
    if tuple(wanted) == ("all-linear",):
        return scoped
    by_name = [name for name in every if any(is_named(name, w) for w in wanted)]
    return list(wanted) if len(scoped) == len(by_name) else scoped


def _without_experts(names: list[str], plan: AdapterPlan, model_type: str) -> list[str]:
    """Those that PEFT does not take for the fused experts of every layer, in scope or not.

    In Transformers 4 each expert was a module of its own. PEFT reads their old names as the fused
    ones, also where a shared expert or a dense layer is meant.
    """
    try:
        from peft.utils import transformers_weight_conversion as conversion  # noqa: PLC0415
    except ImportError:  # older than that reading
        return names
    kind = conversion._MODEL_TO_CONVERSION_PATTERN.get(model_type)
    experts = conversion._MOE_TARGET_MODULE_MAPPING.get(kind, {})
    kept = [name for name in names if name.rsplit(".", 1)[-1] not in experts]
    if plan.targets != ("all-linear",) and len(kept) < len(names):
        spread = sorted({name.rsplit(".", 1)[-1] for name in set(names) - set(kept)})
        raise SettingsError(
            f"adapter.scope={plan.scope} with adapter.targets={', '.join(spread)}: PEFT puts these "
            f"on the experts of every layer of this {model_type} model; want adapter.scope=all, or "
            "other targets"
        )
    return kept


def _default_targets(linear: Sequence[str], model_type: str) -> tuple[str, ...]:
    """Attention projections under their usual names, else PEFT's own default, else every layer."""
    peft_default = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model_type, ())
    known = [*USUAL_TARGETS, () if isinstance(peft_default, str) else tuple(peft_default)]
    for names in known:
        if names and all(any(is_named(one, name) for one in linear) for name in names):
            return names
    return ("all-linear",)


def is_named(name: str, target: str) -> bool:
    """Whether PEFT's target selects the module of this dotted name."""
    return name == target or name.endswith("." + target)


def _in_scope(name: str, scope: str, linear: Iterable[str], config: PretrainedConfig) -> bool:
    if scope == "all":
        return True
    decoder = not config.is_encoder_decoder or "decoder." in name
    if scope == "decoder":
        return decoder
    last = _SCOPE.match(scope)
    if last is None:
        raise SettingsError(f"adapter.scope: got {scope!r}; want all, decoder or last_N, as last_4")
    layer = _LAYER.match(name)
    if layer is None or not decoder:
        return False
    stack = [m for n in linear if (m := _LAYER.match(n)) and m["stack"] == layer["stack"]]
    depth = 1 + max(int(m["index"]) for m in stack)
    if not 1 <= int(last[1]) <= depth:
        raise SettingsError(
            f"adapter.scope={scope}: the model has {depth} layers, want 1 to {depth}"
        )
    return int(layer["index"]) >= depth - int(last[1])


def linear_names(config: PretrainedConfig, *, everywhere: bool = False) -> list[str]:
    """Names of the linear modules of a model, without its output matrix, built without memory.

    Args:
        config: of the model.
        everywhere: also those that no text passes, as a multimodal model's image encoder.

    Returns:
        Dotted names, in the order of the modules.
    """
    model = empty_model(config)
    skipped: set[nn.Module | None] = {model.get_output_embeddings()}
    unreached = set() if everywhere else _UNREACHED.get(config.model_type, set())
    owner = head_owner(model)  # of a decoder with a head of its own the head is no target either
    if not everywhere and (owner is not model or not config.is_encoder_decoder):
        text = set(decoder_stack(model).modules())
        skipped |= {module for module in owner.modules() if module not in text}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module not in skipped
        and not any(is_named(name, one) for one in unreached)
        and _is_one_product(module)
    ]


def _is_one_product(module: nn.Linear | Conv1D) -> bool:
    """Whether a linear module returns one tensor; routers of experts return more, or choices."""
    if type(module).forward in (nn.Linear.forward, Conv1D.forward):
        return True
    outer, inner = module.weight.shape
    try:
        output = module(torch.empty(1, inner, device=module.weight.device))
    except (RuntimeError, TypeError, ValueError):  # wants more than states
        return False
    return isinstance(output, Tensor) and output.shape == (1, outer)


def empty_model(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model of a configuration on the meta device: shapes and names, no numbers."""
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        model: PreTrainedModel = auto.from_config(
            config, dtype=dtype, trust_remote_code=runs_code(config)
        )
    return model
