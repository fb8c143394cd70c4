"""A comparison on any bench: its runs compose, and those of the lab are what they were."""

import json
from pathlib import Path

from lora_detox.api import compose_settings
from recipes.lab import overrides
from recipes.lab.bench import lab_bench, smollm2_bench
from recipes.lab.comparison import Comparison
from recipes.lab.real import RealModels


def comparison(out, bench):
    return Comparison(
        out=out, bench=bench, iterations=4, batch=8, prompts=20, peer=Path("/environment")
    )


def job_of(run):
    return json.loads((run.folder / "evaluate.job.json").read_text())


def options_of(run):
    """Of the peer's program, the second step."""
    words = run.steps[1].command[2:]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_finished_runs_of_the_lab_are_still_those_of_their_settings(tmp_path):
    shared = "/corpora"
    bench = lab_bench(shared)
    run = comparison(tmp_path, bench).own_run("grpo/seed2", ["algorithm=grpo"], 2)
    lab = overrides.continuation(shared)
    judged = overrides.evaluated(
        f"{shared}/{overrides.BASE}", run.folder / "train" / "adapter", "grpo/seed2"
    )
    assert job_of(run) == {
        "folder": str(run.folder),
        "evaluate": [
            *lab,
            "stage=evaluate",
            "evaluation.prompts=20",
            judged,
        ],
        "train": [*lab, *overrides.training(4, 8, 2), "algorithm=grpo"],
    }
    options = options_of(comparison(tmp_path, bench).peer_run("peer/seed0", "3e-4", 0))
    assert options["--model"] == f"{shared}/{overrides.BASE}"
    assert (options["--targets"], options["--civil"]) == ("q_proj,v_proj", "nothate")


def test_a_comparison_on_smollm2_trains_all_linear_layers(tmp_path):
    models = RealModels(home=Path("/models"))
    bench = smollm2_bench(models, "/corpora")
    runs = comparison(tmp_path, bench)
    job = job_of(runs.own_run("rloo/seed1", ["algorithm=rloo"], 1))
    settings = compose_settings(job["train"], tmp_path / "one")
    assert settings.policy.path == str(models.policy)
    assert settings.adapter.targets == ["all-linear"]
    assert (settings.algorithm.iterations, settings.algorithm.rollout_batch_size) == (4, 8)
    judged = compose_settings(job["evaluate"], tmp_path / "two")
    assert judged.evaluation.prompts == 20
    options = options_of(runs.peer_run("peer/seed0", "3e-4", 0))
    assert options["--reward"] == str(models.classifier("reward"))
    assert options["--targets"] == "all-linear"
