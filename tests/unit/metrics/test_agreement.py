"""Agreement of two scorers against scipy, and copies from the prompt by hand."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from lora_detox.metrics import names
from lora_detox.metrics.agreement import (
    paired_correlation_interval,
    rank_correlation,
    with_agreement,
)
from lora_detox.metrics.diversity import copied
from lora_detox.metrics.measure import measure_responses
from lora_detox.metrics.summary import change, summarise


@pytest.mark.parametrize("seed", range(3))
def test_rank_correlation_is_scipys_also_with_ties(seed):
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 5, 40).astype(float)
    second = first + rng.normal(0, 2, 40).round()
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)


def test_rank_correlation_of_what_does_not_vary_is_not_known():
    assert math.isnan(rank_correlation([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]))
    assert math.isnan(rank_correlation([0.5], [0.1]))
    assert math.isnan(rank_correlation([], []))
    assert rank_correlation([0.1, 0.2, 0.9], [3, 2, 1]) == -1.0


@pytest.mark.parametrize("uneven", [False, True])
def test_the_interval_draws_prompts_as_a_slow_bootstrap_does(uneven):
    rng = np.random.default_rng(0)
    before = rng.random(24), rng.random(24)
    after = before[0], before[0] + rng.random(24)
    groups = np.repeat(np.arange(12), 2).tolist()
    if uneven:
        groups[0] = 11
    interval = paired_correlation_interval(before, after, groups=groups, resamples=200)
    rows = [np.flatnonzero(np.array(groups) == one) for one in range(12)]
    slow, rng = [], np.random.default_rng(0)
    for drawn in rng.integers(12, size=(200, 12)):
        picked = np.concatenate([rows[one] for one in drawn])
        first, last = (
            spearmanr(*(one[picked] for one in pair)).statistic for pair in (before, after)
        )
        slow.append(last - first)
    assert interval[1:] == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))
    expected = spearmanr(*after).statistic - spearmanr(*before).statistic
    assert interval.change == pytest.approx(expected)


def test_one_prompt_has_no_interval():
    pair = [0.1, 0.2, 0.4], [0.2, 0.1, 0.4]
    assert math.isnan(paired_correlation_interval(pair, pair, groups=[0, 0, 0]).low)


def measured(reward, judge):
    count = len(reward)
    evaluation = measure_responses(
        prompts=[f"prompt {n}" for n in range(count)],
        responses=[f"answer number {n}" for n in range(count)],
        references=[[] for _ in range(count)],
        toxicity=reward,
        judge_toxicity=judge,
        scores=[0.0] * count,
        response_tokens=[3] * count,
        reference_nll=None,
    )
    return with_agreement(evaluation)


def test_every_evaluation_has_agreement_and_gap():
    before = measured([0.1, 0.2, 0.3, 0.9], [0.2, 0.1, 0.5, 0.8])
    after = measured([0.1, 0.1, 0.2, 0.1], [0.2, 0.4, 0.5, 0.8])
    numbers = summarise(before)
    rho = spearmanr([0.1, 0.2, 0.3, 0.9], [0.2, 0.1, 0.5, 0.8]).statistic
    assert numbers[names.JUDGE_AGREEMENT] == pytest.approx(rho)
    assert numbers[names.JUDGE_GAP] == pytest.approx(0.4 - 0.375)
    changes = change(before, after, 100)
    assert changes[names.JUDGE_GAP]["mean"] == pytest.approx(0.35 - 0.025)
    low, high = changes[names.JUDGE_AGREEMENT]["ci95"]
    assert low <= changes[names.JUDGE_AGREEMENT]["mean"] <= high
    alone = summarise(measured([0.1, 0.2], None))
    assert not {names.JUDGE_AGREEMENT, names.JUDGE_GAP} & set(alone)


@pytest.mark.parametrize(
    ("prompt", "response", "fraction"),
    [
        ("The cat sat on the mat", "the CAT sat on a chair", 2 / 4),
        ("a b c", "a b c", 1.0),
        ("a b c", "c b a", 0.0),
        ("a b c", "a b", 0.0),  # no 3-gram
        ("", "a b c", 0.0),
        ("你好嗎我", "你好嗎他", 1 / 2),
    ],
)
def test_copies_from_the_prompt(prompt, response, fraction):
    assert copied(prompt, response) == pytest.approx(fraction)
