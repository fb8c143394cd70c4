"""A trial ends where half of the finished ones dominate it at the same iteration."""

import pytest

from lora_detox.comparison.jobs import Job, write_job
from lora_detox.comparison.objectives import dominates, objectives
from lora_detox.comparison.pruning import PruningRule, prune_if_hopeless, set_rule
from lora_detox.errors import PrunedError
from lora_detox.report.jsonl import write_rows


def row(iteration, toxicity, perplexity):
    evaluation = {"toxicity": {"mean": 0.0}, "judge_toxicity": {"mean": toxicity}}
    return {"iteration": iteration, "evaluation": {**evaluation, "perplexity": perplexity}}


FINISHED = ((0.1, 20.0), (0.2, 10.0), (0.3, 30.0), (0.4, 40.0))


@pytest.fixture
def sweep(tmp_path):
    for number, (toxicity, perplexity) in enumerate(FINISHED):
        folder = tmp_path / f"{number}_job"
        folder.mkdir()
        rows = [row(0, 1.0, 1.0), {"iteration": 1}, row(2, toxicity, perplexity), row(4, 0.0, 0.0)]
        write_rows(folder / "metrics.jsonl", rows)
        write_job(tmp_path, Job(number=number, folder=str(folder), stage="detox", overrides=()))
    unended = Job(number=9, folder="none", stage="detox", overrides=(), error="still runs")
    write_job(tmp_path, unended)
    return tmp_path


def rule(sweep, **values):
    return PruningRule(**{"sweep": sweep, "after": 2, "least": 4, "fraction": 0.5, **values})


@pytest.mark.parametrize(
    ("toxicity", "perplexity", "pruned"),
    [
        (0.35, 35.0, True),  # three of four are better in both
        (0.25, 25.0, True),  # two
        (0.15, 25.0, False),  # one
        (0.05, 99.0, False),  # an end of the front: the least toxic of all
        (0.9, 5.0, False),  # the other end
        (0.2, 10.0, False),  # a copy of one of them
        (0.2, 20.0, True),  # as toxic as one, as good as another: both dominate it
    ],
)
def test_half_of_the_finished_trials_decide(sweep, toxicity, perplexity, pruned):
    evaluation = row(2, toxicity, perplexity)["evaluation"]
    assert (rule(sweep).reason(2, evaluation) is not None) is pruned


def test_early_iterations_few_trials_and_other_iterations_decide_nothing(sweep):
    hopeless = row(2, 0.9, 90.0)["evaluation"]
    assert "4 of 4 finished trials were less toxic" in rule(sweep).reason(2, hopeless)
    assert rule(sweep, after=3).reason(2, hopeless) is None
    assert rule(sweep, least=5).reason(2, hopeless) is None
    assert rule(sweep).reason(3, hopeless) is None  # where nobody was evaluated
    assert rule(sweep, fraction=1.0).reason(2, row(2, 0.35, 35.0)["evaluation"]) is None


def test_a_job_outside_of_a_study_is_never_pruned(sweep):
    hopeless = row(2, 0.9, 90.0)["evaluation"]
    prune_if_hopeless(2, hopeless)
    set_rule(rule(sweep))
    try:
        prune_if_hopeless(2, None)
        with pytest.raises(PrunedError, match="pruned after iteration 2"):
            prune_if_hopeless(2, hopeless)
    finally:
        set_rule(None)
    prune_if_hopeless(2, hopeless)


def test_objectives_are_the_judges_toxicity_and_lost_quality():
    assert objectives({"toxicity": 0.1, "judge_toxicity": 0.2, "perplexity": 9.0}) == (0.2, 9.0)
    assert objectives({"toxicity": 0.1, "rougeL": 0.4}) == (0.1, -0.4)
    assert objectives({"toxicity": 0.1, "rougeL": 0.4, "joint": 0.3}) == (0.1, -0.3)
    assert objectives({"toxicity": 0.1}) == (0.1, 0.0)
    assert dominates((0.1, 1.0), (0.1, 2.0))
    assert not dominates((0.1, 1.0), (0.1, 1.0))
    assert not dominates((0.1, 3.0), (0.2, 2.0))
