"""A study by the command line: refused before any job, failed and pruned trials, gone on with."""

import json
import sys

import pytest

from lora_detox.__main__ import main
from lora_detox.comparison.jobs import read_jobs
from tests.runs import ONE_RUN

pytest.importorskip("optuna")
STUDY = ["-m", "hydra/sweeper=optuna", "task=gptj_continuation", *ONE_RUN]
RATE = "algorithm.learning_rate=tag(log,interval(1e-4,1e-2))"

FAILS_ONCE = """
from pathlib import Path

MARK = Path(__file__).with_name("fail")


def score(completions, **columns):
    if MARK.exists():
        MARK.unlink()
        raise ValueError("planted")
    return [float(len(one)) for one in completions]
"""


@pytest.fixture
def command(monkeypatch, tmp_path, capfd):
    def run(*overrides):
        words = [*STUDY, f"hydra.sweep.dir={tmp_path}/study", *overrides]
        monkeypatch.setattr(sys, "argv", ["lora_detox", *words])
        return main(), *capfd.readouterr()

    return run


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "hydra/sweeper=optuna: nothing to choose from"),
        (["algorithm.kl.coef=interval(-1,1)"], "algorithm.kl.coef"),
        ([RATE, "hydra.sweeper.at_once=0"], "hydra.sweeper.at_once: got 0"),
        (["algorithm.minibatch_size=4,3"], "algorithm.minibatch_size=3 does not divide"),
        (["algorithm.kl.coeff=interval(0,1)"], "algorithm.kl.coef"),
        (["algorithm=ppo,pppo"], "pppo"),
        ([RATE, "data=local", "data.path=./none.csv"], "no such file or folder: ./none.csv"),
        ([RATE, "hydra.sweeper.trials=0"], "hydra.sweeper.trials: got 0"),
        ([RATE, "stage=plan"], "stage=plan has no objectives on validation prompts"),
        ([RATE, "algorithm=best_of_n"], "want hydra.sweeper.measured_on=test"),
    ],
)
def test_what_cannot_work_is_refused_before_any_job_starts(overrides, message, command, tmp_path):
    status, printed, error = command(*overrides)
    assert status == 2
    assert message in error
    assert "job 0" not in printed
    assert not list(tmp_path.glob("study/*"))


@pytest.mark.training
def test_a_study_goes_on_after_failed_and_pruned_trials(command, tmp_path):
    reward, study = tmp_path / "reward.py", tmp_path / "study"
    reward.write_text(FAILS_ONCE)
    (tmp_path / "fail").touch()
    overrides = [RATE, f"reward.function={reward}:score", "hydra.sweeper.prune.after=1"]
    overrides += ["hydra.sweeper.prune.least=1"]
    status, printed, error = command(*overrides, "hydra.sweeper.trials=2")
    assert status == 0, error
    assert "job 0" in printed
    assert "planted" in printed
    assert "study    2 trials: 1 complete, 1 failed; 1 on the front" in printed
    stored = json.loads((study / "study.json").read_text())
    failed, complete = stored["trials"]
    assert (failed["state"], complete["state"]) == ("fail", "complete")
    assert "planted" in failed["error"]
    summary = json.loads((study / "1_gptj_continuation_seed0/summary.json").read_text())
    means = summary["validation"]
    assert complete["objectives"] == [means["judge_toxicity"], means["perplexity"]]
    page = (study / "sweep.html").read_text()
    assert "1 failed job" in page
    assert "Trials of the study" in page

    history = study / "1_gptj_continuation_seed0" / "metrics.jsonl"
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    for row in rows:  # so that nothing can be better
        row["evaluation"] = {"toxicity": 0.0, "judge_toxicity": 0.0, "perplexity": 0.0}
    history.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    status, printed, error = command(*overrides, "hydra.sweeper.trials=3")
    assert status == 0, error
    assert "job 2" in printed
    assert "pruned after iteration 1: on validation prompts 1 of 1 finished trials" in printed
    stored = json.loads((study / "study.json").read_text())
    assert [row["state"] for row in stored["trials"]] == ["fail", "complete", "pruned"]
    assert stored["trials"][:2] == [failed, complete]
    assert [(job.number, job.pruned) for job in read_jobs(study)][-1] == (2, True)
    assert "1 pruned" in (study / "sweep.html").read_text()

    status, printed, error = command(*overrides, "hydra.sweeper.trials=3")
    assert status == 0, error
    assert "has its 3 trials; raise hydra.sweeper.trials" in printed
    status, _, error = command("algorithm.kl.coef=interval(0,1)")
    assert status == 2
    assert "type the same overrides" in error


@pytest.mark.training
def test_without_a_single_good_trial_the_study_ends_with_the_error(command, tmp_path):
    reward = tmp_path / "reward.py"
    reward.write_text(FAILS_ONCE.replace("MARK.unlink()", "pass"))
    (tmp_path / "fail").touch()
    status, _, error = command(RATE, f"reward.function={reward}:score", "hydra.sweeper.trials=1")
    assert status == 2
    assert "planted" in error
