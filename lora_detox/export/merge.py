"""The base with the adapter added into its weights, and what that changes."""

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import AutoTokenizer

from lora_detox.errors import ExportError
from lora_detox.export.finished_run import FinishedRun
from lora_detox.export.reload import load_plain, logits_in_fresh_process, logits_of
from lora_detox.policy.adapter import NO_ADAPTER
from lora_detox.policy.frozen import weight_owners
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.policy.strength import at_strength


def merge(
    request: dict[str, Any],
    folder: Path,
    expected: list[Tensor],
    source: FinishedRun,
    plan: BackbonePlan,
    strength: float,
) -> dict[str, Any]:
    """Merge into an unquantized base, save, reload in a fresh process and compare.

    Rounding makes a merged model another one, the more so in bf16 (peft#638), so the change in
    logits is a figure and not an error. That the file reads back as it was merged is checked.

    Args:
        request: as for `reload`: base, adapter, dtype, device, token ids.
        folder: where the merged model is written.
        expected: logits with base and adapter apart.
        source: the run.
        plan: its base, unquantized.
        strength: of the adapter.

    Returns:
        `dtype`, and `mean`, `maximum` and `same_top` of the change in logits; for a run on a
        quantized base also `from_quantized`, the change against the model that was trained.

    Raises:
        ExportError: PEFT cannot merge this kind of adapter, or the merged model reads back as
            another one than was written.
    """
    model = merged_model(load_plain(request))
    in_process = logits_of(model, request["rows"])
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer = AutoTokenizer.from_pretrained(
        request["base"],
        revision=request["revision"],
        trust_remote_code=request["trust_remote_code"],
    )
    tokenizer.save_pretrained(folder)
    del model
    gc.collect()
    alone = {**request, "base": str(folder), "revision": None, "adapter": None}
    reloaded = logits_in_fresh_process(alone)
    read_back = logit_change(in_process, reloaded)
    if not read_back["maximum"] <= 1e-2:
        raise ExportError(
            f"the merged model does not read back as it was written: logits differ by "
            f"{read_back['maximum']:.3g}; do without export.merge and use the adapter"
        )
    change: dict[str, Any] = {"dtype": request["dtype"], **logit_change(expected, reloaded)}
    if source.quantization != "none":
        quantized = replace(plan, quantization=source.quantization)
        policy = load_policy(quantized, NO_ADAPTER)
        with at_strength(policy, strength):
            trained = logits_of(policy.model, request["rows"])
        change["from_quantized"] = logit_change(trained, reloaded)
    return change


def merged_model(model: Any) -> Any:
    """The model with its adapter in its weights; embedding and output part where they now differ.

    Args:
        model: a PEFT model.

    Returns:
        A plain model.

    Raises:
        ExportError: PEFT cannot merge this kind of adapter.
    """
    owners = weight_owners(model)
    for layer in model.modules():
        weight = getattr(layer.get_base_layer(), "weight", None) if _is_tuner(layer) else None
        if weight is not None and owners.get(id(weight), 0) > 1:
            layer.get_base_layer().weight = nn.Parameter(weight.detach().clone(), False)
    try:
        merged = model.merge_and_unload()
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise ExportError(
            f"export.merge: PEFT cannot merge this adapter: {error}; do without export.merge and "
            "use the adapter"
        ) from error
    head, embedding = merged.get_output_embeddings(), merged.get_input_embeddings()
    if merged.config.tie_word_embeddings and head.weight is not embedding.weight:
        merged.config.tie_word_embeddings = False
    return merged


def _is_tuner(layer: nn.Module) -> bool:
    return isinstance(layer, BaseTunerLayer) and not isinstance(layer, TrainableTokensLayer)


def logit_change(before: list[Tensor], after: list[Tensor]) -> dict[str, float]:
    """How far logits moved.

    Args:
        before: one tensor [T, V] per text.
        after: the same for the same texts.

    Returns:
        `mean` and `maximum` of the absolute difference, and `same_top`, the fraction of positions
        whose likeliest token is the same.

    Raises:
        ExportError: the shapes differ, so that it is another model.
    """
    if [one.shape for one in before] != [one.shape for one in after]:
        raise ExportError(
            f"the reloaded model has logits of shape {[tuple(one.shape) for one in after]}, want "
            f"{[tuple(one.shape) for one in before]}: it is another model"
        )
    gaps = torch.cat([(a - b).abs().flatten() for a, b in zip(after, before, strict=True)])
    same = torch.cat([a.argmax(-1) == b.argmax(-1) for a, b in zip(after, before, strict=True)])
    return {
        "mean": float(gaps.mean()),
        "maximum": float(gaps.max()),
        "same_top": float(same.float().mean()),
    }
