"""Killed at any moment, a run that is resumed ends as if nothing had happened, bit for bit."""

import json
import os
import random
import shutil
import time

import pytest

from lora_detox.api import run
from lora_detox.errors import SettingsError
from tests.runs import start_run

pytestmark = pytest.mark.training

ITERATIONS = 8
OPTIONS = [
    "task=gptj_continuation",
    "debug=smoke",
    f"algorithm.iterations={ITERATIONS}",
    "algorithm.schedule=linear",
    "algorithm.score_norm=whiten",
    "algorithm.average=0.8",
    "adapter.dropout=0.1",  # draws from torch's own generator
    "budget.controller.distinct_2_pays=new_bigrams",  # remembers earlier rollouts
    "budget.controller.multipliers={distinct_2: 1.0}",
    "checkpoint.every=1",
    "checkpoint.keep=3",
    "evaluation.every=3",
    "evaluation.test_prompts=8",
    "generation.response_tokens=[4,8]",
    "data.limit=60",
    "threads=1",
]


SAID = ("before", "after", "change", "ref_kl", "parameters", "stopped", "budget", "guard")


def begin_and_kill(run_dir):
    """Kill -9 a real run somewhere after its second checkpoint."""
    process = start_run(OPTIONS, run_dir)
    try:
        deadline = time.monotonic() + 120
        while not list(run_dir.glob("checkpoints/iteration_*2")):
            assert process.is_alive(), "the run ended before it was killed"
            assert time.monotonic() < deadline, "the run did not get to its second checkpoint"
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.4))
        assert process.is_alive(), "the run ended before it was killed"
    finally:
        process.kill()
        process.join()
    assert not (run_dir / "summary.json").exists()


def result_of(run_dir):
    """Everything of a finished run that time has no part in."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run_dir / "summary.json").read_text())
    head = run_dir / "value_head.safetensors"
    return {
        "adapter": (run_dir / "adapter" / "adapter_model.safetensors").read_bytes(),
        "value head": head.read_bytes() if head.is_file() else None,
        "samples": (run_dir / "samples.jsonl").read_bytes(),
        "metrics": [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in rows],
        "summary": {k: summary[k] for k in SAID},
    }


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit_also_past_a_torn_checkpoint(tmp_path, capfd):
    run(OPTIONS, tmp_path / "whole")
    whole = result_of(tmp_path / "whole")
    assert [row["iteration"] for row in whole["metrics"]] == list(range(ITERATIONS + 1))

    killed = tmp_path / "killed"
    begin_and_kill(killed)
    (killed / "checkpoints" / ".part-iteration_000009-1").mkdir()  # as a kill while saving leaves
    torn = tmp_path / "torn"
    shutil.copytree(killed, torn)
    newest = max(torn.glob("checkpoints/iteration_*"))
    os.truncate(newest / "tensors.safetensors", 1000)

    with pytest.raises(SettingsError, match=r"hydra.run.dir: .* already holds another run"):
        run(OPTIONS, killed)
    with pytest.raises(SettingsError) as refused:
        run([*OPTIONS, "resume=true", "seed=5", "algorithm.learning_rate=0.5"], killed)
    message = str(refused.value)
    assert "algorithm.learning_rate: was 0.001" in message or "learning_rate: was" in message
    assert "seed: was 0, now 5" in message
    assert "clip_range" not in message

    for run_dir in (killed, torn):
        last = int(max(run_dir.glob("checkpoints/iteration_*")).name[-6:])
        capfd.readouterr()
        run([*OPTIONS, "resume=true"], run_dir)
        begun = last - 1 if run_dir == torn else last
        assert f"resumed after iteration {begun} of {ITERATIONS}" in capfd.readouterr().out
        resumed = result_of(run_dir)
        for part, value in whole.items():
            assert resumed[part] == value, (run_dir.name, part)
        assert not list(run_dir.glob("checkpoints/.part-*"))


def resumed_from(whole, iteration, options):
    """A copy of a finished run, cut back to one of its checkpoints and gone on with."""
    cut = whole.with_name(f"from_{iteration}")
    shutil.copytree(whole, cut)
    (cut / "summary.json").unlink()
    for checkpoint in (cut / "checkpoints").glob("iteration_*"):
        if int(checkpoint.name[-6:]) > iteration:
            shutil.rmtree(checkpoint)
    run([*options, "resume=true"], cut)
    return cut


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "reinforce"])
def test_each_algorithm_goes_on_from_a_checkpoint_bit_for_bit(algorithm, tmp_path):
    options = [*OPTIONS, f"algorithm={algorithm}", "algorithm.iterations=4", "checkpoint.keep=9"]
    run(options, tmp_path / "whole")
    whole = result_of(tmp_path / "whole")
    assert whole["value head"] is None
    assert result_of(resumed_from(tmp_path / "whole", 2, options)) == whole


def test_a_budget_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    """Multipliers at work, and the best state older than the checkpoint."""
    options = [*OPTIONS, "checkpoint.keep=9", "algorithm.iterations=6", "evaluation.every=1"]
    options += ["budget.perplexity=0", "budget.distinct_2=0", "budget.kl=0.001"]
    options += ["algorithm.learning_rate=0.03"]
    run(options, tmp_path / "whole")
    whole = result_of(tmp_path / "whole")
    assert any(row["multiplier_ref_kl"] > 0 for row in whole["metrics"] if row["iteration"])
    assert result_of(resumed_from(tmp_path / "whole", 3, options)) == whole
