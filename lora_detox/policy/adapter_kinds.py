"""Which kinds of PEFT adapters train here, and why the others are refused.

A kind is accepted once a tiny model has shown (tests/unit/policy/test_stored_adapter.py): the start
is plain PEFT's, every parameter that learns gets a gradient, the reference stays the start, the
base stays as it is, and saving, plain PEFT's reload and its merge give the same logits.
"""

from typing import Any

from peft import PeftConfig

from lora_detox.policy.adapter_init import CHANGES_BASE, SINGULAR

PROVEN = frozenset(
    (
        "BOFT",
        "C3A",
        "DEFT",
        "DELORA",
        "FOURIERFT",
        "FROD",
        "GLORA",
        "GRALORA",
        "HIRA",
        "HRA",
        "IA3",
        "LN_TUNING",
        "LOHA",
        "LOKR",
        "LORA",
        "MISS",
        "OFT",
        "OSF",
        "PEANUT",
        "PSOFT",
        "RANDLORA",
        "ROAD",
        "SHIRA",
        "SUPERTUNING",
        "TINYLORA",
        "TRAINABLE_TOKENS",
        "UNILORA",
        "VBLORA",
        "VERA",
        "WAVEFT",
    )
)
"""Kinds by PEFT's name that train, in their own parameters alone."""

_INPUT = "it puts learned states before the input, where passes over the layers do not see them"
_SCHEDULE = "it needs its own calls and its own term of the loss at every step, which are not here"
_NO_MERGE = "PEFT cannot merge it into the weights"
REFUSED_KINDS = {
    "PROMPT_TUNING": _INPUT,
    "MULTITASK_PROMPT_TUNING": _INPUT,
    "P_TUNING": _INPUT,
    "PREFIX_TUNING": _INPUT,
    "CPT": _INPUT,
    "CARTRIDGE": _INPUT,
    "ADAPTION_PROMPT": _INPUT,
    "ADALORA": _SCHEDULE,
    "ADAMSS": _SCHEDULE,
    "PVERA": "it draws its weights anew in every pass of an update",
    "POLY": "it wants a task id with every row",
    "XLORA": "its mixture of adapters is chosen by a pass of its own",
    "SHADOW": "it is a second model beside the backbone",
    "LILY": _NO_MERGE,
    "BEFT": _NO_MERGE,
}
"""Kinds that do not train as they should, each with the reason."""

REFUSED_OPTIONS = {
    "layer_replication": "it builds another stack of layers, so that the base is another one",
    "target_parameters": "it sits on bare parameters, which are neither replayed nor merged here",
    "alora_invocation_tokens": "it works in PEFT's own forward alone, from given tokens on",
    "arrow_config": "it chooses among several adapters",
    "use_qalora": "it is for GPTQ weights, which are not loaded here",
    "megatron_config": "it is for layers of Megatron",
    "monteclora_config": "it draws its weights anew in every pass of an update",
    "kasa_config": "its two terms of the loss are not here, and it cuts the base's weights",
}
"""Options of LoRA that are refused wherever they are set, each with the reason."""

BIAS = "it trains biases of the base itself, which the reference shares; train it with bias=none"

_LOST = (
    "it took a part out of the base when it was made, and PEFT does not take out the same when it "
    "loads; save it with path_initial_model_for_weight_conversion, which makes plain LoRA"
)
REFUSED_INITS = {
    "corda": _LOST,
    "lora_ga": _LOST,
    "pissa_niter": _LOST,
    "loftq": (
        "PEFT would quantize the base anew at every load; give the "
        "quantized base as policy.path and set init_lora_weights to true in adapter_config.json"
    ),
}
"""Initialisations that plain PEFT cannot repeat when it loads, by the beginning of their names."""


def refusal(config: PeftConfig, *, stored: bool = True) -> str | None:
    """Why an adapter cannot be trained here; None where it can.

    Args:
        config: as PEFT reads it.
        stored: whether PEFT loads it from a file; one that was made in this process is on the base
            that it was made with.

    Returns:
        What of it is refused, with the reason, as part of a sentence.
    """
    kind = kind_of(config)
    if (reason := refusal_of_kind(kind)) is not None:
        return reason
    bias = getattr(config, "bias", None)
    if bias not in (None, "none", False):
        return f"bias={bias}: {BIAS}"
    if kind != "LORA":
        return None
    inits = REFUSED_INITS.items() if stored else ()
    for option, reason in REFUSED_OPTIONS.items():
        if getattr(config, option, None):
            return f"{option}: {reason}"
    init = str(init_of(config))
    reasons = (reason for name, reason in inits if init.startswith(name))
    reason = next(reasons, None)
    return None if reason is None else f"init_lora_weights={init}: {reason}"


def refusal_of_kind(kind: str) -> str | None:
    """Likewise, by PEFT's name of the kind alone."""
    if kind in PROVEN:
        return None
    return f"kind {kind}: {REFUSED_KINDS.get(kind, 'it is not known to train here')}"


def kind_of(config: PeftConfig) -> str:
    """PEFT's name of the kind."""
    return str(getattr(config.peft_type, "value", config.peft_type))


def init_of(config: PeftConfig) -> Any:
    """How LoRA was initialised, in lower case; None for other kinds."""
    init = getattr(config, "init_lora_weights", None)
    return init.lower() if isinstance(init, str) else init


def changes_base(config: PeftConfig) -> bool:
    """Whether PEFT takes out of the base what the adapter begins with (PiSSA, OLoRA and others)."""
    return str(init_of(config)).startswith((*CHANGES_BASE, *REFUSED_INITS))


def from_singular_vectors(config: PeftConfig) -> bool:
    """Whether the adapter begins with singular vectors of the base (PiSSA, MiCA)."""
    return init_of(config) in SINGULAR
