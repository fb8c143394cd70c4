"""Whole runs at smoke size: what they leave on disk, twice alike, quantized, and as a sweep."""

import gc
import json
import sys
import weakref

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lora_detox.__main__ import main
from lora_detox.api import run
from lora_detox.policy.loading import load_policy
from lora_detox.report.next_steps import loaded_from
from lora_detox.run import build
from lora_detox.stages import detox
from tests.runs import ONE_RUN

pytestmark = pytest.mark.training

TASKS = ["flan_summary", "gptj_continuation"]
FILES = {
    "adapter",
    "value_head.safetensors",
    "checkpoints",
    "config.yaml",
    "metrics.jsonl",
    "samples.jsonl",
    "summary.json",
    "report.html",
    "report.md",
    "tensorboard",
}
SUMMARY = {
    "schema",
    "task",
    "policy",
    "algorithm",
    "seed",
    "before",
    "after",
    "change",
    "ref_kl",
    "iterations",
    "stopped",
    "parameters",
    "seconds",
    "peak_memory_bytes",
    "memory_growth_bytes",
    "device",
    "versions",
}
BOTH = {"toxicity", "judge_toxicity", "distinct_2", "response_tokens"}
QUALITY = {"flan_summary": {"rouge1", "rouge2", "rougeL"}, "gptj_continuation": {"perplexity"}}


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def metrics_of(run_dir):
    """Rows of metrics.jsonl without the times."""
    rows = lines_of(run_dir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


def adapter_of(run_dir):
    return (run_dir / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("task", TASKS)
def test_the_run_directory_is_the_one_that_tools_rely_on(task, finished_run):
    run_dir = finished_run(f"task={task}", *ONE_RUN)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert {path.name for path in run_dir.iterdir()} == FILES | {"tiny_model"}
    adapter = {path.name for path in (run_dir / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= adapter
    assert not [path for path in run_dir.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}]
    checkpoints = {path.name for path in (run_dir / "checkpoints").iterdir()}
    assert checkpoints == {"iteration_000002"}

    assert set(summary) >= SUMMARY
    assert (summary["schema"], summary["task"], summary["iterations"]) == (1, task, 2)
    for moment in ("before", "after"):
        assert set(summary[moment]) >= BOTH | QUALITY[task]
        assert set(summary[moment]["toxicity"]) == {"mean", "std", "n"}
        for other in set(TASKS) - {task}:  # what does not apply is absent, not 0
            assert not QUALITY[other] & set(summary[moment])
    for metric in BOTH | QUALITY[task]:
        low, high = summary["change"][metric]["ci95"]
        assert low <= summary["change"][metric]["mean"] <= high
    assert summary["parameters"]["base_unchanged"] is True
    assert 0 < summary["parameters"]["trainable"] < summary["parameters"]["total"]
    assert {"total", "generate", "score", "update", "evaluate", "checkpoint"} <= set(
        summary["seconds"]
    )

    rows = lines_of(run_dir / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    assert rows[1]["ref_kl"] == 0.0  # before the first update the policy is its reference
    assert rows[2]["ref_kl"] != 0.0
    assert all("evaluation" in row for row in rows)
    assert len(lines_of(run_dir / "samples.jsonl")) == 8

    auto = AutoModelForSeq2SeqLM if task == "flan_summary" else AutoModelForCausalLM
    base = auto.from_pretrained(run_dir / "tiny_model")
    model = PeftModel.from_pretrained(base, run_dir / "adapter")
    learned = load_file(run_dir / "adapter" / "adapter_model.safetensors")
    assert any(tensor.any() for name, tensor in learned.items() if "lora_B" in name)
    loaded = dict(model.named_parameters())
    for name, tensor in learned.items():
        assert torch.equal(loaded[name.replace(".weight", ".default.weight")], tensor)


@pytest.mark.parametrize("task", TASKS)
def test_the_lines_that_a_run_closes_with_load_its_adapter_and_write(task, finished_run, capsys):
    run_dir = finished_run(f"task={task}", *ONE_RUN)
    summary = json.loads((run_dir / "summary.json").read_text())
    loading = loaded_from(summary, run_dir).lines()
    capsys.readouterr()
    exec("\n".join(loading), {})
    assert capsys.readouterr().out.endswith("\n")
    card = (run_dir / "adapter" / "README.md").read_text()
    assert "## Before and after" in card
    assert "Model Card for Model ID" not in card
    used = [line for line in loading if line.startswith(("inputs", "output", "print"))]
    assert len(used) == 3
    assert all(line in card for line in used)
    asked = {"flan_summary": "Summarize", "gptj_continuation": "I think that people who"}
    assert asked[task] in used[0]


def test_the_lines_of_a_quantized_run_load_its_base_as_it_was(tmp_path, capsys):
    pytest.importorskip("bitsandbytes")
    options = ["quantization=int8", "task=gptj_continuation", "algorithm.iterations=1"]
    summary = run([*ONE_RUN, *options], tmp_path / "run")
    names = {}
    exec("\n".join(loaded_from(summary, tmp_path / "run").lines()), names)
    assert names["base"].is_loaded_in_8bit
    four_bits = loaded_from({**summary, "quantization": "nf4"}, tmp_path / "run").lines()
    assert sum("load_in_4bit=True" in line for line in four_bits) == 1


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    options = ["task=gptj_continuation", *ONE_RUN, "adapter.dropout=0.1"]
    for name, seed in (("first", 3), ("second", 3), ("third", 4)):
        torch.manual_seed(len(name))  # what the process drew before has no say
        run([*options, f"seed={seed}"], tmp_path / name)
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert metrics_of(first) == metrics_of(second)
    assert adapter_of(first) == adapter_of(second)
    assert (first / "samples.jsonl").read_bytes() == (second / "samples.jsonl").read_bytes()
    assert metrics_of(first) != metrics_of(third)
    assert adapter_of(first) != adapter_of(third)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("task", TASKS)
def test_quantized_backbones_train_and_stay_as_they_are(task, quantization, tmp_path):
    pytest.importorskip("bitsandbytes")
    options = [f"task={task}", f"quantization={quantization}", "algorithm.iterations=1"]
    summary = run([*ONE_RUN, *options], tmp_path / "run")
    assert summary["parameters"]["base_unchanged"] is True
    row = lines_of(tmp_path / "run" / "metrics.jsonl")[-1]
    assert (row["iteration"], row["skipped_steps"]) == (1, 0)
    assert row["ref_kl"] == 0.0
    assert row["first_ratio_error"] < 0.05


def test_a_sweep_leaves_a_summary_of_each_job_and_frees_each_policy(tmp_path, monkeypatch, capfd):
    alive, seen = [], []

    def watched(*arguments):
        gc.collect(0)  # young garbage only: a leak through a long-lived object stays visible
        seen.append(sum(reference() is not None for reference in alive))
        policy = load_policy(*arguments)
        alive.append(weakref.ref(policy))
        return policy

    monkeypatch.setattr(build, "load_policy", watched)
    sweep = ["--multirun", f"task={','.join(TASKS)}", "seed=1,2", f"hydra.sweep.dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["lora_detox", *sweep, *ONE_RUN, "algorithm.iterations=1"])
    assert main() == 0, capfd.readouterr().err
    printed = capfd.readouterr().out
    for job, task, seed in ((0, "flan_summary", 1), (3, "gptj_continuation", 2)):
        assert f"job {job} task={task} seed={seed}: toxicity by the judge 0." in printed
    assert "What to do next" not in printed
    sections = json.loads((tmp_path / "sweep.json").read_text())["comparisons"]
    assert [len(one["candidates"]) for one in sections] == [2, 2]
    assert (tmp_path / "sweep.html").read_text().count("<caption>Configurations: mean") == 2
    summaries = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("*/summary.json"))]
    assert [(s["task"], s["seed"]) for s in summaries] == [(t, s) for t in TASKS for s in (1, 2)]
    assert seen == [0, 0, 0, 0]
    assert not any(reference() for reference in alive)


def test_a_job_that_fails_in_a_sweep_frees_its_policy_before_the_next(tmp_path, monkeypatch, capfd):
    """Hydra keeps the error of a failed job, and with it every frame, while others run."""
    references, still_there = [], []

    def fail(job):
        gc.collect()
        still_there.append([r() is not None for r in references])
        references.append(weakref.ref(job.policy))
        raise RuntimeError("planted")

    monkeypatch.setattr(detox, "train", fail)
    sweep = ["--multirun", "seed=1,2", f"hydra.sweep.dir={tmp_path}", "task=gptj_continuation"]
    monkeypatch.setattr(sys, "argv", ["lora_detox", *sweep, *ONE_RUN])
    assert main() == 2
    assert still_there == [[], [False]]
    printed, error = capfd.readouterr()
    assert "Traceback" not in error
    assert "error: job 0 failed with RuntimeError: planted" in error
    (kept,) = tmp_path.glob("0_*/error.txt")
    assert str(kept) in error
    assert 'raise RuntimeError("planted")' in kept.read_text()
    assert printed.count("Smoke run: ") == 1  # the second job says what differs alone
    assert printed.count("reward   ") == 1
    assert printed.count("run      ") == 2
    assert not (tmp_path / "sweep.html").exists()


def test_a_failed_job_is_told_and_the_others_have_their_page(tmp_path, monkeypatch, capfd):
    sweep = ["--multirun", "seed=1", "algorithm.minibatch_size=4,3", "task=gptj_continuation"]
    overrides = [*sweep, f"hydra.sweep.dir={tmp_path}", *ONE_RUN, "algorithm.iterations=1"]
    monkeypatch.setattr(sys, "argv", ["lora_detox", *overrides])
    assert main() == 2
    printed, error = capfd.readouterr()
    assert "error: algorithm.minibatch_size=3 does not divide" in error
    assert "job 1 algorithm.minibatch_size=3: failed, SettingsError: algorithm.mini" in printed
    page = (tmp_path / "sweep.html").read_text()
    assert "1 failed job" in page
    assert "algorithm.minibatch_size=3 does not divide algorithm.rollout_batch_size=8" in page
    stored = json.loads((tmp_path / "sweep.json").read_text())
    assert [len(one["candidates"]) for one in stored["comparisons"]] == [1]
