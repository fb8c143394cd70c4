"""How attention is computed on a CPU in bf16: in plain products if a pass is short, else fused."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lora_detox.machine import EAGER_SCORES, attention_of
from lora_detox.policy.anatomy import decoder_stack


def attend_by_length(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
    """Have each pass of a CPU in bf16 choose by its own length; elsewhere nothing is changed.

    Plain products are faster up to some 300 tokens, and keep every score for the backward pass;
    fused attention is faster from there on, and keeps none (docs/decisions/0029).

    Args:
        model: a language model.
        device: where it runs.
        dtype: of its weights.
    """
    short = attention_of(device, dtype)
    if short is None:
        return
    if model.config._attn_implementation != short:
        model.set_attn_implementation(short)
    try:
        stacks = [decoder_stack(model)]
    except ValueError:  # what cannot be found is reported where it is needed
        return
    if model.config.is_encoder_decoder:
        stacks.append(model.get_encoder())
    for stack in stacks:
        if _has_both(stack):
            stack.register_forward_pre_hook(_choose, with_kwargs=True)


def _has_both(stack: Any) -> bool:
    """Whether fused attention computes the same; it leaves out a bound on the scores (Gemma 2)."""
    return (
        isinstance(stack, PreTrainedModel)
        and bool(stack._supports_sdpa)
        and bool(stack._can_set_attn_implementation())
        and getattr(stack.config, "attn_logit_softcapping", None) is None
    )


def _choose(stack: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    ids = keywords.get("input_ids", args[0] if args else None)
    read = keywords.get("inputs_embeds") if ids is None else ids
    if read is None:
        return
    queries = keys = read.shape[1]
    encoded = keywords.get("encoder_hidden_states")
    if encoded is not None:
        keys = max(queries, encoded.shape[1])
    chosen = "eager" if queries * keys <= EAGER_SCORES else "sdpa"
    stack.config._attn_implementation = chosen  # type: ignore[union-attr]
