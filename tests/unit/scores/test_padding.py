"""A text scored alone and in a padded batch, for classifiers of many families."""

import logging

import pytest
import torch
import transformers

from lora_detox.errors import ScorerError
from lora_detox.scores import (
    ClassifierScorer,
    FunctionScorer,
    check_padding,
    warn_of_batch_effects,
)
from tests.unit.scores.conftest import VOCABULARY, make_tokenizer

BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}
LLAMA = {**BERT, "num_key_value_heads": 2, "pad_token_id": None}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "eos_token_id": 2}
BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
DISTILBERT = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "pad_token_id": 1}
MODERN = {**BERT, "cls_token_id": 0, "sep_token_id": 2, "bos_token_id": 0, "eos_token_id": 2}
XLNET = {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 16, "pad_token_id": 1}
RIGHT = {
    "Roberta": BERT,
    "Bert": BERT,
    "DebertaV2": {**BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "DistilBert": DISTILBERT,
    "GPT2": GPT,
    "Llama": LLAMA,
    "Qwen2": LLAMA,
    "GPTJ": {**GPT, "rotary_dim": 4},
    "T5": {**T5, "pad_token_id": 1, "decoder_start_token_id": 1},
    "Bart": BART,
    "ModernBert": MODERN,
    "Albert": {**BERT, "embedding_size": 16},
    "Electra": {**BERT, "embedding_size": 16},
}
DECODERS = ("GPT2", "Llama", "Qwen2", "GPTJ")


@pytest.fixture
def build(tmp_path):
    def make(family, options, framed=None, side="right", **arguments):
        torch.manual_seed(0)
        labels = {"id2label": {0: "nothate", 1: "hate"}, "label2id": {"nothate": 0, "hate": 1}}
        config = getattr(transformers, f"{family}Config")(
            **{"vocab_size": VOCABULARY, **options}, **labels
        )
        model = getattr(transformers, f"{family}ForSequenceClassification")(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.5)
        model.save_pretrained(tmp_path)
        tokenizer = make_tokenizer(framed=family not in DECODERS if framed is None else framed)
        tokenizer.padding_side = side
        tokenizer.save_pretrained(tmp_path)
        return ClassifierScorer(str(tmp_path), device="cpu", **arguments)

    return make


@pytest.mark.parametrize("family", RIGHT)
def test_families_score_alike_alone_and_padded(build, family):
    scorer = build(family, RIGHT[family])
    assert scorer.pads(["Yes.", "You are a"])
    check_padding(scorer, "reward")


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("pad", [None, 2, 3])
@pytest.mark.parametrize("side", ["left", "right"])
def test_decoders_with_any_padding_id(build, family, pad, side):
    """Missing, the end token, and another than that of the tokenizer."""
    framed = pad == 3
    options = {**RIGHT[family], "eos_token_id": 2}
    scorer = build(family, {**options, "pad_token_id": pad}, framed, side)
    check_padding(scorer, "reward")


def test_what_reads_padding_is_refused_by_name_and_right_alone(build):
    scorer = build("XLNet", XLNET)
    with pytest.raises(ScorerError, match=r"alone and .* in a batch.*judge\.batch_size=1.*judge"):
        check_padding(scorer, "judge")
    check_padding(build("XLNet", XLNET, batch_size=1), "judge")


def test_a_batch_that_fails_is_refused_by_name(build):
    scorer = build("GPT2", GPT)
    scorer._model.config.pad_token_id = None
    with pytest.raises(ScorerError, match=r"fails on a padded batch.*`reward\.ensemble`"):
        check_padding(scorer, "reward", "reward.ensemble")


def test_a_function_is_only_warned_of_and_called_twice(word_scorer, caplog):
    calls = []

    def within_group(prompts, completions, **_):
        calls.append(len(completions))
        return [float(len(completions))] * len(completions)

    with caplog.at_level(logging.WARNING):
        warn_of_batch_effects(FunctionScorer(within_group, word_scorer()), "reward")
    assert calls == [1, 2]
    assert "`reward.function`" in caplog.text
    caplog.clear()
    fixed = FunctionScorer(lambda prompts, completions, **_: [1.0] * len(prompts), word_scorer())
    warn_of_batch_effects(fixed, "reward")
    assert not caplog.text
