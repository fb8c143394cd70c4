"""Under which names models keep and take their parts, whatever the release of Transformers."""

import pytest
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache

from lora_detox.policy.anatomy import cache_keyword, decoder_stack, text_config
from lora_detox.policy.families import holds_states_alone
from tests.tiny_configs import tiny_config


class Older(nn.Module):
    def forward(self, input_ids, past_key_values=None, **others):
        return others


class OlderState(nn.Module):
    def forward(self, input_ids, cache_params=None, **others):
        return others


class Newer(nn.Module):
    def forward(self, input_ids, cache=None, **others):
        return others


@pytest.mark.parametrize(
    ("stack", "name"),
    [(Older, "past_key_values"), (OlderState, "cache_params"), (Newer, "cache")],
)
def test_a_cache_goes_by_the_name_that_the_stack_reads(stack, name):
    assert cache_keyword(stack()) == name


@pytest.mark.parametrize(
    ("model_type", "alone"), [("mamba", True), ("gpt2", False), ("bamba", False), ("lfm2", False)]
)
def test_only_a_stack_without_keys_and_values_holds_states_alone(model_type, alone):
    model = AutoModelForCausalLM.from_config(tiny_config(model_type))
    assert holds_states_alone(DynamicCache(config=text_config(model.config))) is alone


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "mamba", "bamba"])
def test_what_goes_in_under_that_name_is_what_is_written(model_type):
    model = AutoModelForCausalLM.from_config(tiny_config(model_type)).eval()
    stack, cache = decoder_stack(model), DynamicCache(config=text_config(model.config))
    ids = model.dummy_inputs["input_ids"][:1, :4] % 10
    output = stack(input_ids=ids, use_cache=True, **{cache_keyword(stack): cache})
    assert getattr(output, cache_keyword(stack)) is cache
