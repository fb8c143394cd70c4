"""The reference that KL is measured against: a frozen copy, or the policy without its adapter."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from lora_detox.classic.advice import caution
from lora_detox.classic.models import PreTrainedModelWrapper
from lora_detox.policy.adapter_kinds import changes_base, init_of

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
    """Parameters that stand before a layer, in the order of the model."""
    names = [name for name, _ in model.named_parameters()]
    candidates = LAYER_PATTERNS if pattern is None else (pattern,)
    for candidate in candidates:
        wanted = candidate.format(layer=layers)
        first = next((i for i, name in enumerate(names) if wanted in name), None)
        if first is not None:
            return [p for _, p in list(model.named_parameters())[:first]]
    raise ValueError(
        f"create_reference_model: no parameter of layer {layers} is named like "
        f"{', '.join(candidates)}; give pattern='name.of.a.layer.{{layer}}', or share fewer layers "
        "(they count from 0)"
    )


def reference_of(
    model: PreTrainedModelWrapper, ref_model: Any, num_shared_layers: int | None
) -> PreTrainedModelWrapper | None:
    """The reference that the policy is held to; None means the policy without its adapter.

    Args:
        model: the policy.
        ref_model: given by the program; used for PEFT policies too (TRL ignored it there).
        num_shared_layers: for the copy that is made where none is given.

    Returns:
        A frozen model in eval mode, or None.

    Raises:
        ValueError: `ref_model` is no value-head model, or none was given with PiSSA or OLoRA.
    """
    if ref_model is None and model.is_peft_model:
        described = model.pretrained_model.active_peft_config
        if changes_base(described):
            raise ValueError(
                f"PPOTrainer: the adapter began with init_lora_weights={init_of(described)}, which "
                "took a part out of the base, so that the policy without its adapter is no "
                "reference; pass ref_model=create_reference_model(model)"
            )
        return None
    if ref_model is None:
        return create_reference_model(model, num_shared_layers)
    if not isinstance(ref_model, PreTrainedModelWrapper):
        raise ValueError(
            f"PPOTrainer: ref_model must be a value-head model or None, got {type(ref_model)}; "
            f"wrap it with {type(model).__name__}.from_pretrained(ref_model)"
        )
    if ref_model is model:
        raise ValueError(
            "PPOTrainer: ref_model is the policy itself, so KL would stay 0; pass "
            "ref_model=create_reference_model(model)"
        )
    if num_shared_layers is not None:
        caution(
            "PPOTrainer: num_shared_layers has no effect beside ref_model: both models stay as "
            "they are; share layers with create_reference_model(model, num_shared_layers)"
        )
    return ref_model.eval()


@contextmanager
def reference_model(
    model: PreTrainedModelWrapper, reference: PreTrainedModelWrapper | None
) -> Iterator[PreTrainedModelWrapper]:
    """The reference, ready to run: its own model, or the policy with its adapter off.

    Args:
        model: the policy.
        reference: of `reference_of`.

    Yields:
        What to run.
    """
    if reference is not None:
        yield reference
    else:
        with model.pretrained_model.disable_adapter():
            yield model
