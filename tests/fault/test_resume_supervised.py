"""stage=sft and stage=reward_model, killed at any moment and resumed, write the same weights."""

import json
import os
import shutil
import time

import pytest

from lora_detox.api import run
from lora_detox.errors import SettingsError
from lora_detox.run.manifest import newest_trainer_checkpoint
from lora_detox.trainers.checkpoints import steps_between, training_steps
from tests.runs import start_run

STEPS = 16
SFT = [
    "stage=sft",
    "debug=smoke",
    f"sft.max_steps={STEPS}",
    "sft.schedule=cosine",
    "sft.learning_rate=0.02",
    "sft.batch_size=4",
    "sft.gradient_accumulation=2",
    "sft.log_every=1",
    "adapter.dropout=0.1",  # draws from torch's own generator
    "checkpoint.every=1",
    "checkpoint.keep=3",
    "evaluation.test_prompts=8",
    "data.limit=60",  # several epochs
    "threads=1",
]
STAGES = {
    "encoder-decoder": (
        [
            *SFT,
            "task=flan_summary",
            "data.fields.references=summaries",
            "sft.group_by_length=true",
        ],
        "adapter/adapter_model.safetensors",
    ),
    "decoder": (
        [*SFT, "task=gptj_continuation", "data.fields.references=null"],
        "adapter/adapter_model.safetensors",
    ),
    "classifier": (
        [
            "stage=reward_model",
            "data=embedded_labelled",
            f"reward_model.max_steps={STEPS}",
            "reward_model.batch_size=8",
            "reward_model.log_every=1",
            "reward_model.training=lora",
            "data.limit=48",
            "checkpoint.every=1",
            "checkpoint.keep=3",
            "threads=1",
        ],
        "classifier/model.safetensors",
    ),
    "classifier by length": (
        [
            "stage=reward_model",
            "data=embedded_labelled",
            f"reward_model.max_steps={STEPS}",
            "reward_model.batch_size=8",
            "reward_model.log_every=1",
            "reward_model.group_by_length=true",
            "reward_model.frozen_layers=1",
            "data.limit=48",  # several epochs
            "checkpoint.every=1",
            "checkpoint.keep=3",
            "threads=1",
        ],
        "classifier/model.safetensors",
    ),
}


def begin_and_kill(options, run_dir):
    """Kill -9 a real run once its fourth checkpoint has appeared."""
    process = start_run(options, run_dir)
    try:
        deadline = time.monotonic() + 300
        while not list(run_dir.glob("checkpoints/checkpoint-4")):
            assert process.is_alive(), "the run ended before it was killed"
            assert time.monotonic() < deadline, "the run did not get to its fourth checkpoint"
            time.sleep(0.005)
    finally:
        process.kill()
        process.join()
    assert not (run_dir / "summary.json").exists()


def rows(run_dir):
    found = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in found]


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_training_resumes_to_the_same_weights(stage, tmp_path, capfd, finished_run):
    options, weights = STAGES[stage]
    whole = finished_run(*options)
    expected = (whole / weights).read_bytes()

    killed, torn = tmp_path / "killed", tmp_path / "torn"
    begin_and_kill(options, killed)
    shutil.copytree(killed, torn)
    newest = newest_trainer_checkpoint(torn / "checkpoints")
    assert newest is not None
    os.truncate(newest[1] / "optimizer.pt", 1000)

    with pytest.raises(SettingsError, match=r"hydra.run.dir: .* already holds another run"):
        run(options, killed)
    with pytest.raises(SettingsError, match=r"seed: was 0, now 5"):
        run([*options, "resume=true", "seed=5"], killed)
    for run_dir in (killed, torn):
        behind = newest_trainer_checkpoint(run_dir / "checkpoints")  # removes a torn one
        assert behind is not None
        assert run_dir != torn or behind[0] < newest[0]
        capfd.readouterr()
        summary = run([*options, "resume=true"], run_dir)
        said = [line.split(" ")[0] for line in capfd.readouterr().out.splitlines()]
        assert f"{behind[0]}/{STEPS}" not in said  # these steps are not done again
        assert f"{behind[0] + 1}/{STEPS}" in said
        assert summary["iterations"] == STEPS
        assert (run_dir / weights).read_bytes() == expected, run_dir.name
        assert rows(run_dir) == rows(whole)


@pytest.mark.training
def test_resuming_a_finished_or_an_empty_run_ends_with_the_same_weights(tmp_path, finished_run):
    options, weights = STAGES["decoder"]
    shutil.copytree(finished_run(*options), tmp_path / "out")
    expected = (tmp_path / "out" / weights).read_bytes()
    run([*options, "resume=true"], tmp_path / "out")
    assert (tmp_path / "out" / weights).read_bytes() == expected
    run([*options, "resume=true"], tmp_path / "other")
    assert (tmp_path / "other" / weights).read_bytes() == expected


def test_how_often_is_bounded():
    assert [steps_between(10, n) for n in (5, 200, 201, 4000)] == [10, 10, 11, 200]
    assert training_steps(100, epochs=2, batch=16, max_steps=None) == 14
    assert training_steps(100, epochs=2, batch=16, max_steps=3) == 3
    assert training_steps(3, epochs=0.1, batch=16, max_steps=None) == 1
