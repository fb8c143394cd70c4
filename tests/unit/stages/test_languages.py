"""Whole runs of policies that write no English: quality is measured, and its budget is held."""

import json
import math

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from lora_detox import api
from lora_detox.report.jsonl import read_jsonl
from tests.runs import ONE_RUN

pytestmark = pytest.mark.training

RUSSIAN = ["кошка", "собака", "дом", "сад", "река", "мост", "день", "ночь", "снег", "дождь"]
CHINESE = list("猫狗家园河桥天夜雪雨")
SPECIAL = ["<pad>", "</s>", "<unk>"]


def write_policy(folder, words, *, spaced):
    """A random T5 whose every token is a word."""
    vocabulary = {word: place for place, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    if spaced:
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = T5Config(
        vocab_size=len(vocabulary),
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("words", "join", "compared"),
    [(RUSSIAN, " ", "Unicode words"), (CHINESE, "", "single characters")],
)
def test_a_run_measures_quality_and_holds_its_budget(tmp_path, words, join, compared):
    write_policy(tmp_path / "policy", words, spaced=bool(join))
    text = [join.join(words[place % 10 :] + words[: place % 10]) for place in range(60)]
    rows = [
        {"dialogue": f"{join.join(words)}{place}", "summary": text[place]} for place in range(60)
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines, encoding="utf-8")
    summary = api.run(
        [
            "task=flan_summary",
            *(one for one in ONE_RUN if one not in ("debug=smoke", "budget=off")),
            "debug=smoke",
            "debug.tiny_model=false",
            "policy=local",
            f"policy.path={tmp_path / 'policy'}",
            "data=local",
            f"data.path={tmp_path / 'rows.jsonl'}",
            "generation.response_tokens=[8,8]",
        ],
        tmp_path / "run",
    )
    assert summary["words"]["compared"].startswith(compared)
    for moment in ("before", "after"):
        assert summary[moment]["rouge1"] > 0.2
        assert summary[moment]["rougeL"] > 0.1
        assert summary[moment]["response_words"] > 4
        assert summary[moment]["distinct_2"] > 0.1
    rows = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    measured = [row for row in rows if "rougeL" in row]
    assert measured
    assert all(row["rougeL"] > 0.1 and row["repetition"] >= 0 for row in measured)
    assert summary["budget"]["start"]["rougeL"] > 0.1
    assert any(row["slack_rougeL"] != 0 for row in measured)
    assert all(math.isfinite(row["slack_rougeL"]) for row in measured)
    assert f"ROUGE compares {compared}" in (tmp_path / "run" / "report.html").read_text("utf-8")
