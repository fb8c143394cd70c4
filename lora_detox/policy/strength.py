"""An adapter at another strength: s times its update, exactly, in the place of the adapter itself.

At strength 0 the policy is its bare base, at strength 1 the adapter as it is, both to the bit. Else
it is W0 + s (W - W0) in whatever the adapter puts into the place of W0:

- LoRA, with any scaling, and the kinds of `_FACTORS`: the update is proportional to one of its
  factors, which is multiplied by s. A negative s takes the update away from the base (Ilharco et
  al. 2023, "Editing models with task arithmetic").
- DoRA (Liu et al. 2024) is m (W0 + BA) / |W0 + BA| by columns: B is multiplied by s, and the
  magnitude is m0 + s (m - m0) with m0 = |W0|.
- Copies of whole modules, norms and rows of tokens, and the scales of IA3 (1 in the base).
- PiSSA and OLoRA took their start B0 A0 out of the base, which is put back in part: the base below
  is W0 - s B0 A0, so that the whole is W0 + s (BA - B0 A0).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.ia3 import IA3Layer
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.lora import LoraLayer
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

from lora_detox.errors import SettingsError
from lora_detox.policy.adapter_kinds import changes_base, init_of, kind_of
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.reference import Exchange, exchanged

_FACTORS = {
    "LORA": ("lora_B", "lora_embedding_B"),
    "C3A": ("c3a_kernel",),
    "DELORA": ("delora_lambda",),
    "FOURIERFT": ("fourierft_spectrum",),
    "GRALORA": ("gralora_B", "gralora_B_general"),
    "HIRA": ("hira_B",),
    "LOHA": ("hada_w1_a",),
    "LOKR": ("lokr_w1", "lokr_w1_a"),
    "RANDLORA": ("randlora_lambda",),
    "SHIRA": ("shira_weight",),
    "SUPERTUNING": ("supertuning_values",),
    "TINYLORA": ("tinylora_v",),
    "VERA": ("vera_lambda_b",),
    "WAVEFT": ("waveft_spectrum",),
}
"""The parameters that the update of a kind is proportional to, by PEFT's names."""
_COPIES = ("IA3", "LN_TUNING", "TRAINABLE_TOKENS")
"""Kinds whose parameters stand for what the base has in their place."""
_ROTATION = "it turns the weights, and a part of a turn is no multiple of an update"
_REFUSED = {
    **dict.fromkeys(("BOFT", "HRA", "OFT", "PSOFT", "ROAD"), _ROTATION),
    "DEFT": "it projects a part of the weights away, which is not proportional to any parameter",
    "MISS": "in some of its variants the update is not proportional to its parameters",
    "OSF": "it trains the singular vectors of the weights themselves",
    "VBLORA": "it chooses its vectors by a softmax, which no factor scales",
}
_PRODUCT = "its update is not proportional to any one of its parameters"


def strength_refusal(config: PeftConfig) -> str | None:
    """Why an adapter has no strength other than 1; None where it has.

    Args:
        config: as PEFT reads it.

    Returns:
        The kind with the reason, as part of a sentence.
    """
    kind = kind_of(config)
    if kind in _FACTORS or kind in _COPIES:
        return None
    return f"kind {kind}: {_REFUSED.get(kind, _PRODUCT)}"


def export_refusal(config: PeftConfig) -> str | None:
    """Why an adapter cannot be written down at a strength other than 1; None where it can.

    Args:
        config: as PEFT reads it.

    Returns:
        What stands against it, as part of a sentence.
    """
    if changes_base(config):
        init = f"init_lora_weights={init_of(config)}"
        return f"{init}: PEFT takes the whole of its start out of the base whenever it loads it"
    return strength_refusal(config)


@contextmanager
def at_strength(policy: LoraPolicy, strength: float) -> Iterator[None]:
    """Within this context the adapter of a loaded policy has another strength.

    Args:
        policy: with a trained adapter; its reference stays what it is.
        strength: 0 is the bare base, 1 the adapter as it is; may be negative or above 1.

    Raises:
        SettingsError: an adapter that has no strength, see `strength_refusal`; also one that
            changed its base (PiSSA, OLoRA) in a policy that does not keep the base as it was.
    """
    if strength == 1:
        yield
        return
    config: PeftConfig = policy.model.peft_config["default"]
    if reason := strength_refusal(config):
        raise SettingsError(f"the adapter can only be used at strength 1: {reason}")
    originals = policy.originals
    if changes_base(config) and not originals:
        raise SettingsError(
            f"the adapter began with init_lora_weights={init_of(config)}, which took a part out of "
            "the base, and the base as it was is not kept here; load it as stage=evaluate does"
        )
    with torch.no_grad():
        ends = [*_factors(policy.model, kind_of(config)), *_copies(policy.model), *originals]
        with exchanged(originals):
            ends += _magnitudes(policy.model)
        scaled = tuple((end, _between(start, end.data, strength)) for end, start in ends)
    with exchanged(scaled):
        yield


def _between(start: Tensor, end: Tensor, strength: float) -> Tensor:
    """Start + strength (end - start) in the dtype of the end; at 0 the start, bit for bit."""
    if strength == 0:
        return start.to(end)
    return torch.lerp(start.to(end.device).float(), end.float(), strength).to(end.dtype)


def _factors(model: nn.Module, kind: str) -> Exchange:
    """Parameters that are 0 in the base."""
    names = _FACTORS.get(kind, ())
    return tuple(
        (parameter, torch.zeros_like(parameter))
        for name, parameter in model.named_parameters()
        if set(name.split(".")).intersection(names)
    )


def _copies(model: nn.Module) -> Exchange:
    """Parameters that stand for what the base has in their place, with that."""
    ends: dict[int, tuple[nn.Parameter, Tensor]] = {}
    modules: Iterator[Any] = model.modules()
    for module in modules:
        pairs: list[tuple[nn.Parameter, Tensor]] = []
        if isinstance(module, ModulesToSaveWrapper):
            pairs = _paired(module.modules_to_save["default"], module.original_module)
        elif isinstance(module, LNTuningLayer):
            pairs = _paired(module.ln_tuning_layers["default"], module.get_base_layer())
        elif isinstance(module, TrainableTokensLayer):
            rows = module.trainable_tokens_original["default"]
            pairs = [(module.trainable_tokens_delta["default"], rows)]
        elif isinstance(module, IA3Layer):
            scale = module.ia3_l["default"]
            pairs = [(scale, torch.ones_like(scale))]
        ends |= {id(parameter): (parameter, start) for parameter, start in pairs}
    return tuple(ends.values())  # a tied copy stands in two places


def _paired(copy: nn.Module, original: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    return [(one, original.get_parameter(name).data) for name, one in copy.named_parameters()]


def _magnitudes(model: nn.Module) -> Exchange:
    """Magnitudes of DoRA, with those of the base: computed by PEFT as for a B of 0."""
    ends = []
    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or "default" not in layer.lora_magnitude_vector:
            continue
        magnitude = layer.lora_magnitude_vector["default"]
        linear = "default" in layer.lora_A
        down = layer.lora_A["default"].weight if linear else layer.lora_embedding_A["default"]
        up = layer.lora_B["default"].weight if linear else layer.lora_embedding_B["default"]
        base = type(magnitude)(fan_in_fan_out=magnitude.fan_in_fan_out)
        base.update_layer(
            base_layer=layer.get_base_layer(),
            lora_A=down,
            lora_B=torch.zeros_like(up),
            scaling=layer.scaling["default"],
        )
        ends.append((magnitude.weight, base.weight.data))
    return tuple(ends)
