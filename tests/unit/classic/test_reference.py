"""create_reference_model: frozen, in eval mode, sharing what it should."""

import pytest
import torch

from lora_detox.classic import AutoModelForCausalLMWithValueHead, create_reference_model
from tests.tiny import ARCHITECTURES, tiny_backbone
from tests.unit.classic.programs import (
    lora_config,
    policy,
    quiet_trainer,
    some_queries,
    some_responses,
    some_scores,
)

IDS = torch.tensor([[5, 6, 7, 8]])


def pairs(model, reference):
    other = dict(reference.named_parameters())
    return [(name, p, other[name]) for name, p in model.named_parameters()]


def shared_names(model, reference):
    return {n for n, p, q in pairs(model, reference) if p.data_ptr() == q.data_ptr()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_independent_reference_stays(architecture):
    model = policy(architecture).train()
    reference = create_reference_model(model)
    assert not reference.training
    assert not any(p.requires_grad for p in reference.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert shared_names(model, reference) == set()
    kept = [q.clone() for _, _, q in pairs(model, reference)]
    for parameter in model.parameters():
        parameter.data.add_(1.0)
    assert all(
        torch.equal(k, q) for k, (_, _, q) in zip(kept, pairs(model, reference), strict=True)
    )


@pytest.mark.parametrize("architecture", ["gpt2", "gptj", "gpt_neo", "llama"])
def test_shared_layers_share_memory_and_are_frozen(architecture):
    model = policy(architecture)
    reference = create_reference_model(model, num_shared_layers=2)
    shared = shared_names(model, reference)
    assert shared == {n for n, p in model.named_parameters() if not p.requires_grad}
    layers = {n for n in shared if ".h.0." in n or ".h.1." in n or ".layers.0." in n}
    assert layers
    assert not any(".h.2." in n or ".layers.2." in n or "v_head" in n for n in shared)
    assert any("wte" in n or "embed" in n for n in shared)
    trainer = quiet_trainer(model, reference, learning_rate=1e-2)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    trainer.step(some_queries(), some_responses(), some_scores())
    for name, parameter, twin in pairs(model, reference):
        assert twin.grad is None
        if name in shared:
            assert parameter.grad is None
            assert torch.equal(parameter, before[name])
        else:
            assert parameter.grad is not None
            assert torch.equal(twin, before[name])
            assert not torch.equal(parameter, before[name]), name


def test_the_trainer_shares_layers_by_itself():
    model = policy("gptj")
    trainer = quiet_trainer(model, num_shared_layers=1)
    shared = shared_names(model, trainer.ref_model)
    assert "pretrained_model.transformer.h.0.attn.q_proj.weight" in shared
    assert "pretrained_model.transformer.h.1.attn.q_proj.weight" not in shared


def test_a_pattern_names_layers_that_cannot_be_guessed():
    model = policy("t5")
    reference = create_reference_model(model, 1, pattern="encoder.block.{layer}")
    shared = shared_names(model, reference)
    assert "pretrained_model.encoder.block.0.layer.0.SelfAttention.q.weight" in shared
    assert not any("decoder" in name for name in shared)
    with pytest.raises(ValueError, match="no parameter of layer 1"):
        create_reference_model(policy(), 1, pattern="nowhere.{layer}")
    with pytest.raises(ValueError, match="no parameter of layer 99"):
        create_reference_model(policy(), 99)


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_a_peft_reference_copies_only_what_learns(architecture):
    model = policy(architecture, lora=True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    reference = create_reference_model(model)
    copied = {n for n, _ in model.named_parameters()} - shared_names(model, reference)
    assert copied == {n for n, p in model.named_parameters() if p.requires_grad}
    extra = {"decoder_input_ids": IDS} if architecture == "t5" else {}
    start = reference(IDS, **extra)[0]
    torch.testing.assert_close(start, model.eval()(IDS, **extra)[0])
    quiet_trainer(model, reference, learning_rate=1e-2).step(
        some_queries(), some_responses(), some_scores()
    )
    torch.testing.assert_close(reference(IDS, **extra)[0], start, rtol=0, atol=0)
    assert not torch.allclose(model.eval()(IDS, **extra)[0], start)


@pytest.mark.parametrize("init", ["pissa", "olora", "pissa_niter_4"])
def test_the_backbone_is_no_reference_where_the_adapter_took_a_part_of_it(init):
    options = {"init_lora_weights": init}
    model = AutoModelForCausalLMWithValueHead.from_pretrained(
        tiny_backbone("llama"), peft_config=lora_config("llama", **options)
    )
    with pytest.raises(ValueError, match=f"init_lora_weights={init}.*create_reference_model"):
        quiet_trainer(model)
    reference = create_reference_model(model)
    logits = tiny_backbone("llama")(input_ids=IDS).logits
    torch.testing.assert_close(reference(input_ids=IDS)[0], logits, rtol=1e-3, atol=1e-3)
    trainer = quiet_trainer(model, reference, learning_rate=1e-2)
    stats = trainer.step(some_queries(), some_responses(), some_scores())
    assert abs(stats["objective/kl"]) < 1e-4
    torch.testing.assert_close(reference(input_ids=IDS)[0], logits, rtol=1e-3, atol=1e-3)
    assert (model(input_ids=IDS)[0] - logits).abs().max() > 1e-3


@pytest.mark.parametrize("options", [{"bias": "lora_only"}, {"alora_invocation_tokens": [3]}])
def test_an_adapter_that_does_not_train_is_refused_by_name(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"PPO cannot train this adapter: {name}.*LoraConfig"):
        AutoModelForCausalLMWithValueHead.from_pretrained(
            tiny_backbone("llama"), peft_config=lora_config("llama", **options)
        )
