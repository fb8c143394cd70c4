"""How a fresh adapter begins: PEFT's initialisations of LoRA, and when they do not fit."""

from collections.abc import Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_detox.errors import SettingsError

DEFAULT = "true"
"""PEFT's own: A at random, B at 0."""
OFF_AT_START = (DEFAULT, "gaussian")
"""B is 0, so that the adapter off is the start, and no copy of the start is kept."""
CHANGES_BASE = ("pissa", "olora")
"""What PEFT puts into the adapter is taken out of the base."""
SINGULAR = ("pissa", "mica")
"""The adapter begins with singular vectors of the base."""
_TAKEN = (DEFAULT, "gaussian", "orthogonal", "olora", *SINGULAR)
_WANTS_DATA = "it is made from data or gradients, which PEFT's own functions take before training"
_REFUSED = {
    "false": "it puts noise into the base before anything is learned",
    "eva": f"{_WANTS_DATA}; make it there and give its folder as policy.adapter",
    "corda": _WANTS_DATA,
    "lora_ga": _WANTS_DATA,
    "loftq": "it quantizes the base anew at every load",
    "pissa_niter": "it draws at random, so that adapter/ would not be read back as it was",
}
COLLAPSES = (
    "training by reinforcement collapses from such a start (arXiv:2512.23165, on PiSSA and "
    "MiLoRA); want adapter.init=true, adapter=dora, or insist with adapter.force_init=true"
)


def check_init(
    init: str,
    layers: Sequence[nn.Module],
    *,
    rank: int,
    dora: bool = False,
    quantized: bool = False,
    force: bool = False,
) -> bool | str:
    """Find an initialisation that cannot work, or should not be used, before weights load.

    Args:
        init: `adapter.init`.
        layers: those that get an adapter; their shapes are read.
        rank: of the adapter.
        dora: whether magnitudes are apart.
        quantized: whether the base is stored in fewer bits.
        force: take a start from singular vectors.

    Returns:
        The value of PEFT's `init_lora_weights`.

    Raises:
        SettingsError: with the reason and what to use.
    """
    name = init.lower()
    reason = next((why for start, why in _REFUSED.items() if name.startswith(start)), None)
    if reason is None and name not in _TAKEN:
        reason = "there is no such initialisation here"
    if reason is None and name in SINGULAR and not force:
        raise SettingsError(f"adapter.init={name}: {COLLAPSES}")
    if reason is None:
        reason = _misfit(name, layers, rank=rank, dora=dora, quantized=quantized)
    if reason is not None:
        raise SettingsError(f"adapter.init={init}: {reason}; want one of {', '.join(_TAKEN)}")
    return True if name == DEFAULT else name


def _misfit(
    name: str, layers: Sequence[nn.Module], *, rank: int, dora: bool, quantized: bool
) -> str | None:
    """Why an initialisation does not go with the model or the other settings; None if it does."""
    reads_base = name in (*CHANGES_BASE, *SINGULAR)
    weights = [one.weight for one in layers if isinstance(one, nn.Linear | Conv1D)]
    least = min((min(weight.shape) for weight in weights), default=rank)
    reasons = {
        f"it wants an even adapter.rank, got {rank}": name == "orthogonal" and rank % 2 == 1,
        "PEFT does not combine it with adapter.dora=true": name == "mica" and dora,
        "PEFT gets the shapes of GPT-2's Conv1D layers wrong with it": name == "olora"
        and any(isinstance(layer, Conv1D) for layer in layers),
        "it reads the base's weights, and these are quantized": reads_base and quantized,
        f"adapter.rank={rank} is more than the {least} dimensions of the smallest layer": reads_base
        and rank > least,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
