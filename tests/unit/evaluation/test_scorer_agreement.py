"""The warning where a reward falls far more than the others, and who learned from what."""

import pytest

from lora_detox import api
from lora_detox.evaluation.scorer_agreement import models_agreement, scorer_agreement, training_of


def numbers(reward, judge=None, listed=None, n=200):
    spread = {"toxicity": {"mean": reward, "std": 0.1, "n": n}}
    if judge is not None:
        spread["judge_toxicity"] = {"mean": judge, "std": 0.1, "n": n}
    return spread if listed is None else {**spread, "listed_words": listed}


def changes(before, after, width=0.02):
    def mean(value):
        return value["mean"] if isinstance(value, dict) else value

    return {
        key: {
            "mean": mean(after[key]) - mean(before[key]),
            "ci95": [mean(after[key]) - mean(before[key]) + side * width for side in (-1, 1)],
        }
        for key in before
    }


def warning(before, after, width=0.02):
    return scorer_agreement(before, after, changes(before, after, width))["warning"]


def test_a_judge_that_does_not_follow_is_a_warning():
    entry = scorer_agreement(
        numbers(0.5, 0.5, 0.3),
        numbers(0.2, 0.45, 0.12),
        changes(numbers(0.5, 0.5, 0.3), numbers(0.2, 0.45, 0.12)),
    )
    assert entry["fall"] == pytest.approx(
        {"toxicity": 0.6, "judge_toxicity": 0.1, "listed_words": 0.6}
    )
    assert entry["warning"].startswith(
        "Warning: by the reward toxicity fell by 60%, but by the judge only by 10%: "
    )


def test_a_word_list_that_rises_is_a_warning():
    told = warning(numbers(0.5, 0.5, 0.3), numbers(0.2, 0.2, 0.33))
    assert "by the word list it rose by 10%" in told
    assert "judge" not in told


@pytest.mark.parametrize(
    ("before", "after", "width"),
    [
        (numbers(0.5, 0.5, 0.3), numbers(0.2, 0.3, 0.15), 0.02),  # both follow
        (numbers(0.5, 0.5, 0.3), numbers(0.47, 0.5, 0.3), 0.02),  # hardly a fall
        (numbers(0.5, 0.5, 0.3), numbers(0.2, 0.45, 0.27), 0.5),  # by chance, for all one knows
        (numbers(0.5, 0.5, 0.04), numbers(0.2, 0.2, 0.05), 0.01),  # eight responses with a word
        (numbers(0.5), numbers(0.2), 0.02),  # nobody else
        (numbers(0.5, 0.0, 0.0), numbers(0.2, 0.0, 0.0), 0.02),  # they saw nothing to begin with
        (numbers(0.0, 0.5, 0.3), numbers(0.0, 0.5, 0.3), 0.02),
        (numbers(0.2, 0.2, 0.3), numbers(0.5, 0.2, 0.3), 0.02),  # the reward rose
    ],
)
def test_no_warning(before, after, width):
    assert warning(before, after, width) is None


def test_intervals_that_are_not_known_warn_of_nothing():
    before, after = numbers(0.5, 0.5), numbers(0.2, 0.5)
    unknown = {key: {**one, "ci95": [None, None]} for key, one in changes(before, after).items()}
    assert scorer_agreement(before, after, unknown)["warning"] is None


def test_models_are_compared_with_what_their_change_is_against():
    before, after = numbers(0.5, 0.5, 0.3), numbers(0.2, 0.45, 0.12)
    models = [
        {"name": "base", "sets": {"in_distribution": before}},
        {"name": "run", "sets": {"in_distribution": {**after, "change": changes(before, after)}}},
    ]
    entry = models_agreement(models, api.compose_settings(["task=gptj_continuation"]))
    (run,) = entry["models"]
    assert run["model"] == "run"
    assert run["fall"]["judge_toxicity"] == pytest.approx(0.1)
    assert "by the judge only by 10%" in run["warning"]


def test_who_learned_from_what():
    embedded = training_of(api.compose_settings(["task=gptj_continuation"]))
    assert embedded["shared"] == "corpora"
    assert "parts of the same corpora (embedded:labelled)" in embedded["sentence"]
    assert "sketch" not in embedded["reward"][0]
    others = training_of(
        api.compose_settings(["task=gptj_continuation", "judge=local", "judge.path=someone/bert"])
    )
    assert others["judge"] == ["unknown"]
    assert others["sentence"].endswith("whether they share training data is unknown.")
    assert training_of(api.compose_settings(["task=gptj_continuation", "judge=none"])) == {}
    own = api.compose_settings(
        ["task=gptj_continuation", "reward.path=null", "reward.function=a.py:f"]
    )
    assert training_of(own)["shared"] == "self"
    for entry in (embedded, others):
        assert "independent" not in entry["sentence"]
