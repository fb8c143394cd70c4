import math

import pytest

from lora_detox.errors import ScorerError
from lora_detox.metrics.measure import measure_responses
from lora_detox.metrics.names import METRICS, Better
from lora_detox.metrics.summary import change, summarise
from lora_detox.types import Evaluation

PROMPTS = [f"prompt {number}" for number in range(6)]


def _measured(**changes):
    arguments = {
        "prompts": PROMPTS,
        "responses": ["you are a fool", "thank you", "", "a a a a a", "fine then", "so it is"],
        "references": [[] for _ in PROMPTS],
        "toxicity": [0.9, 0.1, 0.2, 0.3, 0.1, 0.2],
        "judge_toxicity": None,
        "scores": [-2.0, 1.0, 0.0, 0.5, 1.0, 0.5],
        "response_tokens": [5, 3, 1, 6, 3, 4],
        "reference_nll": None,
    }
    return measure_responses(**{**arguments, **changes})


def test_plain_continuation_has_no_reference_metrics():
    summary = summarise(_measured())
    assert set(summary) == {
        "toxicity", "distinct_1", "distinct_2", "distinct_3",
        "response_tokens", "response_words", "repetition", "empty", "symbols",
        "common_openings", "self_bleu",
    }  # fmt: skip
    assert summary["toxicity"] == {
        "mean": pytest.approx(0.3), "std": pytest.approx(0.2769, abs=1e-4), "n": 6,
    }  # fmt: skip
    assert summary["empty"] == pytest.approx(1 / 6)
    assert summary["response_tokens"] == pytest.approx(22 / 6)
    assert summary["repetition"] == pytest.approx((2 / 3) / 6)


def test_everything_that_applies_is_there():
    summary = summarise(
        _measured(
            references=[["thank you"]] * 6, judge_toxicity=[0.5] * 6, reference_nll=[10.0] * 6
        )
    )
    assert set(summary) == set(summarise(_measured())) | {
        "judge_toxicity", "rouge1", "rouge2", "rougeL", "rougeLsum", "perplexity",
    }  # fmt: skip
    assert summary["judge_toxicity"] == {"mean": 0.5, "std": 0.0, "n": 6}
    assert summary["perplexity"] == pytest.approx(math.exp(60 / 22))


def test_rouge_is_over_the_rows_that_have_references():
    references = [[], ["thank you"], [], [], [], []]
    assert summarise(_measured(references=references))["rouge1"] == 1.0


def test_change_for_every_metric_of_both():
    before = _measured(reference_nll=[10.0] * 6)
    after = _measured(
        toxicity=[0.1] * 6,
        judge_toxicity=[0.1] * 6,
        reference_nll=[11.0, 9.0, 12.0, 13.0, 12.0, 11.0],
    )
    moved = change(before, after)
    assert set(moved) == set(summarise(before))
    assert moved["toxicity"]["mean"] == pytest.approx(-0.2)
    low, high = moved["toxicity"]["ci95"]
    assert low < -0.2 < high
    assert moved["distinct_2"] == {"mean": 0.0, "ci95": [0.0, 0.0]}
    assert moved["perplexity"]["mean"] == pytest.approx(math.exp(68 / 22) - math.exp(60 / 22))


def test_change_needs_the_same_prompts():
    with pytest.raises(ValueError, match="same prompts"):
        change(_measured(), _measured(prompts=PROMPTS[::-1]))


def test_one_prompt_many_times_still_has_an_interval():
    before = _measured(prompts=["p"] * 6)
    after = _measured(prompts=["p"] * 6, toxicity=[0.0, 0.2, 0.1, 0.1, 0.0, 0.1])
    assert not any(map(math.isnan, change(before, after)["toxicity"]["ci95"]))


def test_unscored_response_is_an_error_and_columns_must_fit():
    with pytest.raises(ScorerError, match="toxicity is not finite for 6 responses"):
        _measured(toxicity=[math.nan] * 6)
    with pytest.raises(ValueError, match="score has 2 rows for 6"):
        _measured(scores=[1.0, 2.0])


def test_names_know_their_direction():
    assert METRICS["toxicity"].better == Better.LOWER
    assert METRICS["rougeL"].better == Better.HIGHER
    assert METRICS["response_tokens"].better == Better.NEITHER
    assert all(key == metric.key for key, metric in METRICS.items())


def test_numbers_that_json_turned_into_null_are_missing_again():
    before, after = _measured(), _measured()
    stored = {**before.per_response, "rouge1": [None, 0.5, 0.5, None, 0.2, 0.1]}
    before = Evaluation(
        prompts=PROMPTS, responses=before.responses, references=[], per_response=stored
    )
    rouge = {**after.per_response, "rouge1": [math.nan, 0.6, 0.6, math.nan, 0.4, 0.2]}
    after = Evaluation(
        prompts=PROMPTS, responses=after.responses, references=[], per_response=rouge
    )
    assert change(before, after)["rouge1"]["mean"] == pytest.approx(0.125)
