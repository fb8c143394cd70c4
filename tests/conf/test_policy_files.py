"""Every policy file says what it costs; no cut reaches into a prefix that turns the score."""

import re

import pytest
from transformers import AutoTokenizer

from lora_detox.__main__ import conf_dir
from lora_detox.api import compose_settings
from lora_detox.embedded import embedded_path

POLICIES = sorted(path.stem for path in (conf_dir() / "policy").glob("*.yaml"))


@pytest.mark.parametrize("name", POLICIES)
def test_policies_say_what_they_cost(name):
    first = (conf_dir() / "policy" / f"{name}.yaml").read_text().splitlines()[:3]
    if name not in {"local", "mini"}:
        comment = " ".join(line for line in first if line.startswith("#"))
        assert "Planned: " in comment or "Measured: " in comment
        assert " GB" in comment
        assert re.search(r"[MG] parameters", comment)
        assert any(word in comment for word in ("Apache", "MIT", "licence", "License", "RAIL"))


@pytest.mark.parametrize("model", ["gptj", "t5"])
def test_a_cut_never_reaches_into_the_prefix_that_turns_the_score(model):
    settings = compose_settings(["task=sentiment_control"])
    tokenizer = AutoTokenizer.from_pretrained(embedded_path(model))
    assert set(settings.reward.signs) <= {prefix.strip() for prefix in settings.data.prefixes}
    for prefix in settings.data.prefixes:
        taken = tokenizer(prefix.strip(), add_special_tokens=False)["input_ids"]
        assert len(taken) < settings.data.query_tokens[0]
