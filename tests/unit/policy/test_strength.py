"""An adapter at another strength: the base at 0, itself at 1, and what lies between and beyond."""

import itertools

import pytest
import torch
from peft import PeftModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from lora_detox.errors import SettingsError
from lora_detox.policy.adapter_kinds import PROVEN
from lora_detox.policy.strength import at_strength, strength_refusal
from tests.tiny import tiny_policy
from tests.unit.policy.adapters import (
    OTHER_KINDS,
    TARGETS,
    base_of,
    close,
    load,
    logits_of,
    logprobs,
    lora,
    ref_logprobs,
    write,
)

STRENGTHS = (-1.0, 0.4, 1.5)
LINEAR = [
    ("llama", "plain"),
    ("gpt2", "plain"),
    ("t5", "plain"),
    ("llama", "patterns"),
    ("llama", "blocks"),
    ("llama", "mica"),
    ("llama", "orthogonal"),
    ("llama", "pissa"),
    ("llama", "pissa_rslora"),
    ("llama", "olora"),
    ("llama", "pissa_head"),
    ("llama", "head"),
    ("llama", "embedding"),
    ("llama", "whole_head"),
    ("llama", "whole_embedding"),
    ("llama", "whole_norm"),
    ("llama", "tokens"),
    ("qwen2", "bias"),
]
DORA = [("llama", "dora"), ("t5", "dora"), ("llama", "pissa_dora")]
KINDS = ["C3A", "DELORA", "FOURIERFT", "GRALORA", "HIRA", "IA3", "LN_TUNING", "LOHA", "LOKR"]
KINDS += ["RANDLORA", "SHIRA", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS", "VERA", "WAVEFT"]


def check_ends(policy):
    """Strength 1 is the adapter and 0 the adapter off, to the bit; nothing is changed for good."""
    with torch.no_grad():
        before, checksum = logprobs(policy), policy.base_checksum()
        off = ref_logprobs(policy)
        with policy.reference():
            off_logits = logits_of(policy.model)
        assert (before - off).abs().max() > 1e-3
        with at_strength(policy, 1.0):
            assert torch.equal(logprobs(policy), before)
        with at_strength(policy, 0.0):
            assert torch.equal(logprobs(policy), off)
            assert torch.equal(logits_of(policy.model), off_logits)
            assert torch.equal(ref_logprobs(policy), off)
        with at_strength(policy, -1.3):
            assert torch.equal(ref_logprobs(policy), off)
            assert (logprobs(policy) - off).abs().max() > 1e-3
        assert torch.equal(logprobs(policy), before)
        assert policy.base_checksum() == checksum


def check_line(bases, architecture, adapter, policy):
    """Every weight is W0 + s (W - W0), with W as plain PEFT merges it."""
    base = base_of(bases, architecture)
    start = {name: weight.clone() for name, weight in base.state_dict().items()}
    merged = PeftModel.from_pretrained(base_of(bases, architecture), adapter).merge_and_unload()
    end = merged.state_dict()
    for strength in STRENGTHS:
        between = {n: torch.lerp(w, end[n].to(w), strength) for n, w in start.items()}
        base.load_state_dict(between)
        with at_strength(policy, strength):
            close(logits_of(policy.model), logits_of(base))
            apart = logprobs(policy)
            with policy.merged():
                close(logprobs(policy), apart)


@pytest.mark.parametrize(("architecture", "name"), LINEAR)
def test_lora_is_scaled_along_the_line_from_the_base(bases, tmp_path, architecture, name):
    adapter = write(base_of(bases, architecture), lora(architecture, name), tmp_path / "start")
    policy = load(bases, architecture, adapter, frozen_reference=False)
    check_ends(policy)
    check_line(bases, architecture, adapter, policy)


@pytest.mark.parametrize(("architecture", "name"), DORA)
def test_dora_scales_its_direction_and_its_magnitude(bases, tmp_path, architecture, name):
    """Against m (W0 + s D) / |W0 + s D|, written out for every adapted weight."""
    adapter = write(base_of(bases, architecture), lora(architecture, name), tmp_path / "start")
    policy = load(bases, architecture, adapter, frozen_reference=False)
    check_ends(policy)
    base = base_of(bases, architecture)
    weights = base.state_dict()
    start = {name: weight.clone() for name, weight in weights.items()}
    layers = {
        name.removeprefix("base_model.model."): layer
        for name, layer in policy.model.named_modules()
        if "default" in getattr(layer, "lora_A", {})
    }
    for strength in STRENGTHS:
        for layer_name, layer in layers.items():
            original = start[f"{layer_name}.weight"]
            up, down = layer.lora_B["default"].weight, layer.lora_A["default"].weight
            whole = layer.get_base_layer().weight + layer.scaling["default"] * up @ down
            direction = original + strength * (whole - original)  # PiSSA's base lacks its start
            own, end = original.norm(dim=1), layer.lora_magnitude_vector["default"].weight
            size = (own + strength * (end - own)) / direction.norm(dim=1)
            weights[f"{layer_name}.weight"].copy_((size[:, None] * direction).detach())
        with at_strength(policy, strength):
            close(logits_of(policy.model), logits_of(base))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_with_a_strength_is_scaled_likewise(bases, tmp_path, kind):
    options = {"target_modules": TARGETS["llama"], **OTHER_KINDS.get(kind, {})}
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **options)
    adapter = write(base_of(bases, "llama"), config, tmp_path / "start")
    policy = load(bases, "llama", adapter, frozen_reference=False)
    check_ends(policy)
    check_line(bases, "llama", adapter, policy)


