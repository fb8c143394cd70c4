"""Are the weights that were loaded those of the file, all of them, and numbers?

Transformers fills a tensor that the file lacks with random numbers, leaves out one that the model
does not know, and only warns. Each of these is another model than the user meant.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from lora_detox.errors import SettingsError
from lora_detox.model_files import not_finite, wants_code, weight_fault, weight_files
from lora_detox.policy.preflight import BackbonePlan, code_refused

_HARMLESS = re.compile(
    r"^v_head\."
    r"|(^|\.)(attn|attention|self_attn|self_attention)\.(bias|causal_mask)$"
    r"|(^|[._])masked_bias$"
    r"|(^|\.)(inv_freq|position_ids|version|final_logits_bias|num_batches_tracked)$"
    r"|(^|\.)rotary_emb\.(cos|sin)_cached$"
    r"|(^|\.)embed_positions\.(weights?|_float_tensor)$"
)
"""What older programs wrote and nobody reads: the value head of TRL beside a whole model, masks and
positions that are computed today. A model that does read a tensor of such a name gets it."""
_SHOWN = 3


def check_complete(info: Mapping[str, Any], path: str) -> None:
    """Every tensor of the model came from the file, and every tensor of the file went into it.

    Args:
        info: `output_loading_info` of Transformers.
        path: of the model, for messages.

    Raises:
        SettingsError: with the first tensors that are missing, left over or of another shape.
    """
    reshaped = [
        f"{name} {tuple(stored)} instead of {tuple(wanted)}"
        for name, stored, wanted in sorted(info["mismatched_keys"])
    ]
    left_over = [name for name in info["unexpected_keys"] if not _HARMLESS.search(name)]
    for what, names in (
        ("have another shape than its config.json says", reshaped),
        ("lack", sorted(info["missing_keys"])),
        ("hold what a model of its config.json does not have", sorted(left_over)),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise SettingsError(
                f"policy.path: the weights of {path} {what}: {', '.join(names[:_SHOWN])}{more}; "
                "want config.json and weights of one model, as save_pretrained wrote them"
            )


def check_numbers(model: PreTrainedModel, plan: BackbonePlan) -> None:
    """Every weight is a finite number, and the one that the file holds.

    What is stored in fewer bits is looked at in the file, before it is rounded.

    Args:
        model: as it was loaded, on any device.
        plan: where from.

    Raises:
        SettingsError: with the tensor, and the file where it is not what was loaded.
    """
    if fault := not_finite(model.named_parameters()):
        raise SettingsError(_no_numbers(plan.path, fault))
    loaded = dict(model.state_dict(keep_vars=True))
    prefix = f"{model.base_model_prefix}."
    for file in weight_files(plan.path, plan.revision):
        with safe_open(str(file), framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - it is no dict
                own = loaded.get(name, loaded.get(prefix + name))
                _compare(stored.get_tensor(name), own, name, file, quantized=_is_quantized(plan))


def _compare(stored: Tensor, own: Any, name: str, file: Path, *, quantized: bool) -> None:
    if quantized and (fault := not_finite([(name, stored)])):
        raise SettingsError(_no_numbers(str(file), fault))
    # Transformers gives some tensors another name or fuses them; those are not compared.
    same_kind = isinstance(own, Tensor) and own.shape == stored.shape
    if not same_kind or not own.is_floating_point() or not stored.is_floating_point():
        return
    if not torch.equal(stored.to(own.dtype).to(own.device), own):
        raise SettingsError(
            f"policy.path: {name} was loaded as other numbers than {file} holds; the file changed "
            "meanwhile, or this architecture is not read rightly: load it again, or choose another "
            "model"
        )


def _is_quantized(plan: BackbonePlan) -> bool:
    return plan.quantization != "none"


def _no_numbers(where: str, fault: str) -> str:
    return (
        f"policy.path: {where}: {fault}; the file is damaged or its training diverged, want another"
    )


def loading_failed(plan: BackbonePlan, error: Exception) -> SettingsError:
    """What Transformers raised while it read weights, as one message that names the file.

    Args:
        plan: what was loaded.
        error: what was raised.

    Returns:
        The error to raise.
    """
    if wants_code(error) and not plan.trust_remote_code:
        return code_refused(plan.path)
    if fault := weight_fault(weight_files(os.path.expanduser(plan.path), plan.revision)):
        return SettingsError(f"policy.path: {fault}; want the model as save_pretrained wrote it")
    lines = str(error).strip().splitlines() or [""]
    return SettingsError(
        f"policy.path: cannot load the weights of {plan.path} ({type(error).__name__}: "
        f"{lines[0][:200]}); want config.json and safetensors weights of one model, as "
        "save_pretrained wrote them"
    )


def first_wild_module(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> str:
    """Where the numbers of a forward pass first stop being finite.

    Args:
        model: any.
        inputs: keywords of its forward.

    Returns:
        Name of the first module whose output has a NaN or an infinite number; "its logits" where
        all of them are finite.
    """
    wild: list[str] = []

    def look(name: str) -> Any:
        def hook(module: Any, given: Any, output: Any) -> None:
            tensors = output if isinstance(output, Sequence) else [output]
            named = [(name, one) for one in tensors if isinstance(one, Tensor)]
            if not_finite(named) is not None:
                wild.append(name)

        return hook

    handles = [part.register_forward_hook(look(name)) for name, part in model.named_modules()]
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return wild[0] if wild and wild[0] else "its logits"
