"""What turns the policy into its reference: the tensors of the start in the place of those of now.

A second adapter in the model would be initialised by PEFT, and some initialisations (PiSSA, OLoRA)
take what they put into the adapter out of the base, a second time then. Tensors that change places
are the same for every kind of adapter, and cost the same memory.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

Exchange = tuple[tuple[nn.Parameter, Tensor], ...]
"""Parameters, each with the tensor that takes the place of its own."""


@dataclass(frozen=True)
class Reference:
    """How the model at hand becomes the reference policy.

    Attributes:
        start: what learns, with copies from when training began; empty where the reference is the
            bare backbone, the adapter off.
        originals: base weights that PEFT changed while it loaded the adapter, as they were before;
            they come back where the adapter is off.
    """

    start: Exchange = ()
    originals: Exchange = ()


def copies(parameters: Iterable[nn.Parameter]) -> Exchange:
    """Parameters with copies of what they are now."""
    return tuple((parameter, parameter.detach().clone()) for parameter in parameters)


@contextmanager
def exchanged(pairs: Exchange) -> Iterator[None]:
    """Within this context the parameters hold the other tensors; not a bit is written.

    Args:
        pairs: parameters and the tensors that they hold meanwhile.
    """
    own = [parameter.data for parameter, _ in pairs]
    try:
        for parameter, other in pairs:
            parameter.data = other
        yield
    finally:
        for (parameter, _), tensor in zip(pairs, own, strict=True):
            parameter.data = tensor
