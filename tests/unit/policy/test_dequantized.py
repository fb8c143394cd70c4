"""Writing with whole weights where the frozen ones are quantized: same weights, other products."""

import warnings

import pytest
import torch
from peft.utils.integrations import dequantize_bnb_weight

from lora_detox.choices import Dequantize
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.dequantized import (
    dense_bytes,
    dequantized,
    dequantizes,
    has_room,
    quantized_layers,
)
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.rollout import generate_responses
from lora_detox.types import Sampling
from tests.tiny import (
    DECODER_ONLY,
    ENCODER_DECODER,
    move,
    tiny_backbone,
    tiny_policy,
    tiny_prompts,
    tiny_responses,
    tiny_tokenizer,
)

pytest.importorskip("bitsandbytes")
SAMPLING = Sampling()


@pytest.fixture
def saved(tmp_path):
    """Writes a tiny model and its tokenizer."""

    def save(architecture):
        tiny_backbone(architecture).save_pretrained(tmp_path / architecture)
        tiny_tokenizer().save_pretrained(tmp_path / architecture)
        return str(tmp_path / architecture)

    return save


def load(path, quantization):
    plan = BackbonePlan(path=path, device="cpu", quantization=quantization)
    adapter = AdapterPlan(rank=2, alpha=4.0, targets=(), scope="all")
    return load_policy(plan, adapter)


def batch_for(policy):
    prompts, (ids, mask) = tiny_prompts(policy, [5, 4]), tiny_responses([3, 6])
    return prompts.query_ids, prompts.query_mask, ids, mask, SAMPLING


@pytest.fixture(params=["int8", "nf4"])
def quantization(request):
    return request.param


@pytest.mark.parametrize("architecture", [ENCODER_DECODER, DECODER_ONLY])
def test_the_products_are_those_of_the_unpacked_weights(saved, architecture, quantization):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy = load(saved(architecture), quantization=quantization)
        move(policy)  # the adapter goes on within
        layers = quantized_layers(policy.backbone)
        assert layers
        assert dense_bytes(policy.backbone, torch.bfloat16) == 2 * sum(
            one.in_features * one.out_features for one in layers
        )
        with torch.no_grad():
            packed = policy.respond(*batch_for(policy)).logprobs
            base = policy.base_checksum()
            with dequantized(policy.backbone):
                whole = policy.respond(*batch_for(policy)).logprobs
                layer = layers[0]
                weight = dequantize_bnb_weight(layer.weight, getattr(layer, "state", None))
                states = torch.randn(3, layer.in_features, dtype=policy.backbone.dtype)
                expected = states @ weight.to(states.dtype).t()
                bias = 0 if layer.bias is None else layer.bias
                torch.testing.assert_close(layer(states), expected + bias, rtol=0.02, atol=0.02)
            again = policy.respond(*batch_for(policy)).logprobs
    assert torch.equal(again, packed)
    assert policy.base_checksum() == base
    assert (whole - packed).abs().max() < 0.5
    assert (whole - packed).abs().max() > 0 or quantization == "nf4"
    assert whole.isfinite().all()


def test_responses_are_written_with_whole_weights_where_it_is_asked_for(saved, quantization):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy = load(saved("gptj"), quantization=quantization)
        prompts, seen = tiny_prompts(policy, [5, 4, 6, 3]), []
        layer = quantized_layers(policy.backbone)[0]
        policy.backbone.register_forward_hook(lambda *_: None)
        stack = policy.backbone.transformer
        stack.register_forward_hook(lambda *_: seen.append("forward" in layer.__dict__))
        for how in (Dequantize.never, Dequantize.always, Dequantize.auto):
            policy.dequantize = how
            generate_responses(
                policy, prompts, SAMPLING, response_tokens=(2, 2), batch_size=4, seed=0
            )
    assert seen == [False, False, True, True, False, False]  # auto: a CPU's memory is the user's
    assert "forward" not in layer.__dict__


def test_an_error_while_writing_puts_the_packed_weights_back(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy = load(saved("gptj"), quantization="int8")
    policy.dequantize = Dequantize.always

    def write():
        assert all("forward" in one.__dict__ for one in quantized_layers(policy.backbone))
        raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"), policy.merged():
        write()
    assert all("forward" not in one.__dict__ for one in quantized_layers(policy.backbone))


def test_whole_weights_stay_as_they_are():
    policy = tiny_policy("gptj")
    assert not quantized_layers(policy.backbone)
    assert not dequantizes(policy.backbone, policy.device, Dequantize.always)


def test_a_gpu_without_room_keeps_the_packed_weights(monkeypatch, saved):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load(saved("gptj"), quantization="int8").backbone
    needed, gpu = dense_bytes(model, torch.bfloat16), torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 10)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4)
    total = 100 * needed
    for free, fits in ((needed + 10 * needed - 6, True), (needed + 10 * needed - 7, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, total))
        assert has_room(model, gpu, torch.bfloat16) is fits
    assert not has_room(model, torch.device("cpu"), torch.bfloat16)
