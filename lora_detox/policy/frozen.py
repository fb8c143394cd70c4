"""Numbers of a backbone that no adapter can change, computed once and used again.

Where the adapter sits in the decoder only, the encoder's states of a query never change; where it
sits in the last N layers, nor do the states that enter them. For given rows they are taken in the
first pass and replayed in every later one: reference, and each epoch of the update. The replayed
numbers are the very tensors of the first pass, so nothing is rounded differently.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_detox.types import FrozenStates


class FrozenPart:
    """The leading part of a model without any adapter: its encoder, its lower decoder layers.

    Args:
        model: the backbone with adapter layers in place.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        seq2seq = model.config.is_encoder_decoder
        self.encoder = seq2seq and not _has_adapter(model.get_encoder())
        stack = model.get_decoder() if seq2seq else model.base_model
        self.owner, self.name = _layer_list(stack)
        layers = getattr(self.owner, self.name)
        adapted = [index for index, layer in enumerate(layers) if _has_adapter(layer)]
        # A decoder layer reads the encoder, so it is frozen only where the encoder is.
        self.depth = adapted[0] if adapted and (self.encoder or not seq2seq) else 0

    @property
    def exists(self) -> bool:
        """Whether there is anything to keep."""
        return self.encoder or self.depth > 0

    @contextmanager
    def use(self, states: FrozenStates | None) -> Iterator[None]:
        """Within this context a forward pass takes the lower layers from `states` or fills them."""
        if states is None or self.depth == 0:
            yield
        elif states.lower is None:
            with self._recording(states):
                yield
        else:
            with self._replaying(states.lower):
                yield

    @contextmanager
    def _recording(self, states: FrozenStates) -> Iterator[None]:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            states.lower = _detached(output)

        hook = getattr(self.owner, self.name)[self.depth - 1].register_forward_hook(keep)
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def _replaying(self, lower: Any) -> Iterator[None]:
        layers = getattr(self.owner, self.name)
        setattr(self.owner, self.name, nn.ModuleList([_Replay(lower), *layers[self.depth :]]))
        try:
            yield
        finally:
            setattr(self.owner, self.name, layers)


class _Replay(nn.Module):
    """Stands in for the frozen layers: returns what the last of them returned."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_inputs: Any, **_keywords: Any) -> Any:
        return self.output


def _has_adapter(module: nn.Module) -> bool:
    return any(isinstance(part, BaseTunerLayer) for part in module.modules())


def _layer_list(stack: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds a stack's list of layers, and the list's name there."""
    for owner in stack.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList):
                return owner, name
    raise ValueError(f"{type(stack).__name__} has no list of layers")


def _detached(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, tuple):
        return tuple(_detached(part) for part in output)
    return output


@contextmanager
def merged(model: PreTrainedModel) -> Iterator[None]:
    """Within this context the adapter is added into the weights it sits on, for fast decoding.

    The original tensors are put back as they were, by reference: not a bit changes. Only fp32
    weights are merged, as a small update would be lost in the rounding of bf16, and quantized
    weights cannot hold it; elsewhere the context does nothing.

    Args:
        model: the backbone with adapter layers in place.
    """
    layers = [part for part in model.modules() if isinstance(part, BaseTunerLayer)]
    if not all(_can_merge(layer) for layer in layers):
        yield
        return
    originals = []
    try:
        with torch.no_grad():
            for layer in layers:
                weight = layer.get_base_layer().weight
                originals.append((layer, weight, weight.data))
                for adapter in layer.active_adapters:
                    weight.data = weight.data + layer.get_delta_weight(adapter)
                layer._disable_adapters = True  # forward then is the base layer's alone
        yield
    finally:
        for layer, weight, original in originals:
            weight.data = original
            layer._disable_adapters = False


def _can_merge(layer: Any) -> bool:
    weight = layer.get_base_layer().weight
    plain = weight.dtype == torch.float32 and not layer.disable_adapters and not layer.merged
    return plain and not any(getattr(layer, "use_dora", {}).values())
