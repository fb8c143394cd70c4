"""A backbone whose layers are divided over the processes of a run: for weights that fit no card.

Each process keeps an equal share of every layer's frozen weights. Where a layer is about to
compute, the shares of that layer are collected; after it they are let go. So a process holds one
whole layer at a time, beside its shares, the embeddings and what learns (ZeRO, stage 3,
Rajbhandari et al. 2020).

Processes need not make the same passes. Before a layer computes, its process says which one it
wants, and all others answer: they want a layer too, or they wait for the others (`wait`), as
`Processes` has them do before each meeting. Every layer that anybody wants is collected by all. So
responses that end early, batches that are halved and processes without a row need no care.

What a backward pass needs is computed again layer by layer, with weights that are collected once
more: kept for it, they would be the whole backbone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lora_detox.errors import SettingsError
from lora_detox.policy.anatomy import decoder_stack, layer_list
from lora_detox.policy.checksum import combined, digests
from lora_detox.policy.frozen import adapted_names, weight_owners
from lora_detox.processes import processes

IDLE = -1
"""What a process says that wants no layer."""
ALIGNMENT = 16
"""Bytes: every weight begins at a multiple of it."""


class Piece(NamedTuple):
    """Where one weight of a layer stands in its bytes."""

    owner: nn.Module
    name: str
    start: int
    shape: torch.Size
    empty: nn.Parameter


class ShardedLayer:
    """The frozen weights of a layer, of which this process keeps a share.

    Args:
        weights: each with the module that owns it and its name there.
        device: where the share goes.
    """

    def __init__(self, weights: list[tuple[nn.Module, str]], device: torch.device) -> None:
        us = processes()
        self.pieces: list[Piece] = []
        self.elements, end = 0, 0
        for owner, name in weights:
            weight = owner._parameters[name]
            assert weight is not None
            empty = nn.Parameter(weight.new_empty(0, device=device), requires_grad=False)
            self.pieces.append(Piece(owner, name, end, weight.shape, empty))
            self.elements += weight.numel()
            end += _rounded_up(weight.nbytes, ALIGNMENT)
        self.bytes = _rounded_up(end, us.size * ALIGNMENT)
        whole = torch.zeros(self.bytes, dtype=torch.uint8)
        for piece in self.pieces:
            raw = _bytes_of(piece.owner._parameters[piece.name])
            whole[piece.start : piece.start + raw.numel()] = raw.cpu()
        self.share = whole.chunk(us.size)[us.rank].to(device, copy=True)
        self.let_go()

    def put(self, whole: Tensor) -> None:
        """Put the weights in their places, as views of the layer's bytes."""
        for owner, name, start, shape, empty in self.pieces:
            size = shape.numel() * empty.element_size()
            weight = whole[start : start + size].view(empty.dtype).view(shape)
            owner._parameters[name] = nn.Parameter(weight, requires_grad=False)

    def let_go(self) -> None:
        """Put weights of no size in their places."""
        for piece in self.pieces:
            piece.owner._parameters[piece.name] = piece.empty


