"""Numbers of a backbone that no adapter can change, computed once and used again.

Where the adapter sits in the decoder only, the encoder's states of a query never change; where it
sits in the last N layers, nor do the states that enter them, unless embeddings learn too. For given
rows they are taken in the first pass and replayed in every later one: reference, and each epoch of
the update. The replayed numbers are the very tensors of the first pass, so nothing is rounded
differently.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lora_detox.policy.anatomy import decoder_stack, layer_list
from lora_detox.types import FrozenStates


class FrozenPart:
    """The leading part of a model without any adapter: its encoder, its lower decoder layers.

    Args:
        model: the backbone with adapter layers in place.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        seq2seq = model.config.is_encoder_decoder
        self.encoder = seq2seq and not _changes(model.get_encoder().modules())
        stack = decoder_stack(model)
        self.owner, self.name = layer_list(stack)
        layers = getattr(self.owner, self.name)
        adapted = [index for index, layer in enumerate(layers) if _changes(layer.modules())]
        inside = set(layers.modules())
        beside = [module for module in stack.modules() if module not in inside]
        # A decoder layer reads the encoder and the embeddings, so it is frozen only where they are.
        fixed_below = (self.encoder or not seq2seq) and not _changes(beside)
        self.depth = adapted[0] if adapted and fixed_below else 0
        self.records = False  # while a pass fills a keeper

    def disable(self) -> None:
        """Keep nothing: for stacks whose layers do not simply follow each other."""
        self.encoder, self.depth = False, 0

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
        self.records = True
        try:
            yield
        finally:
            hook.remove()
            self.records = False

    @contextmanager
    def _replaying(self, lower: Any) -> Iterator[None]:
        layers = getattr(self.owner, self.name)
        # One for each layer, as stacks count their layers to look up masks and kinds of attention.
        replays = [_Replay(layer, lower) for layer in layers[: self.depth]]
        setattr(self.owner, self.name, nn.ModuleList([*replays, *layers[self.depth :]]))
        try:
            yield
        finally:
            setattr(self.owner, self.name, layers)


class _Replay(nn.Module):
    """Stands in for a frozen layer: returns what the last of them returned."""

    def __init__(self, layer: nn.Module, output: Any) -> None:
        super().__init__()
        self.output = output
        self.layer = (layer,)  # in a tuple, so that it is no part of this module

    def __getattr__(self, name: str) -> Any:
        """What stacks read of their layers, the kind of attention for one, is the layer's own."""
        if name in ("output", "layer"):
            raise AttributeError(name)
        return getattr(self.__dict__["layer"][0], name)

    def forward(self, *_inputs: Any, **_keywords: Any) -> Any:
        return self.output


def _changes(modules: Iterable[nn.Module]) -> bool:
    """Whether an adapter is among the modules, or a parameter of theirs that learns."""
    return any(
        isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
        or any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        for module in modules
    )


def adapted_names(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Those names of a state dict that belong to an adapter, and not to the weights below it.

    Args:
        model: a backbone with adapter layers in place.
        names: of its parameters and buffers.

    Returns:
        What stands beside the wrapped layer: factors of any kind, copies of `modules_to_save`,
        rows of trained tokens.
    """
    wrappers = {
        path: "original_module" if isinstance(part, ModulesToSaveWrapper) else "base_layer"
        for path, part in model.named_modules()
        if isinstance(part, BaseTunerLayer | ModulesToSaveWrapper)
    }

    def belongs(name: str) -> bool:
        parts = name.split(".")
        above = [(".".join(parts[:depth]), parts[depth]) for depth in range(len(parts))]
        return any(path in wrappers and child != wrappers[path] for path, child in above)

    return {name for name in names if belongs(name)}


def head_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Parameters that act on the last states of a model: those of its output matrix."""
    seq2seq = model.config.is_encoder_decoder
    stacks = [model.get_encoder(), model.get_decoder()] if seq2seq else [model.base_model]
    below = {id(p) for stack in stacks for p in stack.parameters()}
    above = [p for p in model.parameters() if id(p) not in below]
    return above + [p for p in model.get_output_embeddings().parameters() if id(p) in below]


def _detached(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, tuple):
        return tuple(_detached(part) for part in output)
    return output


@contextmanager
def merged(model: PreTrainedModel) -> Iterator[None]:
    """Within this context LoRA is added into the weights that it sits on, for fast decoding.

    The original tensors are put back as they were, by reference: not a bit changes. Layers that
    cannot be merged (see `mergeable_layers`) work as they are.

    Args:
        model: the backbone with adapter layers in place.
    """
    originals = []
    try:
        with torch.no_grad():
            for layer in mergeable_layers(model):
                weight = layer.get_base_layer().weight
                originals.append((layer, weight, weight.data))
                for adapter in set(layer.active_adapters) & set(layer.lora_A):
                    weight.data = weight.data + layer.get_delta_weight(adapter)
                layer._disable_adapters = True  # forward then is the base layer's alone
        yield
    finally:
        for layer, weight, original in originals:
            weight.data = original
            layer._disable_adapters = False


def mergeable_layers(model: nn.Module) -> list[Any]:
    """LoRA layers whose update is a sum of products, on a weight of fp32 that is theirs alone.

    A small update would be lost in the rounding of bf16, quantized weights cannot hold it, and what
    is merged into a matrix that serves as embedding and output would act twice.

    Args:
        model: a backbone with adapter layers in place.

    Returns:
        The layers, in the order of the model.
    """
    layers: list[Any] = [part for part in model.modules() if isinstance(part, LoraLayer)]
    owners = weight_owners(model)
    return [
        one for one in layers if _can_merge(one) and owners[id(one.get_base_layer().weight)] == 1
    ]


def weight_owners(model: nn.Module) -> dict[int, int]:
    """In how many modules each parameter stands, by its `id`: two where it is shared."""
    owners: dict[int, int] = {}
    for part in model.modules():
        for parameter in part.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return owners


def _can_merge(layer: Any) -> bool:
    base = layer.get_base_layer()
    if not isinstance(base, nn.Linear | Conv1D) or base.weight.dtype != torch.float32:
        return False
    plain = not (layer.lora_variant or any(layer.lora_bias.values()))
    return plain and not layer.disable_adapters and not layer.merged
