"""Adapters beside each other: every process composes, and the table counts steps and seconds."""

import json
import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from lora_detox.api import compose_settings
from recipes.lab.fresh_adapter import write_fresh
from recipes.lab.real import RealModels
from recipes.lab.store import OtherSizesError
from recipes.lab.subjects import SUBJECTS
from recipes.which_lora import run as which
from recipes.which_lora.table import WORK, read_all, shortest, write_report
from recipes.which_lora.variants import MISS, variants
from tests.recipes.judged_runs import write_judged
from tests.tiny import tiny_backbone


@pytest.mark.parametrize("model", sorted(SUBJECTS))
def test_every_process_composes_with_its_own_adapter(tmp_path, model):
    options = ["--shared", str(tmp_path), "--out", str(tmp_path / "out"), "--seeds", "4"]
    given = which.arguments([*options, "--model", model])
    subject = SUBJECTS[model](RealModels(home=tmp_path / "real"), given.shared)
    base, *queue = which.runs(given, subject)
    assert len(base.steps) == 1
    assert len(queue) == len(variants(model)) == 9
    adapters = set()
    for run in queue:
        train, judge = run.steps[-2:]
        settings = compose_settings(train.command[3:-1], tmp_path / "nothing")
        assert settings.seed == 4
        one = settings.adapter
        kind = (tuple(one.targets), one.rank, one.alpha, one.rslora, one.dora)
        adapters.add((*kind, settings.policy.adapter))
        assert compose_settings(judge.command[3:-1], tmp_path / "nothing").stage == "evaluate"
    assert len(adapters) == 9
    miss = next(run for run in queue if run.name.startswith(MISS))
    assert len(miss.steps) == 3
    assert f"policy.adapter={miss.steps[0].done.parent}" in miss.steps[1].command


def test_a_fresh_miss_adapter_changes_nothing_yet(tmp_path):
    tiny_backbone("gptj").save_pretrained(tmp_path / "base")
    out = tmp_path / "fresh"
    write_fresh("miss", str(tmp_path / "base"), out, rank=4, scope="all", seed=0)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    ids = torch.arange(3, 9)[None]
    before = base(ids).logits
    after = PeftModel.from_pretrained(base, out).eval()(ids).logits
    assert (before - after).abs().max() < 1e-5


def write_run(folder, level, seconds):
    """A finished training of four iterations, and its evaluation."""
    (folder / "train").mkdir(parents=True)
    summary = {"parameters": {"trainable": 1234}, "seconds": {"total": seconds}, "iterations": 4}
    (folder / "train" / "summary.json").write_text(json.dumps(summary))
    rows = [{"iteration": 0}]
    for toxicity in np.linspace(0.4, level, 4):
        phases = {name: seconds / 4 for name in WORK}
        rows.append({"toxicity": toxicity, **phases})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train" / "metrics.jsonl").write_text(lines)
    write_judged(folder, level)


SIZES = {"iterations": 4, "batch": 32, "prompts": 40}


def test_equal_seconds_count_what_was_finished_by_then(tmp_path):
    write_judged(tmp_path / "base", 0.4)
    write_run(tmp_path / "query_value" / "seed0", 0.2, seconds=10.0)
    write_run(tmp_path / "dora" / "seed0", 0.1, seconds=20.0)
    write_report(tmp_path, "smollm2", SIZES)
    _, trained = read_all(tmp_path, "smollm2", SIZES)
    fast, slow = (trained[name]["seed0"] for name in ("query_value", "dora"))
    assert fast.after(40.0) == pytest.approx(np.mean([0.4, 1 / 3, 0.8 / 3, 0.2]), abs=1e-4)
    assert slow.after(40.0) == pytest.approx(np.mean([0.4, 0.3]))
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert "after 40 s" in lines[2]
    assert "DoRA" in lines[4]  # least toxicity at equal steps first
    assert "-75 %" in lines[4]
    assert "| -25 [-25, -25] |" in lines[4]  # query and value has -50 %
    assert "| 1,234 |" in lines[5]
    shown = (tmp_path / "samples.md").read_text()
    assert shown.count("- start (0.40)") == shown.count("- all linear layers, DoRA (0.10)") == 6


def test_equal_seconds_are_those_of_the_seed_s_own_machine(tmp_path):
    write_judged(tmp_path / "base", 0.4)
    for seed, slower in (("seed0", 1.0), ("seed1", 3.0)):
        write_run(tmp_path / "query_value" / seed, 0.2, seconds=10.0 * slower)
        write_run(tmp_path / "dora" / seed, 0.1, seconds=20.0 * slower)
    _, trained = read_all(tmp_path, "smollm2", SIZES)
    assert shortest(trained) == pytest.approx({"seed0": 40.0, "seed1": 120.0})
    write_report(tmp_path, "smollm2", SIZES)
    heading, _, dora = (tmp_path / "table.md").read_text().splitlines()[2:5]
    assert "after 40 to 120 s" in heading
    assert "0.3500" in dora  # two of four iterations of either seed


def test_the_stored_results_give_the_same_table_and_count_as_finished(tmp_path):
    options = ["--shared", str(tmp_path), "--out", str(tmp_path), "--seeds", "0"]
    options += ["--iterations", "4", "--prompts", "40", "--only", "query_value,dora"]
    given = which.arguments(options)
    subject = SUBJECTS["smollm2"](RealModels(home=tmp_path / "real"), given.shared)
    write_judged(given.out / "base", 0.4)
    write_run(given.out / "query_value" / "seed0", 0.2, seconds=10.0)
    write_report(given.out, "smollm2", which.sizes_of(given))
    table = (given.out / "table.md").read_text()
    for folder in ("base", "query_value"):
        shutil.rmtree(given.out / folder)
    assert [run.name for run in which.runs(given, subject)] == ["dora seed 0"]
    write_report(given.out, "smollm2", which.sizes_of(given))
    assert (given.out / "table.md").read_text() == table
    with pytest.raises(OtherSizesError, match="another --out"):
        which.runs(which.arguments([*options, "--batch", "64"]), subject)
