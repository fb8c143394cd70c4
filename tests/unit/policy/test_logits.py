"""Logits are those of the model's own forward, whatever it does between its stack and them."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from lora_detox.policy.anatomy import decoder_stack, head_owner, state_size, text_config
from lora_detox.policy.logits import language_logits, own_logits
from lora_detox.policy.static_decoding import can_decode_statically
from tests.tiny import VOCABULARY, tiny_backbone

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
_T5 = {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2}
_T5 |= {"num_heads": 2, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
BENT = {
    "granite": {**_SIZES, "logits_scaling": 8.0},
    "cohere": {**_SIZES, "logit_scale": 0.25},
    "gemma2": {**_SIZES, "final_logit_softcapping": 2.0, "sliding_window": 8},
    "bert": {**_SIZES, "is_decoder": True},
    "umt5": {**_T5, "tie_word_embeddings": True},
}


def tiny(model_type) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {k: v for k, v in BENT[model_type].items() if (model_type, k) != ("bert", "head_dim")}
    config = AutoConfig.for_model(model_type, **sizes)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def forward(model, ids):
    """Logits and states [T, .] by one plain pass."""
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    kept = []
    hook = decoder_stack(model).register_forward_hook(lambda *call: kept.append(call[-1][0]))
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    hook.remove()
    return logits, kept[0][0]


@pytest.mark.parametrize("name", [*BENT, "t5", "bart", "gptj", "llama", "bloom"])
def test_states_become_the_logits_of_the_forward_pass(name):
    model = tiny(name) if name in BENT else tiny_backbone(name)
    logits, states = forward(model, torch.tensor([[5, 9, 20, 7, 33]]))
    assert states.shape[-1] == state_size(model.config)
    with torch.no_grad():
        torch.testing.assert_close(language_logits(model, states), logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(own_logits(model, states), logits, rtol=1e-5, atol=1e-5)
        again = language_logits(model, states)  # the way is chosen by now
    torch.testing.assert_close(again, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["granite", "bert", "umt5"])
def test_the_gradient_of_the_states_is_that_of_the_forward_pass(name):
    model = tiny(name)
    _, states = forward(model, torch.tensor([[5, 9, 20, 7, 33]]))
    gradients = []
    for function in (language_logits, own_logits):
        leaf = states.clone().requires_grad_()
        function(model, leaf).log_softmax(-1)[:, 3].sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_the_stack_answers_as_before_once_its_logits_were_taken():
    model = tiny("granite")
    ids = torch.tensor([[5, 9, 20]])
    first, states = forward(model, ids)
    own_logits(model, states)
    assert "forward" not in vars(decoder_stack(model))
    assert torch.equal(forward(model, ids)[0], first)


def test_a_model_may_unpack_what_its_stack_answers(monkeypatch):
    """As Gemma 3 does from Transformers 5.24 on."""
    model = tiny("gemma2")
    _, states = forward(model, torch.tensor([[3, 4, 5]]))
    expected = own_logits(model, states)

    def unpacking(input_ids, use_cache):
        output = model.model(input_ids=input_ids, use_cache=use_cache)
        named = BaseModelOutputWithPast(**output)
        assert output.get("hidden_states") is None
        logits = model.lm_head(named["last_hidden_state"])
        cap = model.config.final_logit_softcapping
        return CausalLMOutputWithPast(logits=torch.tanh(logits / cap) * cap)

    monkeypatch.setattr(model, "forward", unpacking)
    torch.testing.assert_close(own_logits(model, states), expected)


def test_a_model_put_together_from_two_keeps_its_head_in_the_decoder():
    encoder = AutoConfig.for_model("bert", **_without_head_dim())
    decoder = AutoConfig.for_model(
        "bert", **_without_head_dim(), is_decoder=True, add_cross_attention=True
    )
    config = AutoConfig.for_model(
        "encoder-decoder", encoder=encoder.to_dict(), decoder=decoder.to_dict()
    )
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    assert text_config(config).is_decoder
    assert head_owner(model) is model.decoder
    assert decoder_stack(model) is model.decoder.bert
    logits, states = forward(model, torch.tensor([[5, 9, 20]]))
    torch.testing.assert_close(language_logits(model, states), logits)


def _without_head_dim():
    return {name: size for name, size in _SIZES.items() if name != "head_dim"}


def test_a_fixed_cache_is_not_used_where_layers_have_windows_or_states():
    assert can_decode_statically(tiny("granite"))
    assert not can_decode_statically(tiny("gemma2"))
    torch.manual_seed(0)
    hybrid = AutoConfig.for_model(
        "qwen3_next",
        **_SIZES,
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
    )
    assert not can_decode_statically(AutoModelForCausalLM.from_config(hybrid))