class ShardedBackbone:
    """The layers of a backbone, each process with a share of all of them.

    Args:
        model: the backbone with adapter layers in place, on the CPU.
        device: where it goes.

    Raises:
        SettingsError: layers without frozen weights of their own.
    """

    def __init__(self, model: PreTrainedModel, device: torch.device) -> None:
        self.layers: list[ShardedLayer] = []
        for module in _all_layers(model):
            layer = ShardedLayer(_frozen_weights(module, model), device)
            place = len(self.layers)
            self.layers.append(layer)
            module.forward = self._forward(place, module.forward)
        if not any(layer.pieces for layer in self.layers):
            raise SettingsError("policy.sharded: the layers of this model have no frozen weights")
        self._spare = torch.empty(max(layer.bytes for layer in self.layers), dtype=torch.uint8)
        self._spare = self._spare.to(device)  # for what others want
        processes().lend(self)

    def wait(self) -> None:
        """Help the others with the layers that they want, until all of them wait here."""
        while any(place != IDLE for place in self._meet(IDLE, None)):
            pass

    @contextmanager
    def whole(self, place: int) -> Iterator[None]:
        """Within this context a layer has its weights."""
        self._fetch(place)
        try:
            yield
        finally:
            self.layers[place].let_go()

    def checksum(self, model: PreTrainedModel, names: set[str]) -> str:
        """The checksum of weights by name: that of an undivided backbone, made layer by layer.

        Args:
            model: the backbone.
            names: of a state dict of it, those that count.

        Returns:
            32 hexadecimal digits.
        """
        divided = {(id(p.owner), p.name) for layer in self.layers for p in layer.pieces}
        places = {
            f"{path}.{name}" if path else name: (id(module), name)
            for path, module in model.named_modules()
            for name in module._parameters
        }
        kept = {name for name in names if places.get(name) not in divided}

        def of(chosen: set[str]) -> dict[str, bytes]:
            weights = model.state_dict(keep_vars=True)
            return digests({name: weights[name] for name in chosen})

        found = of(kept)
        for place, layer in enumerate(self.layers):
            own = {(id(p.owner), p.name) for p in layer.pieces}
            with self.whole(place):
                found |= of({name for name in names - kept if places[name] in own})
        return combined(found)

    @property
    def elements(self) -> int:
        """Weights that are divided, counted once."""
        return sum(layer.elements for layer in self.layers)

    def _fetch(self, place: int) -> None:
        layer = self.layers[place]
        whole = torch.empty(layer.bytes, dtype=torch.uint8, device=layer.share.device)
        self._meet(place, whole)  # memory has run out before the others wait for this process
        layer.put(whole)

    def _meet(self, wanted: int, into: Tensor | None) -> list[int]:
        """Say which layer is wanted; every wanted one is collected by all."""
        us = processes()
        said = us.numbers(wanted)
        for place in sorted(set(said) - {IDLE}):
            layer = self.layers[place]
            spare = self._spare[: layer.bytes]
            us.collect(layer.share, spare if into is None or place != wanted else into)
        return said

    def _forward(self, place: int, plain: Callable[..., Any]) -> Callable[..., Any]:
        """The forward of a layer that has its weights while it computes, and no longer."""

        def with_weights(*inputs: Any, **keywords: Any) -> Any:
            with self.whole(place):
                return plain(*inputs, **keywords)

        def forward(*inputs: Any, **keywords: Any) -> Any:
            if not torch.is_grad_enabled():
                return with_weights(*inputs, **keywords)
            return checkpoint(partial(with_weights, **keywords), *inputs, use_reentrant=False)

        return forward


def _all_layers(model: PreTrainedModel) -> list[nn.Module]:
    stacks = [decoder_stack(model)]
    if model.config.is_encoder_decoder:
        stacks.insert(0, model.get_encoder())
    return [layer for stack in stacks for layer in _layers_of(stack)]


def _layers_of(stack: nn.Module) -> list[nn.Module]:
    owner, name = layer_list(stack)
    return list(getattr(owner, name))


def _frozen_weights(layer: nn.Module, model: PreTrainedModel) -> list[tuple[nn.Module, str]]:
    """What of a layer never changes and is that layer's alone."""
    names = {id(p): name for name, p in layer.named_parameters(remove_duplicate=False)}
    adapted = adapted_names(layer, names.values())
    owners = weight_owners(model)
    return [
        (owner, name)
        for owner in layer.modules()
        for name, weight in owner._parameters.items()
        if weight is not None
        and not weight.requires_grad
        and owners[id(weight)] == 1
        and names[id(weight)] not in adapted
    ]


def _bytes_of(weight: Tensor | None) -> Tensor:
    assert weight is not None
    return weight.detach().contiguous().reshape(-1).view(torch.uint8)


def _rounded_up(size: int, step: int) -> int:
    return -(-size // step) * step
