"""The trials of a study on the page of its sweep, and keys whose values are draws."""

import pytest

from lora_detox.comparison.candidates import read_candidates
from lora_detox.comparison.compare import compare
from lora_detox.comparison.jobs import UNENDED, Job, write_job
from lora_detox.comparison.sweep import sweep_numbers, sweep_sentences
from lora_detox.comparison.sweep_page import write_sweep
from lora_detox.comparison.trials import front_picture, read_study
from lora_detox.report.jsonl import write_json_atomic
from tests.finished import write_trained

RATES = [round(0.001 * 1.3**step, 5) for step in range(10)]


def overrides_of(rate):
    return ("task=gptj_continuation", f"algorithm.learning_rate={rate}")


@pytest.fixture
def sweep(tmp_path):
    """Ten jobs, the faster the learning the less toxic and the worse the perplexity."""
    trials = []
    for number, rate in enumerate(RATES):
        toxicity, overrides = 0.5 - 0.04 * number, overrides_of(rate)
        run = write_trained(
            tmp_path / f"{number}_job", toxicity, overrides=overrides, nll=6 + 0.1 * number
        )
        write_job(tmp_path, Job(number=number, folder=str(run), stage="detox", overrides=overrides))
        measures = {"toxicity": toxicity, "judge_toxicity": toxicity, "perplexity": 9.0 + number}
        trials.append(
            {
                "number": number,
                "state": "complete",
                "overrides": list(overrides[1:]),
                "front": number != 3,
                "measures": measures,
            }
        )
    for number, (state, error) in enumerate((("fail", UNENDED), ("pruned", "pruned after 2")), 10):
        one = {"number": number, "state": state, "overrides": list(overrides_of(1)[1:])}
        trials.append({**one, "front": False, "error": error})
        job = Job(
            number=number,
            folder="none",
            stage="detox",
            overrides=overrides_of(1),
            error=error,
            pruned=state == "pruned",
        )
        write_job(tmp_path, job)
    stored = {"schema": 1, "measured_on": "validation", "trials": trials}
    write_json_atomic(tmp_path / "study.json", stored)
    return tmp_path


def test_the_page_has_the_front_and_every_trial(sweep, capsys):
    write_sweep(sweep)
    page = (sweep / "sweep.html").read_text()
    assert "12 jobs, 1 of them failed, 1 pruned" in page
    assert "The study has 12 trials: 10 complete, 1 pruned, 1 failed." in page
    assert "Trials of the study, on validation prompts" in page
    assert "did not end by itself: its process was killed" in page
    assert "pruned after 2" in page
    printed = capsys.readouterr().out
    assert "9 of them have none beside them that is better" in printed
    assert "failed   job 10 task=gptj_continuation algorithm.learning_rate=1" in printed
    assert "failed   job 11" not in printed


def test_the_picture_joins_the_front_alone(sweep):
    study = read_study(sweep)
    assert len(study.tables[0].rows) == 12
    assert study.tables[0].rows[3][:3] == ["3", "complete", str(RATES[3])]
    assert front_picture([{"state": "fail"}], "validation") is None
    (sweep / "study.json").write_text("{torn")
    assert read_study(sweep) is None


def test_a_key_with_a_number_of_its_own_in_each_job_has_rank_correlations(sweep):
    candidates = read_candidates([str(sweep / f"{number}_job") for number in range(10)])
    comparison = compare(candidates, 50)
    numbers = sweep_numbers(candidates, comparison)
    assert numbers["effects"] == {}
    (correlations,) = numbers["correlations"].values()
    assert correlations == {
        "judge_toxicity": pytest.approx(-1),
        "perplexity": pytest.approx(1),
    }
    assert (
        "algorithm.learning_rate: rank correlation over the jobs -1.00 with toxicity by the judge, "
        "+1.00 with perplexity under the reference."
    ) in sweep_sentences(numbers, "judge_toxicity")
    eight = candidates[:8]
    assert list(sweep_numbers(eight, compare(eight, 50))["effects"]) == ["algorithm.learning_rate"]
