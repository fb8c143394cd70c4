"""Taking toxic directions out of the MLP output matrices of a model, and putting them back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_NAMES = ("fc_out", "down_proj", "dense_4h_to_h", "fc2", "wo", "c_proj", "out_proj", "dense", "w2")
"""What models call the matrix that ends an MLP; the last of a layer under such a name is taken."""
_NO_MLP = ("attn", "attention", "experts", "mixer")
"""Parts of names that lead elsewhere: into attention, a state space, or one expert of many."""


def mlp_output(layer: nn.Module) -> Any:
    """The matrix that ends the MLP of a decoder layer.

    Args:
        layer: of a decoder, with or without an adapter in it.

    Returns:
        A `Linear` or `Conv1D`, or the adapter's layer around one.

    Raises:
        ValueError: there is none under a known name, as in a mixture of experts.
    """
    found = None
    for name, module in layer.named_modules():
        *above, last = name.split(".")
        inside = any(part in one.lower() for one in above for part in _NO_MLP)
        if last in _NAMES and not inside and isinstance(_base(module), nn.Linear | Conv1D):
            found = module
    if found is None:
        raise ValueError(f"{type(layer).__name__} has no MLP output matrix under a known name")
    return found


def toxic_directions(
    toxic: Float[Tensor, "N H"], civil: Float[Tensor, "M H"], rank: int
) -> Float[Tensor, "H K"]:
    """Directions in which the states of toxic texts differ from those of civil ones.

    ProFS (Uppaal et al. 2024): of the differences of pairs the mean civil state is projected out,
    since that direction carries what all texts have in common; the right singular vectors of what
    is left are the directions, the largest singular value first.

    Args:
        toxic: states of toxic texts.
        civil: states of civil ones; row i is compared with row i of the toxic ones, and rows
            without a partner are left out.
        rank: K, at most the smaller of the number of pairs and H.

    Returns:
        Orthonormal columns in fp64.
    """
    count = min(len(toxic), len(civil))
    common = civil.double().mean(dim=0)
    common = common / common.norm()
    differences = toxic[:count].double() - civil[:count].double()
    differences = differences - (differences @ common)[:, None] * common
    right: Tensor = torch.linalg.svd(differences, full_matrices=False).Vh
    return right[:rank].T


@contextmanager
def projected(
    modules: Sequence[nn.Module], directions: Sequence[Float[Tensor, "H K"]]
) -> Iterator[None]:
    """Within this context W is (I - V V^T) W, for each matrix W that writes states.

    The update of a LoRA adapter on such a matrix is projected too. Tensors are put back by
    reference: not a bit changes.

    Args:
        modules: as `mlp_output` finds them.
        directions: V of each, orthonormal columns.
    """
    originals: list[tuple[nn.Parameter, Tensor]] = []
    try:
        with torch.no_grad():
            for module, columns in zip(modules, directions, strict=True):
                for part in _writing_parts(module):
                    originals.append((part.weight, part.weight.data))
                    part.weight.data = _without(part, columns)
        yield
    finally:
        for parameter, original in originals:
            parameter.data = original


def _base(module: Any) -> Any:
    """A linear layer itself, or the one below an adapter."""
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def _writing_parts(module: Any) -> list[Any]:
    """The matrix, and the second factors of the LoRA updates beside it."""
    factors = getattr(module, "lora_B", {})
    return [_base(module), *factors.values()]


def _without(part: Any, columns: Float[Tensor, "H K"]) -> Tensor:
    """A weight whose products have nothing along the columns."""
    weight = part.weight.data
    basis = columns.to(weight.device)
    out = weight.double().T if isinstance(part, Conv1D) else weight.double()
    out = out - basis @ (basis.T @ out)
    changed: Tensor = (out.T if isinstance(part, Conv1D) else out).to(weight.dtype)
    return changed.contiguous()
