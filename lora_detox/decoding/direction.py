"""One direction in the states behind the last decoder layer: from toxic text to civil text."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from lora_detox.decoding.states import layer_output


def mean_difference(toxic: Float[Tensor, "N H"], civil: Float[Tensor, "M H"]) -> Float[Tensor, "H"]:
    """The mean state of toxic texts less that of civil ones.

    Args:
        toxic: states of toxic texts.
        civil: states of civil texts.

    Returns:
        The direction, as long as the two means are apart.
    """
    return toxic.mean(dim=0) - civil.mean(dim=0)


@contextmanager
def moved(layer: nn.Module, direction: Float[Tensor, "H"], strength: float) -> Iterator[None]:
    """Within this context a layer returns h - strength * direction, at every position.

    With the mean difference as direction, a strength of 1 moves the toxic mean onto the civil one.

    Args:
        layer: the last decoder layer, behind which comes the final norm.
        direction: of its states.
        strength: 0 or more.
    """
    shift = strength * direction

    def move(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        states = layer_output(output)
        changed = states - shift.to(states.dtype)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    hook = layer.register_forward_hook(move)
    try:
        yield
    finally:
        hook.remove()
