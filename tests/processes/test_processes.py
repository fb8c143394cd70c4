"""Two processes are one run: the same adapter, one set of files, one end."""

import json
import shutil

import pytest

from lora_detox import api
from tests.processes.launching import (
    largest_difference,
    launch,
    launch_jobs,
    responses_of,
    rows_of,
)
from tests.runs import SMOKE

pytestmark = [pytest.mark.training, pytest.mark.slow]

OPTIONS = [
    *SMOKE,
    "device=cpu",
    "algorithm.learning_rate=2e-3",
    "evaluation.resamples=20",
    "evaluation.test_prompts=4",
    "evaluation.validation_prompts=4",
    "evaluation.audit=null",
]
RLOO = [
    "algorithm=rloo",
    "algorithm.responses_per_prompt=2",
    "budget=off",
    "reward=noise",
    "evaluation.every=2",
]
GPTJ, T5 = "task=gptj_continuation", "task=flan_summary"
PPO = [
    "algorithm.kl.control=adaptive",
    "algorithm.expert.target_kl=0.1",
    "budget.ship=end",
    "budget.controller.distinct_2_pays=new_bigrams",
    "budget.controller.multipliers={distinct_2: 1.0}",
]
ALIKE = {
    "gptj_ppo": [GPTJ, *OPTIONS, *PPO],
    "t5_ppo": [T5, *OPTIONS, *PPO],
    "gptj_rloo": [GPTJ, *OPTIONS, *RLOO],
    "t5_rloo": [T5, *OPTIONS, *RLOO, "algorithm.average=0.8"],
}
SHARDED = {
    "gptj_ppo_sharded": [*ALIKE["gptj_ppo"], "policy.sharded=true"],
    "t5_rloo_sharded": [*ALIKE["t5_rloo"], "policy.sharded=true"],
}
FEW = [
    GPTJ,
    *OPTIONS,
    "budget=off",
    "reward=noise",
    "budget.controller.start_rollouts=0",
    "algorithm.iterations=2",
    "algorithm.rollout_batch_size=3",
    "algorithm.minibatch_size=1",
    "evaluation.test_prompts=1",
    "evaluation.validation_prompts=1",
    "checkpoint.keep=9",
]
"""The second process has no row in any minibatch, and no prompt in any evaluation."""
LONGER = ["resume=true", "algorithm.iterations=2"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same runs by one process, and two that are to go on."""
    folder = tmp_path_factory.mktemp("alone")
    for name, overrides in {**ALIKE, **SHARDED, "few": FEW}.items():
        api.run(overrides, folder / name)
    api.run([*FEW, "algorithm.iterations=1"], folder / "one_then_two")
    return folder


@pytest.fixture(scope="module")
def together(alone, tmp_path_factory):
    """By two processes: all of them in one launch, as starting Python is what costs."""
    folder = tmp_path_factory.mktemp("together")
    shutil.copytree(alone / "one_then_two", folder / "one_then_two")
    jobs = {**ALIKE, **SHARDED, "few": FEW, "few_sharded": [*FEW, "policy.sharded=true"]}
    jobs |= {"two_then_one": [*FEW, "algorithm.iterations=1"]}
    jobs["one_then_two"] = LONGER
    ended = launch_jobs(
        folder, [{"overrides": o, "folder": str(folder / name)} for name, o in jobs.items()]
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    api.run(LONGER, folder / "two_then_one")
    return folder


@pytest.mark.parametrize("name", [*ALIKE, *SHARDED, "few"])
def test_the_same_batch_gives_the_same_adapter(name, alone, together):
    one, two = alone / name, together / name
    assert largest_difference(one, two) < 1e-5
    mine, theirs = rows_of(one), rows_of(two)
    assert len(mine) == len(theirs) == 3
    for row, other in zip(mine, theirs, strict=True):
        assert row.keys() == other.keys()
        for key, value in row.items():
            if isinstance(value, float) and not key.startswith("seconds"):
                assert other[key] == pytest.approx(value, abs=1e-4, rel=1e-4), key
    assert responses_of(one) == responses_of(two)


@pytest.mark.parametrize("name", ["two_then_one", "one_then_two"])
def test_a_run_goes_on_with_another_number_of_processes(name, alone, together):
    assert largest_difference(alone / "few", together / name) < 1e-5
    assert [row["iteration"] for row in rows_of(together / name)] == [0, 1, 2]


def test_adapters_did_move(alone):
    """Else it would say little that they are the same."""
    assert largest_difference(alone / "few", alone / "one_then_two") > 1e-4


def test_files_are_those_of_one_process(alone, together):
    for name in ALIKE:
        names = [{file.name for file in (run / name).iterdir()} for run in (alone, together)]
        assert names[0] == names[1]
    assert json.loads((alone / "few" / "summary.json").read_text())["processes"] == 1


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate", "fsdp"])
def test_the_command_line_under_a_launcher(launcher, tmp_path):
    """It says each thing once; the stage is one that reads, or one that learns."""
    options = [*FEW, "algorithm.iterations=1", f"hydra.run.dir={tmp_path / 'run'}"]
    if launcher == "torchrun":
        options = [GPTJ, *OPTIONS, "stage=evaluate", f"hydra.run.dir={tmp_path / 'run'}"]
    ended = launch("lora_detox", *options, launcher=launcher)
    assert ended.returncode == 0, ended.stderr[-4000:]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["processes"] == 2
    assert ended.stdout.count(str(tmp_path / "run" / "report.html")) == 1
    if launcher != "torchrun":
        assert ended.stdout.count("shared   by 2 processes") == 1
        assert ("the frozen layers of the policy" in ended.stdout) is (launcher == "fsdp")
        assert "minibatch_size=1 with 2 processes" in ended.stdout
    assert sorted(one.name for one in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("options", [[], ["policy.sharded=true"]])
def test_an_error_of_one_process_ends_all_with_one_message(options, tmp_path):
    job = {"overrides": [*FEW, *options], "folder": str(tmp_path / "run"), "fault": "error"}
    ended = launch_jobs(tmp_path, job)
    assert ended.returncode != 0
    assert ended.stderr.count("the last process cannot score") == 1
    assert "error: process 1 of 2: the last process cannot score. Iteration 1 of" in ended.stderr
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("fault", ["SIGTERM", "SIGKILL"])
def test_a_signal_to_one_process_ends_all_and_the_run_goes_on(fault, alone, tmp_path):
    run = tmp_path / "run"
    job = {"overrides": [*FEW, "checkpoint.every=0"], "folder": str(run), "fault": fault}
    ended = launch_jobs(tmp_path, job)
    assert ended.returncode != 0
    # The launcher tells the others to end when one is killed: whichever they notice first, once.
    sentences = ["stopped by SIGTERM"]
    if fault == "SIGKILL":
        sentences.append("another of the 2 processes is gone")
    assert sum(map(ended.stderr.count, sentences)) == 1
    assert [one.name for one in (run / "checkpoints").iterdir()] == ["iteration_000001"]
    api.run(["resume=true"], run)
    assert largest_difference(alone / "few", run) < 1e-5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stage=plan", "debug=smoke"], "stage=plan with 2 processes: it runs in one"),
        (["-m", "seed=1,2"], "--multirun with 2 processes"),
    ],
)
def test_what_runs_in_one_process_is_refused_once(overrides, message, tmp_path):
    ended = launch("lora_detox", *overrides, f"hydra.run.dir={tmp_path / 'run'}")
    assert ended.returncode != 0
    assert ended.stderr.count(message) == 1
    assert not (tmp_path / "run").exists()
