"""What the command line answers without a run: its help, its version, the state of the machine."""

import json
import sys
from pathlib import Path

import pytest

import lora_detox
from lora_detox.__main__ import conf_groups, main
from lora_detox.choices import Stage
from lora_detox.settings import known_keys


@pytest.fixture
def answer(monkeypatch, capsys, tmp_path):
    """What these words print; nothing is written."""
    monkeypatch.chdir(tmp_path)

    def answered(*words):
        monkeypatch.setattr(sys, "argv", ["lora_detox", *words])
        assert main() == 0
        assert not list(tmp_path.iterdir())
        return capsys.readouterr().out

    return answered


def test_the_version_is_ours(answer):
    assert answer("--version") == f"lora_detox {lora_detox.__version__}\n"


def test_help_lists_stages_examples_options_and_every_key_with_its_meaning(answer):
    page = answer("--help")
    lines = page.splitlines()
    for stage in Stage:
        (line,) = [one for one in lines if one.startswith(f"  {stage.value} ")]
        assert len(line.split()) > 4
    for group, options in conf_groups().items():
        if options != ["default"]:
            assert f"\n  {group} " in page
    shown = {one.strip().partition("=")[0] for one in lines if one.startswith("  ") and "=" in one}
    assert set(known_keys()) <= shown
    assert "adaptive: mean KL per response to aim at, nats" in page
    assert "hydra.run.dir=runs/mine resume=true" in page
    assert max(map(len, (one for one in lines if " " in one.strip()))) < 200


def test_help_of_a_group_is_that_group_alone(answer):
    page = answer("--help", "algorithm", "task=flan_summary")
    keys = [
        one.split("=")[0].strip() for one in page.splitlines() if one.startswith("  algorithm.")
    ]
    assert keys == [one for one in known_keys() if one.startswith("algorithm.")]
    assert "best_of_n, grpo, ppo" in page
    assert "Examples" not in page
    assert "\n  budget" not in page
    assert answer("-h") == answer("--help")


def test_the_doctor_says_what_a_report_needs_and_nothing_secret(answer, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    page = answer("doctor")
    for name in ("lora_detox", "torch", "peft", "device", "bf16", "bitsandbytes", "hub", "memory"):
        assert f"\n{name} " in f"\n{page}", name
    assert "a token is set" in page
    assert "GiB free" in page
    assert "fault " in page
    assert "secret" not in page
    assert str(Path.home()) not in page
    assert str(Path.cwd()) not in page


def test_json_is_the_summary_alone(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["stage=plan", "plan.device=cuda", "plan.memory_gib=24", "plan.query_tokens=20"]
    monkeypatch.setattr(sys, "argv", ["lora_detox", "--json", *words, "hydra.run.dir=run"])
    assert main() == 0
    shown = capfd.readouterr()
    assert json.loads(shown.out) == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "plan.json" in shown.err
    monkeypatch.setattr(sys, "argv", ["lora_detox", "-m", "--json", "seed=1,2"])
    assert main() == 2
    assert "--json: prints the summary of one run" in capfd.readouterr().err


def test_a_model_that_is_not_there_is_named_by_the_key_of_evaluation(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["stage=evaluate", "evaluation.models=['embedded:policy',no-such-model]"]
    monkeypatch.setattr(sys, "argv", ["lora_detox", *words, "hydra.run.dir=run"])
    assert main() == 2
    message = capfd.readouterr().err
    assert "error: evaluation.models: no-such-model: cannot read 'no-such-model'" in message
    assert "policy.path" not in message
