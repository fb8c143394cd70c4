"""What is read of finished runs, and what is no finished run."""

import json

import pytest

from lora_detox.comparison.candidates import finished_jobs, read_candidates
from lora_detox.errors import DataError, SettingsError
from tests.finished import PROMPTS, edited, write_evaluated, write_trained


def names_of(*folders):
    return [one.name for one in read_candidates([str(folder) for folder in folders])]


def test_a_run_is_one_candidate_with_its_start(tmp_path):
    (one,) = read_candidates([str(write_trained(tmp_path / "a", 0.2))])
    assert (one.name, one.stage, one.task, one.seed) == ("a", "detox", "gptj_continuation", 0)
    assert one.settings["algorithm.name"] == "ppo"
    assert list(one.result.answers) == [(prompt, 0) for prompt in PROMPTS]
    answer, start = (side.answers[PROMPTS[3], 0] for side in (one.result, one.start))
    assert answer.text == "after 3 of no great length"
    assert start.text == "before 3 of no great length"
    assert answer.scores["judge_toxicity"] == pytest.approx(0.18)
    assert start.scores["reference_nll"] == pytest.approx(6.3)
    assert one.changes["toxicity"]["mean"] == pytest.approx(-0.4)


def test_each_answer_to_a_repeated_prompt_is_its_own(tmp_path):
    folder = write_trained(tmp_path / "a", [0.1, 0.2, 0.3], prompts=("x", "y", "x"))
    (one,) = read_candidates([str(folder)])
    assert list(one.result.answers) == [("x", 0), ("y", 0), ("x", 1)]
    assert one.result.answers["x", 1].scores["toxicity"] == 0.3


def test_the_models_of_an_evaluation_are_candidates_and_the_bare_base_is_their_start(tmp_path):
    folder = write_evaluated(
        tmp_path / "e", {"base": 0.6, "one": {0: 0.6, 0.5: 0.4, 1: 0.2}, "two": 0.3}
    )
    found = read_candidates([str(folder)])
    assert [one.name for one in found] == ["one at strength 0.5", "one at strength 1", "two"]
    assert [one.start_name for one in found] == ["one at strength 0"] * 2 + ["base"]
    assert [one.strength for one in found] == [0.5, 1, None]
    assert found[1].result.answers[PROMPTS[0], 0].text == "one 1 0 of no great length"


def test_a_first_row_that_is_no_bare_base_stays_a_candidate(tmp_path):
    folder = write_evaluated(tmp_path / "e", {"one": 0.6, "two": 0.3})
    edited(folder, models=[{**model, "adapter": "runs/x"} for model in models_of(folder)])
    one, two = read_candidates([str(folder)])
    assert (one.name, one.start) == ("one", None)
    assert two.start_name == "one"


def models_of(folder):
    return json.loads((folder / "summary.json").read_text())["models"]


def test_names_are_as_long_as_they_have_to_be(tmp_path):
    for place in ("x/run", "y/run", "z"):
        write_trained(tmp_path / place, 0.2)
    write_evaluated(tmp_path / "e", {"base": 0.6, "one": 0.3})
    assert names_of(tmp_path / "x/run", tmp_path / "z") == ["run", "z"]
    assert names_of(tmp_path / "x/run", tmp_path / "y/run") == ["x/run", "y/run"]
    assert names_of(tmp_path / "e", tmp_path / "z") == ["e: one", "z"]
    assert names_of(tmp_path / "e") == ["one"]


def test_a_multirun_counts_as_its_finished_jobs_in_their_order(tmp_path):
    for job in (0, 2, 10, 1):
        write_trained(tmp_path / "sweep" / f"{job}_seed", 0.2)
    (tmp_path / "sweep" / "3_seed").mkdir()
    assert names_of(tmp_path / "sweep") == ["0_seed", "1_seed", "2_seed", "10_seed"]
    assert [one.name for one in finished_jobs(tmp_path / "sweep")][-1] == "10_seed"


def test_a_soup_is_told_from_its_members(tmp_path):
    folder = write_trained(tmp_path / "a", 0.2, soup={"runs": ["b", "c"]})
    assert read_candidates([str(folder)])[0].stage == "soup"
    assert read_candidates([str(edited(folder, stage="sft"))])[0].stage == "sft"


REFUSED = {
    "missing": (lambda run: run.parent / "none", "runs: there is no folder .*none"),
    "no run": (lambda run: run.parent, None),
    "a file": (lambda run: run / "summary.json", "runs: there is no folder"),
    "unfinished": (lambda run: (run / "summary.json").unlink(), "has no summary.json.*resume=true"),
    "other stage": (
        lambda run: edited(run, stage="reward_model"),
        "stage=reward_model, which has no responses.*detox, sft, soup, evaluate",
    ),
    "no samples": (lambda run: (run / "samples.jsonl").unlink(), "has no samples.jsonl"),
    "no settings": (lambda run: (run / "config.yaml").unlink(), "runs: cannot read .*config.yaml"),
    "no json": (lambda run: (run / "summary.json").write_text("{"), "runs: cannot read .*summary"),
    "a list": (lambda run: (run / "summary.json").write_text("[1]"), "it holds no object"),
    "no after": (lambda run: edited(run, after=None), "KeyError: 'after'.*whole folder"),
    "scorers of another kind": (lambda run: edited(run, scorers=["x"]), "AttributeError"),
    "rows of another run": (
        lambda run: (run / "samples.jsonl").write_text('{"prompt": "x"}\n'),
        "KeyError: 'after'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_finished_run_is_refused_by_its_key(tmp_path, case):
    change, pattern = REFUSED[case]
    run = write_trained(tmp_path / "a" / "run", 0.2)
    place = change(run)
    place = place if hasattr(place, "parts") else run
    if pattern is None:  # the folder of a run's folder is a multirun of one job
        assert names_of(place) == ["run"]
        return
    with pytest.raises(SettingsError, match=pattern):
        read_candidates([str(place)])


def test_a_damaged_row_and_a_run_named_twice(tmp_path):
    run = write_trained(tmp_path / "run", 0.2)
    with pytest.raises(SettingsError, match=r"runs: .*run is named twice"):
        read_candidates([str(run), f"{run}/../run"])
    with (run / "samples.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(DataError, match=r"samples\.jsonl:41 is no row of JSON"):
        read_candidates([str(run)])
