"""Rewards that know nothing of tone, each one override that whole runs take."""

import json
import statistics

import pytest

from lora_detox.api import compose_settings
from lora_detox.builders.controls import length_correction
from lora_detox.scores import FunctionScorer, check_scorer
from lora_detox.scores.control_rewards import constant, noise, words
from tests.runs import ONE_RUN

TEXTS = ["stupid", "you are kind", "", "北京", "a b\nc"]


@pytest.mark.parametrize("reward", [constant, words, noise])
def test_a_control_is_a_scorer_whose_toxicity_is_that_of_the_classifier(reward, word_scorer):
    classifier = word_scorer()
    scorer = FunctionScorer(reward, classifier)
    check_scorer(scorer)
    prompts = [""] * len(TEXTS)
    toxicity = classifier.score(prompts, TEXTS).toxicity.tolist()
    assert len(set(toxicity)) > 1
    assert scorer.score(prompts, TEXTS).toxicity.tolist() == toxicity


def test_what_each_control_pays():
    prompts = [""] * len(TEXTS)
    assert constant(prompts, TEXTS) == [0.0] * len(TEXTS)
    assert words(prompts, TEXTS) == [1.0, 3.0, 0.0, 2.0, 3.0]
    texts = [f"text {number}" for number in range(2000)]
    drawn = noise(texts, texts)
    assert drawn == noise([""] * len(texts), texts)
    assert abs(statistics.mean(drawn)) < 0.1
    assert statistics.stdev(drawn) == pytest.approx(1.0, abs=0.1)
    assert noise([""], ["\ud83d"]) == noise([""], ["\ud83d"])  # half a character, cut by tokens


@pytest.mark.parametrize(
    ("overrides", "corrected"),
    [
        (["task=gptj_continuation"], True),
        (["task=gptj_continuation", "reward=length"], False),
        (["task=gptj_continuation", "reward=constant"], True),
        (["task=gptj_continuation", "reward.length_debias=false"], False),
        (["task=gptj_continuation_real"], True),
        (["task=flan_summary"], False),
        (["task=flan_summary", "reward.length_debias=true"], True),
    ],
)
def test_the_length_control_is_not_freed_of_length(overrides, corrected):
    assert length_correction(compose_settings(overrides)).enabled is corrected


def test_a_control_stands_in_for_the_reward_whose_path_was_given_before():
    given = ["reward=local", "reward.path=hub/classifier", "reward.label=kind", "reward=noise"]
    settings = compose_settings(given)
    assert (settings.reward.path, settings.reward.label) == ("hub/classifier", "kind")
    assert settings.reward.function.endswith(":noise")


def _run(finished_run, reward):
    folder = finished_run("task=gptj_continuation", f"reward={reward}", *ONE_RUN)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["before"]["toxicity"]["mean"] > 0
    return summary, [row for row in rows if "score" in row]


@pytest.mark.training
def test_a_run_on_a_constant_reward_is_not_refused_and_stays_near_its_start(finished_run):
    summary, rows = _run(finished_run, "constant")
    assert all(row["score"] == 0 for row in rows)
    assert rows[0]["policy_loss"] == 0  # later ones learn from rounding alone
    assert abs(summary["ref_kl"]) < 0.05


@pytest.mark.training
def test_a_run_on_length_is_paid_its_words_and_moves(finished_run):
    summary, rows = _run(finished_run, "length")
    assert all(1 < row["score"] < row["response_tokens"] for row in rows)
    assert summary["ref_kl"] > 0


@pytest.mark.training
def test_a_run_on_noise_moves(finished_run):
    summary, rows = _run(finished_run, "noise")
    assert len({row["score"] for row in rows}) == len(rows)
    assert summary["ref_kl"] != 0
