"""Bytes that a computation holds, counted on tensors without numbers.

The very code of a pass runs on fake tensors (shapes, dtypes and the autograd graph, no storage),
and every storage that comes into being is counted until it is freed. So what is kept for the
backward pass, gradient checkpointing and frozen layers included, is counted and not estimated, for
any architecture, in seconds and without weights.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Within this context `live` is what storages made in it hold now, `peak` the most so far.

    Storages that were there before, weights for instance, count nothing, nor do their views.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count the storages that it made."""
        for tensor in _tensors((args, kwargs)):
            self._note(tensor, made=False)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._note(tensor, made=True)
        return result

    def reset_peak(self) -> None:
        """Forget the peak so far."""
        self.peak = self.live

    def _note(self, tensor: Tensor, *, made: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes() if made else 0
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


@contextmanager
def fake_tensors(*models: nn.Module) -> Iterator[None]:
    """Within this context tensors have no numbers; modules from the meta device join in.

    The fake device is the CPU whatever the real one will be: attention then keeps what its fused
    kernels keep (queries, keys, values, output, one number per row), as on a GPU.
    """
    with FakeTensorMode():
        for model in models:
            _to_fake(model)
        yield


def _to_fake(model: nn.Module) -> None:
    """Put a fake tensor in the place of each parameter and buffer; tied ones stay tied."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in made:
                made[id(parameter)] = nn.Parameter(
                    torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu"),
                    requires_grad=parameter.requires_grad,
                )
            module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
