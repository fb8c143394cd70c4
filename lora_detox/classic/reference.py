"""A frozen copy of a policy that really shares what does not change."""

import copy
from typing import Any, TypeVar

from lora_detox.classic.models import PreTrainedModelWrapper

Wrapper = TypeVar("Wrapper", bound=PreTrainedModelWrapper)

LAYER_PATTERNS = (
    "transformer.h.{layer}.",
    "model.decoder.layers.{layer}.",
    "gpt_neox.layers.{layer}.",
    "model.layers.{layer}.",
    "decoder.block.{layer}.",
)


def create_reference_model(
    model: Wrapper, num_shared_layers: int | None = None, pattern: str | None = None
) -> Wrapper:
    """The policy as it is now, in eval mode, without gradients.

    With `num_shared_layers` every parameter before that layer (embeddings included) is frozen in
    the policy too, and both models hold the same memory. A PEFT policy's frozen backbone is
    always shared: only adapters and value head are copied.

    Args:
        model: the policy; its first layers are frozen where they are shared.
        num_shared_layers: how many layers, from the bottom; None shares no layer that learns.
        pattern: name of a layer with `{layer}` for its number, where it cannot be guessed.

    Returns:
        The reference model.

    Raises:
        ValueError: no parameter's name matches the pattern.
    """
    if num_shared_layers is not None:
        for parameter in _parameters_below(model, num_shared_layers, pattern):
            parameter.requires_grad_(False)
    frozen = num_shared_layers is not None or model.is_peft_model
    shared = {id(p): p for p in model.parameters() if frozen and not p.requires_grad}
    reference = copy.deepcopy(model, shared)
    return reference.requires_grad_(False).eval()


def _parameters_below(model: PreTrainedModelWrapper, layers: int, pattern: str | None) -> list[Any]:
    names = [name for name, _ in model.named_parameters()]
    candidates = LAYER_PATTERNS if pattern is None else (pattern,)
    for candidate in candidates:
        wanted = candidate.format(layer=layers)
        first = next((i for i, name in enumerate(names) if wanted in name), None)
        if first is not None:
            return [p for _, p in list(model.named_parameters())[:first]]
    raise ValueError(
        f"no parameter of layer {layers} found by {', '.join(candidates)}; give pattern="
        "'name.of.a.layer.{layer}' (layers count from 0, so want fewer shared than there are)"
    )
