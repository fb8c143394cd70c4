"""Relevance, digits and markup in whole runs: measured, held in training, refused early."""

import json
import shutil

import pytest

from lora_detox import api
from lora_detox.errors import DetoxError, ScorerError, SettingsError
from tests.encoders import write_encoder
from tests.runs import SMOKE

pytestmark = pytest.mark.training

HELD = [*SMOKE, "task=gptj_continuation", "budget.relevance=0", "algorithm.iterations=6"]
HELD += ["algorithm.learning_rate=0.03", "checkpoint.keep=9"]
HELD += [
    "budget.controller.start_rollouts=1",
    "budget.controller.smoothing=1.0",
    "budget.symbols=0",
]
DECIDED = ("before", "after", "change", "ref_kl", "budget", "scorers")


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def result_of(run_dir):
    rows = lines_of(run_dir / "metrics.jsonl")
    summary = json.loads((run_dir / "summary.json").read_text())
    return {
        "adapter": (run_dir / "adapter" / "adapter_model.safetensors").read_bytes(),
        "metrics": [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in rows],
        **{key: summary[key] for key in DECIDED},
    }


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return f"evaluation.encoder={write_encoder(tmp_path_factory.mktemp('encoder'))}"


@pytest.fixture(scope="module")
def held(encoder, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("held") / "run"
    api.run([*HELD, encoder], run_dir)
    return run_dir


def test_a_multiplier_holds_relevance_and_every_record_shows_it(held):
    rows = lines_of(held / "metrics.jsonl")
    trained = [row for row in rows if row["iteration"]]
    assert all(-1 <= row["relevance"] <= 1 for row in trained)
    assert len({row["multiplier_relevance"] for row in trained}) > 1
    assert max(row["multiplier_relevance"] for row in trained) > 0
    assert all("relevance" in row["evaluation"] for row in rows)
    assert len({row["slack_symbols"] for row in trained}) > 1
    summary = json.loads((held / "summary.json").read_text())
    assert {"symbols", "relevance"} <= set(summary["budget"]["measured"])
    low, high = summary["change"]["relevance"]["ci95"]
    assert low <= summary["after"]["relevance"] - summary["before"]["relevance"] <= high
    assert summary["scorers"]["encoder"].startswith("encoder")
    start = rows[0]["evaluation"]["relevance"]
    assert summary["budget"]["bounds"]["relevance"] == pytest.approx(start)
    assert summary["budget"]["start"]["relevance"] == pytest.approx(start)
    assert {"relevance_before", "relevance_after"} <= set(lines_of(held / "samples.jsonl")[0])
    assert "Relevance to the prompt" in (held / "report.html").read_text()


def test_the_constraint_goes_on_from_a_checkpoint_bit_for_bit(held, encoder, tmp_path):
    cut = shutil.copytree(held, tmp_path / "cut")
    (cut / "summary.json").unlink()
    for checkpoint in (cut / "checkpoints").glob("iteration_*"):
        if int(checkpoint.name[-6:]) > 2:
            shutil.rmtree(checkpoint)
    api.run([*HELD, encoder, "resume=true"], cut)
    assert result_of(cut) == result_of(held)


def test_an_encoder_that_binds_nothing_changes_no_number_of_training(encoder, tmp_path):
    quick = [*SMOKE, "task=flan_summary", "algorithm.iterations=1"]
    bare = api.run(quick, tmp_path / "bare")
    measured = api.run([*quick, encoder], tmp_path / "measured")
    assert "relevance" not in bare["after"]
    assert measured["after"].pop("relevance") == pytest.approx(
        measured["before"].pop("relevance") + measured["change"].pop("relevance")["mean"]
    )
    for key in ("before", "after", "change", "ref_kl", "budget"):
        assert measured[key] == bare[key], key
    rows = [lines_of(tmp_path / name / "metrics.jsonl")[1] for name in ("bare", "measured")]
    assert "relevance" not in rows[1]
    assert rows[0]["policy_loss"] == rows[1]["policy_loss"]


def test_evaluating_a_model_measures_it_too(encoder, tmp_path, capsys):
    overrides = ["stage=evaluate", "task=gptj_continuation", "threads=1", "data.limit=40"]
    overrides += ["evaluation.prompts=6", "evaluation.new_tokens=6", encoder]
    summary = api.run(overrides, tmp_path / "out")
    assert -1 <= summary["models"][0]["sets"]["in_distribution"]["relevance"] <= 1
    assert summary["scorers"]["encoder"].startswith("encoder")
    assert all(-1 <= row["relevance"] <= 1 for row in lines_of(tmp_path / "out" / "samples.jsonl"))
    assert "Relevance to the prompt: cosine by encoder" in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["detox", "evaluate"])
@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("evaluation.encoder=./nowhere", ScorerError, r"no such folder.*`evaluation\.encoder`"),
        ("budget.relevance=0.05", SettingsError, r"budget\.relevance: .*evaluation\.encoder=null"),
        ("budget.relevance=1.5", SettingsError, r"budget\.relevance: got 1.5, want .* 0 to 1"),
        ("budget.symbols=1.5", SettingsError, r"budget\.symbols: got 1.5, want .* 0 to 1"),
        ("evaluation.encoder=embedded:t5", ScorerError, r"encoder-decoder.*evaluation\.encoder"),
    ],
)
def test_what_cannot_work_is_refused_before_weights_load(
    stage, override, error, message, tmp_path, monkeypatch
):
    def loaded(*_arguments, **_options):
        raise AssertionError("weights were loaded")

    for module in ("run.build", "stages.evaluate"):
        monkeypatch.setattr(f"lora_detox.{module}.load_policy", loaded)
        monkeypatch.setattr(f"lora_detox.{module}.load_scorers", loaded)
    assert issubclass(error, DetoxError)
    with pytest.raises(error, match=message):
        api.run([*SMOKE[1:], f"stage={stage}", override], tmp_path / "run")
