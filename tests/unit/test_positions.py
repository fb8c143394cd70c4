"""Positions of each architecture: what is refused is what a forward pass could not read."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from lora_detox.errors import SettingsError
from lora_detox.positions import always_fits, check_positions, position_limit, position_limits
from lora_detox.scores.windows import window_length
from tests.tiny import tiny_tokenizer

MOST = 16
_IDS = {"vocab_size": 40, "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 3}
_GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": MOST}
_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": MOST,
}
_OPT = {k: v for k, v in _BERT.items() if k != "intermediate_size"} | {"ffn_dim": 16}
_BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": MOST,
    "decoder_start_token_id": 2,
}
_LED = {k: v for k, v in _BART.items() if k != "max_position_embeddings"} | {
    "max_encoder_position_embeddings": 32,
    "max_decoder_position_embeddings": MOST,
    "attention_window": [4],
}
_NYSTROM = {"segment_means_seq_len": MOST, "num_landmarks": MOST}
_MPT = {"d_model": 16, "n_layers": 1, "n_heads": 2, "max_seq_len": MOST}
_BLOOM = {"hidden_size": 16, "n_layer": 1, "n_head": 2}
_FALCON = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}


def config_of(kind, entries):
    return AutoConfig.for_model(kind, **{**_IDS, **entries})


def reads(stack, tokens, **inputs):
    try:
        with torch.no_grad():
            stack(input_ids=torch.randint(4, 40, (1, tokens)), **inputs)
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "entries", "limit"),
    [
        ("gpt2", _GPT2, MOST),
        ("gptj", _GPT2 | {"rotary_dim": 4}, MOST),
        ("codegen", _GPT2 | {"n_head": 4, "rotary_dim": 4, "n_ctx": MOST}, MOST),
        ("opt", _OPT | {"word_embed_proj_dim": 16}, MOST),  # a table of MOST + 2 rows
        ("biogpt", _BERT, MOST),
        ("roberta", _BERT | {"is_decoder": True}, MOST - 2),  # counted from the padding id + 1
        ("bert", _BERT | {"is_decoder": True}, MOST),
        ("mpt", _MPT, MOST),  # ALiBi, but its table is made for max_seq_len
        ("bloom", _BLOOM, None),
        ("falcon", _FALCON | {"alibi": True}, None),
        ("mamba", {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}, None),
    ],
)
def test_a_decoder_reads_as_many_tokens_as_is_allowed_and_no_more(kind, entries, limit):
    config = config_of(kind, entries)
    stack = AutoModelForCausalLM.from_config(config).eval().base_model
    assert position_limit(config) == limit
    assert reads(stack, limit or 3 * MOST)
    assert limit is None or not reads(stack, limit + 1)


@pytest.mark.parametrize(
    ("kind", "entries", "limits"),
    [
        ("bart", _BART, (MOST, MOST)),
        ("mbart", _BART, (MOST, MOST)),
        ("pegasus", _BART, (MOST, MOST)),
        ("marian", _BART, (MOST, MOST)),
        ("blenderbot", _BART, (MOST, MOST)),
        ("led", _LED, (32, MOST)),
        ("t5", _T5 | {"n_positions": MOST}, (None, None)),  # the number of an old configuration
        ("mt5", _T5, (None, None)),
    ],
)
def test_each_side_of_an_encoder_decoder_has_its_own_limit(kind, entries, limits):
    config = config_of(kind, entries)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    found = position_limits(config)
    assert ((found.query, found.response), found.together) == (limits, False)
    encoder, decoder = model.get_encoder(), model.get_decoder()
    states = {"encoder_hidden_states": encoder(input_ids=torch.tensor([[5, 6]]))[0]}
    for stack, limit, more in ((encoder, limits[0], {}), (decoder, limits[1], states)):
        assert reads(stack, limit or 3 * MOST, **more)
        assert limit is None or not reads(stack, limit + 1, **more)


def test_stated_numbers_of_rotary_and_nested_models():
    llama = {"max_position_embeddings": 2048}
    assert position_limit(config_of("llama", llama)) == 2048
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    yarn["rope_theta"] = 10000.0
    assert position_limit(config_of("llama", llama | {"rope_parameters": yarn})) == 8192
    linear = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    assert position_limit(config_of("llama", llama | {"rope_parameters": linear})) == 4096
    long = llama | {"max_position_embeddings": 8192, "rope_parameters": yarn}
    assert position_limit(config_of("llama", long)) == 8192  # counts the stretch already
    nested = AutoConfig.for_model("gemma3", text_config={"max_position_embeddings": 96})
    assert position_limit(nested) == 96
    parts = {
        "encoder": {"model_type": "bert", "max_position_embeddings": 30},
        "decoder": {"model_type": "gpt2", "n_positions": 20},
    }
    limits = position_limits(AutoConfig.for_model("encoder-decoder", **parts))
    assert (limits.query, limits.response) == (30, 20)


def test_what_does_not_fit_names_the_key_and_the_number():
    decoder = config_of("gpt2", _GPT2)
    check_positions(decoder, 7, 10)  # the last token of a response is predicted, never read
    with pytest.raises(SettingsError, match=r"^data.max_query_tokens: .* 8 tokens .* 10 more") as e:
        check_positions(decoder, 8, 10)
    assert "gpt2 model has 16 positions (n_positions" in str(e.value)
    assert "lower data.max_query_tokens to 7 or generation.response_tokens" in str(e.value)
    check_positions(decoder, 6, 10, reads_last=True)
    assert not always_fits(decoder, 7, 10)
    with pytest.raises(SettingsError, match=r"lower evaluation.new_tokens$"):
        check_positions(decoder, 1, 40, response_key="evaluation.new_tokens")
    both = config_of("bart", _BART)
    check_positions(both, 16, 16)
    with pytest.raises(SettingsError, match=r"^plan.query_tokens: .* 17 tokens.* to 16$"):
        check_positions(both, 17, 5, query_key="plan.query_tokens")
    with pytest.raises(SettingsError, match=r"^generation.response_tokens: .* 17 tokens.* to 16$"):
        check_positions(both, 5, 17)
    assert always_fits(config_of("t5", _T5), 10**6, 10**6)


@pytest.mark.parametrize(
    ("kind", "entries", "limit"),
    [
        ("roberta", _BERT, MOST - 2),
        ("bert", _BERT, MOST),
        ("electra", _BERT, MOST),
        ("mpnet", _BERT, MOST - 2),
        (
            "nystromformer",
            _BERT | {"segment_means_seq_len": MOST, "num_landmarks": MOST},
            MOST,
        ),  # MOST + 2 rows
        ("gpt2", _GPT2, MOST),
        ("opt", _OPT | {"word_embed_proj_dim": 16}, MOST),
        ("bart", _BART, MOST),
        ("distilbert", {"dim": 16, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 16}, 16),
    ],
)
def test_windows_of_a_classifier_are_no_longer_than_its_positions(kind, entries, limit):
    model = AutoModelForSequenceClassification.from_config(config_of(kind, entries)).eval()
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 512
    assert window_length(model, tokenizer, None) == window_length(model, tokenizer, 400) == limit
    assert window_length(model, tokenizer, 9) == 9
    if kind != "bart":  # reads a text up to its end token
        assert reads(model, limit)
