"""Trials are kept on disk; a study goes on after any end of its process."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lora_detox.comparison.jobs import Job, write_job
from lora_detox.errors import SettingsError
from lora_detox.tuning.options import StudyOptions, study_options
from lora_detox.tuning.space import read_space
from lora_detox.tuning.study import StudyRecord, Trial, batches

pytest.importorskip("optuna")
OVERRIDES = ("seed=1", "algorithm.kl.coef=interval(0,1)", "algorithm=ppo,rloo")


def record(folder, *, overrides=OVERRIDES, **options):
    space = read_space(OverridesParser.create().parse_overrides(list(overrides)))
    return StudyRecord(folder, study_options({"trials": 6, **options}), space)


def finish(study, trial, point):
    study.complete(trial.number, point, {"measures": {"toxicity": point[0]}})


def test_trials_are_counted_with_those_of_before(tmp_path):
    first = record(tmp_path)
    assert first.begin() == []
    assert first.missing() == 6
    one, two = first.choose(2)
    assert (one.number, two.number) == (0, 1)
    assert one.overrides[0] == "seed=1"
    assert one.overrides[1].startswith("algorithm.kl.coef=0.")
    finish(first, one, (0.5, 10.0))
    first.fail(two.number, "ValueError: planted")
    (three,) = first.choose(1)
    first.prune(three.number, "pruned: no prospects")

    second = record(tmp_path)
    assert second.begin() == []
    assert second.missing() == 3
    (four,) = second.choose(1)
    assert four.number == 3
    assert four.overrides not in (one.overrides, two.overrides, three.overrides)
    finish(second, four, (0.6, 11.0))
    rows = second.rows()
    assert [row["state"] for row in rows] == ["complete", "fail", "pruned", "complete"]
    assert [row["front"] for row in rows] == [True, False, False, False]
    assert rows[1]["error"] == "ValueError: planted"
    assert rows[0]["measures"] == {"toxicity": 0.5}
    assert record(tmp_path, trials=4).missing() == 0


def test_the_same_seed_chooses_the_same(tmp_path):
    chosen = [record(tmp_path / name).choose(3) for name in "ab"]
    assert chosen[0] == chosen[1]
    assert chosen[0] != record(tmp_path / "c", seed=1).choose(3)


def test_an_interrupted_trial_goes_on_from_its_checkpoint_else_its_parameters_do(tmp_path):
    first = record(tmp_path)
    kept, lost = first.choose(2)
    for trial in (kept, lost):
        run = tmp_path / f"{trial.number}_job"
        write_job(
            tmp_path,
            Job(number=trial.number, folder=str(run), stage="detox", overrides=(), error="x"),
        )
    checkpoint = tmp_path / "0_job" / "checkpoints" / "iteration_000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "run.json").write_text("{}")

    second = record(tmp_path)
    assert second.begin() == [Trial(number=0, overrides=(*kept.overrides, "resume=true"))]
    finish(second, kept, (0.5, 10.0))
    assert second.missing() == 5  # the lost one does not count
    (again,) = second.choose(1)
    assert (again.number, again.overrides) == (2, lost.overrides)
    second.fail(again.number, "killed", again=True)
    (other,) = second.choose(1)
    assert other.overrides != lost.overrides  # once is enough
    assert second.missing() == 3


def test_another_study_in_the_folder_is_refused(tmp_path):
    record(tmp_path).choose(1)
    with pytest.raises(SettingsError, match=r"now algorithm.kl.coef: numbers 0 to 2") as refused:
        record(tmp_path, overrides=("seed=1", "algorithm.kl.coef=interval(0,2)"))
    assert "then algorithm=ppo,rloo" in str(refused.value)
    with pytest.raises(SettingsError, match="measured on test prompts"):
        record(tmp_path, measured_on="test")
    (tmp_path / "sweep" / ".jobs").mkdir(parents=True)
    with pytest.raises(SettingsError, match="holds the jobs of another sweep"):
        record(tmp_path / "sweep")


def test_a_database_may_keep_it(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    (one,) = record(tmp_path / "a", storage=url).choose(1)
    finish(record(tmp_path / "a", storage=url), one, (0.1, 2.0))
    assert record(tmp_path / "a", storage=url).missing() == 5
    with pytest.raises(SettingsError, match="nowhere://x cannot be opened"):
        record(tmp_path / "b", storage="nowhere://x")


def test_a_launcher_gets_consecutive_numbers():
    trials = [Trial(number=one, overrides=()) for one in (3, 4, 7, 8, 10)]
    assert [[one.number for one in group] for group in batches(trials)] == [[3, 4], [7, 8], [10]]
    assert StudyOptions().prune.enabled
