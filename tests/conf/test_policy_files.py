"""Every policy file says what it costs; no cut reaches into a prefix that turns the score."""

import re

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lora_detox.__main__ import conf_dir
from lora_detox.api import compose_settings
from lora_detox.embedded import embedded_path

POLICIES = sorted(path.stem for path in (conf_dir() / "policy").glob("*.yaml"))


def _shape(model_type, layers, hidden, inner, heads, vocabulary, head_dim):
    """Keys of config.json that weights are counted from; heads: of queries, of keys."""
    return {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocabulary,
        "head_dim": head_dim,
        "tie_word_embeddings": True,
    }


SHAPES = {
    "smollm2_135m": _shape("llama", 30, 576, 1536, (9, 3), 49152, 64),
    "smollm2_360m": _shape("llama", 32, 960, 2560, (15, 5), 49152, 64),
    "smollm2_1_7b": _shape("llama", 24, 2048, 8192, (32, 32), 49152, 64),
    "gemma_3_270m": _shape("gemma3_text", 18, 640, 2048, (4, 1), 262144, 256),
    "qwen3_0_6b": _shape("qwen3", 28, 1024, 3072, (16, 8), 151936, 128),
}
"""Of the config.json on the hub, for stage=plan where that cannot be reached."""


@pytest.mark.parametrize("name", POLICIES)
def test_policies_say_what_they_cost(name):
    first = (conf_dir() / "policy" / f"{name}.yaml").read_text().splitlines()[:3]
    if name not in {"local", "mini", "mini_rewrite"}:
        comment = " ".join(line for line in first if line.startswith("#"))
        assert "Planned: " in comment or "Measured: " in comment
        assert " GB" in comment
        assert re.search(r"[MG] parameters", comment)
        assert any(word in comment for word in ("Apache", "MIT", "licence", "License", "RAIL"))


@pytest.mark.parametrize("name", SHAPES)
def test_figures_of_a_policy_are_those_of_its_shape(name):
    config = AutoConfig.for_model(**SHAPES[name])
    with torch.device("meta"):
        weights = sum(one.numel() for one in AutoModelForCausalLM.from_config(config).parameters())
    head = (conf_dir() / "policy" / f"{name}.yaml").read_text().replace("\n# ", " ")
    number, unit = re.search(r"([\d.]+) ([MG]) parameters", head).groups()
    assert float(number) * {"M": 1e6, "G": 1e9}[unit] == pytest.approx(weights, rel=0.005)
    planned = re.search(r"Planned: ([\d.]+) GB in fp32, ([\d.]+) GB in bf16", head).groups()
    assert [float(one) * 1e9 for one in planned] == pytest.approx(
        [4 * weights, 2 * weights], rel=0.04
    )


@pytest.mark.parametrize("model", ["gptj", "t5"])
def test_a_cut_never_reaches_into_the_prefix_that_turns_the_score(model):
    settings = compose_settings(["task=sentiment_control"])
    tokenizer = AutoTokenizer.from_pretrained(embedded_path(model))
    assert set(settings.reward.signs) <= {prefix.strip() for prefix in settings.data.prefixes}
    for prefix in settings.data.prefixes:
        taken = tokenizer(prefix.strip(), add_special_tokens=False)["input_ids"]
        assert len(taken) < settings.data.query_tokens[0]
