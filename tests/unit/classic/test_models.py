"""Value-head models: wrapping, loading, saving, forward, reward adapter."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    BloomForCausalLM,
    GPT2ForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
)

from lora_detox.classic import (
    AutoModelForCausalLMWithValueHead,
    AutoModelForSeq2SeqLMWithValueHead,
)
from lora_detox.policy.value_head import ValueHead
from tests.tiny import ARCHITECTURES, tiny_backbone
from tests.unit.classic.programs import lora_config, policy, quiet_trainer, wrapper_of

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def parent_of(architecture):
    return AutoModelForSeq2SeqLM if architecture == "t5" else AutoModelForCausalLM


def forward(model, **options):
    extra = {"decoder_input_ids": IDS} if model.encoder_decoder else {}
    return model.eval()(IDS, attention_mask=torch.ones_like(IDS), **extra, **options)


def same(one, two):
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(v, two[k]) for k, v in one.items())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forward_gives_logits_loss_and_values(architecture):
    model = policy(architecture)
    logits, loss, values = forward(model)
    assert logits.shape == (2, 4, 40)
    assert loss is None
    assert values.shape == (2, 4)
    plain = model.pretrained_model(
        input_ids=IDS, **({"decoder_input_ids": IDS} if model.encoder_decoder else {})
    )
    torch.testing.assert_close(logits, plain.logits)
    assert forward(model, labels=IDS)[1].dim() == 0
    assert len(forward(model, return_past_key_values=True)) == 4


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["gpt2", "gptj"])
def test_the_cache_that_it_returns_is_what_was_read(architecture):
    model = policy(architecture).eval()
    whole = model(input_ids=IDS)[0]
    *_, cache = model(input_ids=IDS[:, :-1], use_cache=True, return_past_key_values=True)
    last = model(input_ids=IDS[:, -1:], past_key_values=cache, use_cache=True)[0]
    torch.testing.assert_close(last, whole[:, -1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_bf16(architecture, tmp_path):
    tiny_backbone(architecture).save_pretrained(tmp_path)
    wrapper = wrapper_of(architecture)
    model = wrapper.from_pretrained(str(tmp_path), torch_dtype=torch.bfloat16)
    assert model.pretrained_model.lm_head.weight.dtype == torch.bfloat16
    logits, _, values = forward(model)
    assert logits.dtype == values.dtype == torch.float32
    assert wrapper.from_pretrained(tmp_path).pretrained_model.dtype == torch.float32
    tiny_backbone(architecture).bfloat16().save_pretrained(tmp_path)
    assert wrapper.from_pretrained(tmp_path).pretrained_model.dtype == torch.float32


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_attributes(architecture):
    model = policy(architecture)
    assert model.v_head.summary.weight.shape == (1, 16)
    assert not torch.equal(model.v_head.summary.bias, torch.zeros(1))
    assert model.transformers_parent_class is parent_of(architecture)
    assert "lm_head" in model.lm_head_namings
    assert model.is_peft_model is False
    assert policy(architecture, lora=True).is_peft_model is True
    assert policy(architecture, v_head_init_strategy="normal").v_head.summary.bias.item() == 0
    assert model.prepare_inputs_for_generation is not None


def test_dropout_of_the_head():
    assert policy().v_head.dropout.p == 0.1
    assert policy(summary_dropout_prob=0.5).v_head.dropout.p == 0.5
    backbone = tiny_backbone("gpt2")
    backbone.config.summary_dropout_prob = 0.3
    assert AutoModelForCausalLMWithValueHead.from_pretrained(backbone).v_head.dropout.p == 0.3


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_names_of_state_and_parameters(architecture):
    model = policy(architecture)
    wrapped = set(model.pretrained_model.state_dict())
    assert set(model.state_dict()) == wrapped | {"v_head.summary.weight", "v_head.summary.bias"}
    assert all(
        name.startswith(("pretrained_model.", "v_head.")) for name, _ in model.named_parameters()
    )
    other = policy(architecture, seed=1)
    assert not same(model, other)
    other.load_state_dict(model.state_dict())
    assert same(model, other)


@pytest.mark.parametrize("shard", [None, "10KB"])
@pytest.mark.parametrize("architecture", ["gpt2", "t5", "gptj"])
def test_saved_models_reload_in_transformers_and_here(architecture, shard, tmp_path):
    model = policy(architecture)
    model.save_pretrained(tmp_path, **({"max_shard_size": shard} if shard else {}))
    assert (tmp_path / "model.safetensors.index.json").is_file() == bool(shard)
    assert same(wrapper_of(architecture).from_pretrained(str(tmp_path)), model)
    assert same(parent_of(architecture).from_pretrained(tmp_path), model.pretrained_model)


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_adapters_reload_in_peft_here_and_in_the_engine(architecture, tmp_path):
    base, folder = tmp_path / "base", tmp_path / "adapter"
    tiny_backbone(architecture).save_pretrained(base)
    wrapper, parent = wrapper_of(architecture), parent_of(architecture)
    model = wrapper.from_pretrained(str(base), peft_config=lora_config(architecture))
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    frozen = wrapper.from_pretrained(str(folder))
    assert same(frozen, model)
    assert {n for n, p in frozen.named_parameters() if p.requires_grad} == {
        "v_head.summary.weight",
        "v_head.summary.bias",
    }
    again = wrapper.from_pretrained(str(folder), is_trainable=True)
    assert sum(p.numel() for p in again.parameters() if p.requires_grad) == sum(
        p.numel() for p in trained
    )
    plain = PeftModel.from_pretrained(parent.from_pretrained(base), folder)
    torch.testing.assert_close(
        forward(model)[0],
        plain.eval()(IDS, **({"decoder_input_ids": IDS} if model.encoder_decoder else {})).logits,
    )
    head = ValueHead(16)
    head.load(folder)
    assert torch.equal(head.linear.weight, model.v_head.summary.weight)
    with pytest.raises(ValueError, match="the adapter is frozen"):
        quiet_trainer(frozen)


def test_ready_models_tolerate_loading_keywords():
    backbone = tiny_backbone("gpt2")
    model = AutoModelForCausalLMWithValueHead.from_pretrained(
        backbone, torch_dtype=torch.bfloat16, is_trainable=True, device_map="auto", token="x"
    )
    assert model.pretrained_model is backbone
    adapted = AutoModelForCausalLMWithValueHead.from_pretrained(
        tiny_backbone("gpt2"), peft_config=lora_config("gpt2")
    )
    assert adapted.is_peft_model
    with pytest.raises(ValueError, match="peft_config"):
        AutoModelForCausalLMWithValueHead.from_pretrained(backbone, peft_config={"r": 2})


def test_models_without_a_language_head_are_refused(tmp_path):
    backbone = tiny_backbone("gpt2")
    backbone.save_pretrained(tmp_path)
    bare = AutoModel.from_pretrained(tmp_path)
    assert not hasattr(bare, "prepare_inputs_for_generation")
    classifier = GPT2ForSequenceClassification(backbone.config)
    for model in (bare, classifier):
        with pytest.raises(ValueError, match="language model head"):
            AutoModelForCausalLMWithValueHead.from_pretrained(model)
    with pytest.raises(ValueError, match="language model head"):
        AutoModelForSeq2SeqLMWithValueHead.from_pretrained(tiny_backbone("t5").encoder)
    with pytest.raises(ValueError, match="other family"):
        AutoModelForSeq2SeqLMWithValueHead.from_pretrained(backbone)
    with pytest.raises(ValueError, match="takes a name"):
        AutoModelForCausalLMWithValueHead.from_pretrained(torch.nn.Linear(2, 2))


def test_an_eight_bit_policy_learns(tmp_path):
    pytest.importorskip("bitsandbytes")
    tiny_backbone("gptj").save_pretrained(tmp_path)
    model = AutoModelForCausalLMWithValueHead.from_pretrained(
        str(tmp_path), load_in_8bit=True, peft_config=lora_config("gptj")
    )
    assert model.is_loaded_in_8bit
    assert type(model.backbone.transformer.h[0].attn.q_proj.base_layer).__name__ == "Linear8bitLt"
    assert_learns_a_little(model)


def assert_learns_a_little(model):
    trainer = quiet_trainer(model, ppo_epochs=1, learning_rate=1e-2)
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    queries = [row for row in torch.cat([IDS, IDS])]
    responses = trainer.generate(queries, return_prompt=False, max_new_tokens=4, do_sample=False)
    stats = trainer.step(queries, responses, [torch.tensor(float(i)) for i in range(4)])
    assert abs(stats["objective/kl"]) < 0.5
    after = [p for p in model.parameters() if p.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["opt", "bloom", "bart"])
def test_other_architectures(name):
    torch.manual_seed(0)
    shared = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
    if name == "opt":
        backbone = OPTForCausalLM(
            OPTConfig(hidden_size=16, word_embed_proj_dim=8, ffn_dim=16, num_hidden_layers=2,
                      num_attention_heads=2, max_position_embeddings=32, **shared)
        )  # fmt: skip
    elif name == "bloom":
        backbone = BloomForCausalLM(BloomConfig(hidden_size=16, n_layer=2, n_head=2, **shared))
    else:
        backbone = BartForConditionalGeneration(
            BartConfig(d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
                       decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
                       max_position_embeddings=32, decoder_start_token_id=1,
                       forced_eos_token_id=None, **shared)
        )  # fmt: skip
    wrapper = (
        AutoModelForSeq2SeqLMWithValueHead if name == "bart" else AutoModelForCausalLMWithValueHead
    )
    assert_learns_a_little(wrapper.from_pretrained(backbone))


@pytest.mark.parametrize("lora", [False, True])
def test_deepcopy(lora):
    model = policy(lora=lora)
    twin = copy.deepcopy(model)
    assert same(model, twin)
    for parameter in twin.parameters():
        parameter.data.add_(1.0)
    assert not same(model, twin)
    torch.testing.assert_close(forward(model)[0], forward(policy(lora=lora))[0])


def test_reward_adapter(tmp_path):
    classifier = get_peft_model(
        GPT2ForSequenceClassification(tiny_backbone("gpt2").config),
        LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=["c_attn"], fan_in_fan_out=True),
    ).eval()
    backbone = tiny_backbone("gpt2")
    classifier.base_model.model.transformer.load_state_dict(
        {
            name.replace("c_attn.", "c_attn.base_layer."): tensor
            for name, tensor in backbone.transformer.state_dict().items()
        },
        strict=False,
    )
    for name, parameter in classifier.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = classifier(IDS).logits
    classifier.save_pretrained(tmp_path)
    model = AutoModelForCausalLMWithValueHead.from_pretrained(
        get_peft_model(backbone, lora_config("gpt2")), reward_adapter=str(tmp_path)
    )
    assert_learns_a_little(model)
    scores = model.compute_reward_score(IDS)
    assert scores.shape == (2, 4, 2)
    torch.testing.assert_close(scores[:, -1], expected)
    for name, parameter in model.named_parameters():
        learns = ("lora" in name or "v_head" in name) and "reward" not in name
        assert (parameter.grad is not None) == learns, name
    with pytest.raises(ValueError, match="PEFT"):
        AutoModelForCausalLMWithValueHead.from_pretrained(backbone, reward_adapter=str(tmp_path))
    with pytest.raises(ValueError, match="no reward adapter"):
        policy().compute_reward_score(IDS)


def count_calls(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_gradient_checkpointing_recomputes_and_changes_nothing(architecture, lora):
    changes = []
    for on in (False, True):
        model = policy(architecture, lora=lora)
        if on:
            model.train()
            model.gradient_checkpointing_enable()
        blocks = (
            model.backbone.decoder.block if architecture == "t5" else model.backbone.transformer.h
        )
        norm = blocks[0].layer[0].layer_norm if architecture == "t5" else blocks[0].ln_1
        calls = count_calls(norm)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5  # off in every pass, also where a checkpoint is recomputed
        trainer = quiet_trainer(model, ppo_epochs=1, mini_batch_size=4, learning_rate=1e-2)
        queries = [row for row in torch.cat([IDS, IDS])]
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        trainer.step(queries, queries, [torch.tensor(float(i)) for i in range(4)])
        changes.append(torch.cat([p.detach().flatten() for p in model.parameters()]) - before)
        assert len(calls) == 2 + (2 if on else 1)  # policy and reference, then the training pass
    torch.testing.assert_close(*changes)
