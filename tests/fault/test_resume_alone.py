"""A run goes on by the name of its folder alone, and beyond its end."""

import json
import shutil

import pytest

from lora_detox.api import run
from lora_detox.errors import SettingsError
from lora_detox.settings.from_run import sets_keys_alone, settings_of_run

pytestmark = pytest.mark.training

OPTIONS = [
    "task=gptj_continuation",
    "debug=smoke",
    "seed=3",
    "algorithm.iterations=4",
    "algorithm.learning_rate=2e-3",
    "budget=off",
    "budget.controller.start_rollouts=0",
    "checkpoint.every=1",
    "checkpoint.keep=9",
    "evaluation.every=1",
    "evaluation.test_prompts=8",
    "evaluation.audit=null",
    "generation.response_tokens=[4,8]",
    "data.limit=60",
    "threads=1",
]


def adapter_of(folder):
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(OPTIONS, folder)
    return folder


@pytest.fixture
def cut(whole, tmp_path):
    """The run as it was after two of its four iterations."""
    folder = shutil.copytree(whole, tmp_path / "cut")
    for name in ("iteration_000003", "iteration_000004"):
        shutil.rmtree(folder / "checkpoints" / name)
    (folder / "summary.json").unlink()
    return folder


@pytest.mark.parametrize("lost", [[], ["config.yaml"]])
def test_the_folder_alone_is_enough(whole, cut, lost):
    for name in lost:
        (cut / name).unlink()
    summary = run(["resume=true", "device=cpu", "threads=1"], cut)
    assert summary["iterations"] == 4
    assert summary["seed"] == 3
    assert adapter_of(cut) == adapter_of(whole)


def test_a_finished_run_goes_on_to_more_iterations(whole, tmp_path, capsys):
    """Rollouts that measure the start are those behind the last iteration, so there are none."""
    shorter = tmp_path / "shorter"
    run([*OPTIONS, "algorithm.iterations=2"], shorter)
    assert adapter_of(shorter) != adapter_of(whole)
    summary = run(["resume=true", "algorithm.iterations=4"], shorter)
    assert "algorithm.iterations was 2, now 4: the run goes on to it" in capsys.readouterr().out
    assert summary["iterations"] == 4
    assert adapter_of(shorter) == adapter_of(whole)
    rows = [json.loads(line) for line in (shorter / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3, 4]
    assert settings_of_run(shorter, "run").algorithm.iterations == 4
    with pytest.raises(SettingsError, match=r"algorithm\.iterations: was 4, now 3"):
        run(["resume=true", "algorithm.iterations=3"], shorter)


def test_what_is_said_beside_it_is_compared(cut):
    with pytest.raises(SettingsError, match=r"begun with other settings \(seed: was 3, now 9\)"):
        run(["resume=true", "seed=9"], cut)
    with pytest.raises(SettingsError, match=r"begun with other settings \(.*none at all to go on"):
        run(["resume=true", "task=gptj_continuation"], cut)


def test_options_of_groups_are_told_from_keys():
    assert sets_keys_alone(["resume=true", "+policy.shape.n_layer=2", "task.chat=true", "seed=1"])
    assert sets_keys_alone(["hydra.run.dir=x", "algorithm.kl.coef=0.1"])
    for one in (
        "task=rewrite",
        "data@evaluation.sets.toxic=wiki_toxic",
        "budget=off",
        "debug=smoke",
    ):
        assert not sets_keys_alone(["resume=true", one])


@pytest.mark.parametrize("stage", ["sft", "reward_model"])
def test_the_other_trainings_go_on_by_their_folder_too(stage, tmp_path, capsys):
    own = ["debug=smoke", "threads=1", "data.limit=60", f"stage={stage}", "checkpoint.every=1"]
    own += ["task=flan_summary", "sft.max_steps=3", "evaluation.test_prompts=4"]
    if stage == "reward_model":
        own = [f"stage={stage}", "data=embedded_labelled", "data.limit=80", "threads=1"]
        own += ["reward_model.max_steps=3", "checkpoint.every=1"]
    summary = run(own, tmp_path / "run")
    if stage == "sft":
        shown = capsys.readouterr().out
        assert "update   supervised fine-tuning: 3 steps over" in shown
        assert "ppo" not in shown
    (tmp_path / "run" / "summary.json").unlink()
    again = run(["resume=true"], tmp_path / "run")
    assert again["stage"] == summary["stage"] == stage
    key = "after" if "after" in summary else "test"
    assert again[key] == summary[key]
