"""What a phase asks of the machine: operations, host synchronisations, weights read, products."""

import sys
from dataclasses import dataclass, field
from typing import Any, Self, cast
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lora_detox.policy import chunk_stats

aten = torch.ops.aten
ONEDNN_LINEAR = torch.ops.mkldnn._linear_pointwise
METADATA = {
    aten.view, aten._unsafe_view, aten.t, aten.transpose, aten.permute, aten.expand, aten.slice,
    aten.select, aten.unsqueeze, aten.squeeze, aten.detach, aten.alias, aten.as_strided,
    aten.split, aten.split_with_sizes, aten.unbind, aten.unfold, aten.diagonal, aten.narrow,
    aten._reshape_alias, aten.lift_fresh, aten.view_as_real, aten.view_as_complex, aten.chunk,
    aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.set_, aten.resize_,
    aten.is_same_size, aten.sym_size, aten.sym_numel, aten.sym_stride,
}  # fmt: skip
"""Operations that start no kernel: they make another view of what is there, or room for more."""
WAITS = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero,
    aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.repeat_interleave,
    aten.item, aten.bincount,
}  # fmt: skip
"""Operations whose result, or the size of it, the host waits for on a GPU."""


@dataclass
class Counts:
    """Of one phase.

    Attributes:
        operations: that start a kernel.
        waits: host synchronisations.
        flops: of matrix products.
        weight_bytes: of parameters that products read, each time that they are read.
        by_name: operations by name.
        waits_by_name: host synchronisations by name.
    """

    operations: int = 0
    waits: int = 0
    flops: int = 0
    weight_bytes: int = 0
    by_name: dict[str, int] = field(default_factory=dict)
    waits_by_name: dict[str, int] = field(default_factory=dict)


class Counter(TorchDispatchMode):
    """Counts what is dispatched within it, backward passes included.

    Torch's own counter of products hooks into modules, which does not go with derivatives that are
    taken inside of a pass. Token statistics are taken of whole chunks, as on a GPU, not in pieces
    for the caches of a CPU.

    Args:
        weights: parameters of the model; products that read them count their bytes.
    """

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self.counts = Counts()
        self._whole_chunks = patch.object(chunk_stats, "cached_elements", lambda _: sys.maxsize)
        self.storages = {weight.untyped_storage().data_ptr() for weight in weights}

    def __enter__(self) -> Self:
        """Count from here on."""
        self._whole_chunks.start()
        return cast(Self, super().__enter__())

    def __exit__(self, *error: Any) -> None:
        """Count no more."""
        super().__exit__(*error)
        self._whole_chunks.stop()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count and go on."""
        result = func(*args, **(kwargs or {}))
        packet, counts = func.overloadpacket, self.counts
        if packet in METADATA:
            return result
        name = packet.__name__
        counts.operations += 1
        counts.by_name[name] = counts.by_name.get(name, 0) + 1
        if packet in WAITS or _selects_by_mask(packet, args):
            counts.waits += 1
            counts.waits_by_name[name] = counts.waits_by_name.get(name, 0) + 1
        product = _linear_flops if packet is ONEDNN_LINEAR else flop_registry.get(packet)
        if product is not None:
            counts.flops += product(*args, **(kwargs or {}), out_val=result)
            for one in args:
                if isinstance(one, Tensor) and self._is_weight(one):
                    counts.weight_bytes += one.numel() * one.element_size()
        return result

    def _is_weight(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.storages


def _linear_flops(x: Tensor, *_: Any, out_val: Tensor) -> int:
    return 2 * out_val.numel() * x.shape[-1]


def _selects_by_mask(packet: Any, args: tuple[Any, ...]) -> bool:
    """Indexing by a Boolean tensor has as many results as there are True: the host asks."""
    if packet not in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
        return False
    return any(isinstance(one, Tensor) and one.dtype == torch.bool for one in args[1])