@pytest.mark.parametrize("kind", sorted(PROVEN))
def test_every_accepted_kind_has_a_strength_or_a_reason(kind):
    reason = strength_refusal(PEFT_TYPE_TO_CONFIG_MAPPING[kind]())
    assert (reason is None) == (kind in {"LORA", *KINDS})
    if reason is not None:
        assert reason.startswith(f"kind {kind}: ")


def test_a_kind_without_a_strength_stays_at_1(bases, tmp_path):
    config = PEFT_TYPE_TO_CONFIG_MAPPING["OFT"](
        task_type="CAUSAL_LM", target_modules=TARGETS["llama"], **OTHER_KINDS["OFT"]
    )
    adapter = write(base_of(bases, "llama"), config, tmp_path / "start")
    policy = load(bases, "llama", adapter, frozen_reference=False)
    start = logprobs(policy)
    with at_strength(policy, 1.0):
        assert torch.equal(logprobs(policy), start)
    with (
        pytest.raises(SettingsError, match="kind OFT: it turns the weights"),
        at_strength(policy, 2.0),
    ):
        pass


def test_a_base_that_lost_a_part_and_is_not_kept_is_refused(bases, tmp_path):
    adapter = write(base_of(bases, "llama"), lora("llama", "pissa"), tmp_path / "start")
    policy = load(bases, "llama", adapter)  # to be trained on: only the start is kept
    with pytest.raises(SettingsError, match="init_lora_weights=pissa"), at_strength(policy, 0.5):
        pass


@pytest.mark.parametrize("architecture", ["gptj", "t5"])
@pytest.mark.parametrize("dora", [False, True])
def test_a_fresh_adapter_that_learned_has_a_strength_too(architecture, dora):
    check_ends(tiny_policy(architecture, dora=dora, rslora=not dora))


@pytest.mark.parametrize(
    ("quantization", "name"), itertools.product(["int8", "nf4"], ["plain", "dora"])
)
def test_strength_0_of_a_quantized_base_is_that_base(bases, tmp_path, quantization, name):
    pytest.importorskip("bitsandbytes")
    adapter = write(base_of(bases, "llama"), lora("llama", name), tmp_path / "start")
    changes = {"quantization": quantization, "dtype": "float32", "frozen_reference": False}
    check_ends(load(bases, "llama", adapter, **changes))
