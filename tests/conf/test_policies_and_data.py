"""Every policy and data file composes, says what it costs, and can be pinned to a revision."""

import re

import pytest
from hydra import compose, initialize_config_dir
from transformers import AutoTokenizer

from lora_detox.__main__ import conf_dir
from lora_detox.embedded import embedded_path
from lora_detox.settings import register_schema, settings_from

POLICIES = sorted(path.stem for path in (conf_dir() / "policy").glob("*.yaml"))
DATA = sorted(path.stem for path in (conf_dir() / "data").glob("*.yaml"))


def settings_of(tmp_path, *overrides):
    register_schema()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", overrides=[*overrides, f"run_dir={tmp_path / 'run'}"])
        return settings_from(config)


@pytest.mark.parametrize("name", POLICIES)
def test_policies_compose_and_pin(name, tmp_path):
    path = ["policy.path=some/model"] if name == "local" else []
    settings = settings_of(tmp_path, f"policy={name}", "policy.revision=abc123", *path)
    assert settings.policy.revision == "abc123"
    assert settings.policy.path
    first = (conf_dir() / "policy" / f"{name}.yaml").read_text().splitlines()[:3]
    if name not in {"local", "mini"}:
        comment = " ".join(line for line in first if line.startswith("#"))
        assert "Planned: " in comment or "Measured: " in comment
        assert " GB" in comment
        assert re.search(r"[MG] parameters", comment)
        assert any(word in comment for word in ("Apache", "MIT", "licence", "License", "RAIL"))


@pytest.mark.parametrize("name", DATA)
def test_data_sets_compose(name, tmp_path):
    path = ["data.path=rows.jsonl"] if name == "local" else []
    settings = settings_of(tmp_path, f"data={name}", *path)
    assert settings.data.fields.prompt
    assert settings.data.min_toxicity is None or settings.data.fields.toxicity


@pytest.mark.parametrize("model", ["gptj", "t5"])
def test_a_cut_never_reaches_into_the_prefix_that_turns_the_score(model, tmp_path):
    settings = settings_of(tmp_path, "task=sentiment_control")
    tokenizer = AutoTokenizer.from_pretrained(embedded_path(model))
    assert set(settings.reward.signs) <= {prefix.strip() for prefix in settings.data.prefixes}
    for prefix in settings.data.prefixes:
        taken = tokenizer(prefix.strip(), add_special_tokens=False)["input_ids"]
        assert len(taken) < settings.data.query_tokens[0]
