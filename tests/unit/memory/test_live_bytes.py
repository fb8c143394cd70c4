"""Bytes counted on fake tensors are those that real tensors hold; weights are counted exactly."""

import gc

import pytest
import torch

from lora_detox.memory.fake_policy import fake_policy
from lora_detox.memory.live_bytes import LiveBytes
from lora_detox.memory.passes import PassShape, generation_bytes, update_bytes
from lora_detox.memory.weights import weight_bytes
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan, read_config
from lora_detox.types import Sampling
from tests.tiny import move, tiny_backbone, tiny_prompts, tiny_responses, tiny_tokenizer

pytestmark = pytest.mark.prediction

ADAPTER = AdapterPlan(rank=2, alpha=4.0)
SHAPE = PassShape(rows=4, query=9, response=7)


@pytest.fixture
def saved(tmp_path):
    def save(architecture):
        folder = tmp_path / architecture
        tiny_backbone(architecture).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        return str(folder)

    return save


def plan_of(path, **changes):
    return BackbonePlan(path=path, device="cpu", **changes)


def counted(path, adapter=ADAPTER, shape=SHAPE, count=update_bytes, **changes):
    plan = plan_of(path, **changes)
    with fake_policy(plan, adapter, read_config(plan)) as policy:
        return count(policy, shape, Sampling())


def test_storages_count_once_and_until_they_are_freed():
    before = torch.zeros(100)
    with LiveBytes() as live:
        view = before.reshape(10, 10)
        assert live.live == 0
        made = view + 1
        half = made[:5]
        assert live.live == 400
        del made
        assert live.live == 400  # the view still holds it
        del half
        assert (live.live, live.peak) == (0, 400)
        live.reset_peak()
        assert live.peak == 0


def measured_kept(policy):
    """What a real forward pass of the same shape holds until its backward pass."""
    prompts, (ids, mask) = (
        tiny_prompts(policy, [SHAPE.query] * SHAPE.rows),
        tiny_responses([SHAPE.response] * SHAPE.rows),
    )
    frozen = policy.frozen_states()
    batch = (prompts.query_ids, prompts.query_mask, ids, mask, Sampling(), frozen)
    if frozen is not None:
        with torch.no_grad():
            policy.respond(*batch)
    with policy.training(), LiveBytes() as live:
        outputs = policy.respond(*batch)
        gc.collect()
        kept = live.live
        (outputs.logprobs.sum() + outputs.values.sum()).backward()
    return kept


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        *[(architecture, {}) for architecture in ("t5", "gptj", "gpt_neo", "gpt2", "llama")],
        ("t5", {"dtype": "bfloat16"}),
        ("gptj", {"gradient_checkpointing": True}),
        ("t5", {"scope": "last_1"}),
        ("gptj", {"scope": "last_1"}),
    ],
    ids=str,
)
def test_what_is_kept_for_the_backward_pass_is_what_a_real_pass_keeps(saved, architecture, changes):
    path, adapter = saved(architecture), ADAPTER
    if "scope" in changes:
        adapter, changes = AdapterPlan(rank=2, alpha=4.0, scope=changes["scope"]), {}
    policy = load_policy(plan_of(path, **changes), adapter)
    move(policy)
    predicted = counted(path, adapter, **changes)
    # Masks and indices of the real pass differ a little: it has padding to look for.
    assert predicted.kept == pytest.approx(measured_kept(policy), rel=0.1)


@pytest.mark.parametrize("architecture", ["t5", "gptj"])
def test_more_rows_and_tokens_take_more_and_checkpointing_and_scope_less(saved, architecture):
    path = saved(architecture)
    plain = counted(path)
    double = counted(path, shape=PassShape(rows=8, query=9, response=7))
    assert double.kept == pytest.approx(2 * plain.kept, rel=0.1)
    assert counted(path, shape=PassShape(rows=4, query=18, response=7)).kept > plain.kept
    assert counted(path, gradient_checkpointing=True).kept < 0.6 * plain.kept
    upper = counted(path, AdapterPlan(rank=2, alpha=4.0, scope="last_1"))
    assert upper.kept < plain.kept
    assert upper.frozen > 0
    assert plain.frozen == 0


@pytest.mark.parametrize("architecture", ["t5", "gptj"])
def test_the_cache_grows_with_rows_and_response(saved, architecture):
    path = saved(architecture)
    small = counted(path, count=generation_bytes)
    long = counted(path, shape=PassShape(rows=4, query=9, response=14), count=generation_bytes)
    wide = counted(path, shape=PassShape(rows=8, query=9, response=7), count=generation_bytes)
    layers, width = 3, 16
    keys_and_values = 7 * 4 * layers * 2 * width * 4  # fp32
    # The mask of a decoder-only model grows with them.
    assert long.cache - small.cache == pytest.approx(keys_and_values, rel=0.03)
    assert wide.cache == pytest.approx(2 * small.cache, rel=0.15)


@pytest.mark.parametrize("architecture", ["t5", "gptj", "gpt_neo", "gpt2", "bart"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dtype": "bfloat16"},
        {"dtype": "float16", "allow_fp16_t5": True},
        {"quantization": "int8"},
        {"quantization": "nf4"},
        {"quantization": "nf4", "double_quant": False},
    ],
    ids=str,
)
def test_weights_are_counted_to_the_byte(saved, architecture, changes):
    if architecture == "gpt2" and "quantization" in changes:
        pytest.skip("GPT-2's layers are Conv1D")
    plan = plan_of(saved(architecture), **changes)
    predicted = weight_bytes(plan, read_config(plan))
    backbone = load_policy(plan, ADAPTER).backbone
    tensors = [t for n, t in backbone.named_parameters() if "lora_" not in n]
    tensors += list(backbone.buffers())
    for module in backbone.modules():
        holders = (getattr(module, "weight", None), getattr(module, "state", None))
        scales = [getattr(holder, "SCB", None) for holder in holders]  # the first pass moves it
        tensors += [scale for scale in scales if scale is not None]
        tensors += quant_tensors(getattr(getattr(module, "weight", None), "quant_state", None))
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    assert predicted.total == sum(held.values())
    assert bool(predicted.quantized) == ("quantization" in changes)


def quant_tensors(state):
    if state is None:
        return []
    own = [state.absmax, state.code]
    return own if not state.nested else [*own, state.offset, state.state2.absmax, state.state2.code]
