import time

import numpy as np
import pytest

from lora_detox.metrics.bootstrap import (
    paired_distinct_interval,
    paired_interval,
    paired_perplexity_interval,
)
from lora_detox.metrics.diversity import distinct_n


def _pairs(shift, responses=200, seed=0):
    rng = np.random.default_rng(seed)
    before = rng.normal(size=responses) * 5
    return before.tolist(), (before + shift + rng.normal(size=responses) * 0.1).tolist()


def _texts(rng, responses, words):
    return [" ".join(map(str, rng.integers(0, words, 20))) for _ in range(responses)]


def test_known_difference_is_inside_and_zero_is_not():
    interval = paired_interval(*_pairs(0.3))
    assert interval.low < 0.3 < interval.high
    assert interval.low > 0
    assert interval.low < interval.change < interval.high


def test_no_difference_holds_zero():
    low_high = [paired_interval(*_pairs(0.0, seed=seed))[1:] for seed in range(20)]
    assert sum(low <= 0 <= high for low, high in low_high) >= 17


def test_pairing_matters():
    before, after = _pairs(0.3)
    rng = np.random.default_rng(1)
    paired = paired_interval(before, after)
    broken = paired_interval(before, rng.permutation(after).tolist())
    assert paired.high - paired.low < 0.1 * (broken.high - broken.low)


def test_same_arguments_same_interval():
    assert paired_interval(*_pairs(0.1)) == paired_interval(*_pairs(0.1))
    assert paired_interval(*_pairs(0.1)) != paired_interval(*_pairs(0.1), seed=1)


def test_degenerate_differences():
    assert paired_interval([0.1, 0.2], [0.1, 0.2]) == (0.0, 0.0, 0.0)
    constant = paired_interval([0.1, 0.2, 0.3], [0.2, 0.3, 0.4])
    assert constant == pytest.approx((0.1, 0.1, 0.1))
    assert np.isnan(paired_interval([1.0], [2.0])[1:]).all()
    assert np.isnan(paired_interval([], [])).all()


def test_pairs_that_are_not_numbers_are_left_out():
    nan = float("nan")
    assert paired_interval([1.0, 2.0, nan, 3.0], [2.0, 4.0, 9.0, nan]).change == 1.5


def test_lengths_must_match():
    with pytest.raises(ValueError, match="same prompts"):
        paired_interval([1.0], [1.0, 2.0])


def test_responses_to_one_prompt_are_not_independent():
    before, after = _pairs(0.0, responses=40)
    copies = 10
    groups = [row for row in range(40) for _ in range(copies)]
    repeated = [np.repeat(values, copies).tolist() for values in (before, after)]
    honest = paired_interval(*repeated, groups=groups)
    naive = paired_interval(*repeated)
    single = paired_interval(before, after)
    assert honest.high - honest.low == pytest.approx(single.high - single.low, rel=1e-6)
    assert naive.high - naive.low < 0.5 * (honest.high - honest.low)


def test_perplexity_interval_against_a_slow_bootstrap():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 30, 80).astype(float)
    before = tokens * rng.uniform(1.5, 2.5, 80)
    after = before * 1.1
    pairs = [(nll.tolist(), tokens.tolist()) for nll in (before, after)]
    interval = paired_perplexity_interval(*pairs)
    slow = []
    for _ in range(1000):
        rows = rng.integers(0, 80, 80)
        total = tokens[rows].sum()
        slow.append(np.exp(after[rows].sum() / total) - np.exp(before[rows].sum() / total))
    width = np.subtract(*np.quantile(slow, [0.975, 0.025]))
    assert interval.high - interval.low == pytest.approx(width, rel=0.2)
    assert 0 < interval.low < interval.change < interval.high


def test_perplexity_without_tokens_has_no_interval():
    nothing = ([0.0, 0.0], [0.0, 0.0])
    assert np.isnan(paired_perplexity_interval(nothing, nothing)).all()


def test_distinct_interval_covers_the_true_change():
    rng = np.random.default_rng(0)
    draw = [(_texts(rng, 40, 60), _texts(rng, 40, 25)) for _ in range(60)]
    truth = np.mean([distinct_n(after, 2) - distinct_n(before, 2) for before, after in draw])
    intervals = [paired_distinct_interval(before, after, 2) for before, after in draw]
    covered = sum(interval.low <= truth <= interval.high for interval in intervals)
    assert covered >= 54
    assert all(interval.high < 0 for interval in intervals)


def test_distinct_interval_by_leaving_out():
    before, after = ["a b", "a c", "d d"], ["a b", "a b", "d e"]
    interval = paired_distinct_interval(before, after, 1)
    left_out = [
        distinct_n(after[:row] + after[row + 1 :], 1)
        - distinct_n(before[:row] + before[row + 1 :], 1)
        for row in range(3)
    ]
    error = np.sqrt(2 / 3 * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    assert interval.change == pytest.approx(distinct_n(after, 1) - distinct_n(before, 1))
    assert interval.high - interval.change == pytest.approx(4.302653 * error, rel=1e-5)
    assert np.isnan(paired_distinct_interval(["a"], ["b"], 2)).all()


def test_fast_enough_for_every_evaluation():
    rng = np.random.default_rng(0)
    before, after = _texts(rng, 300, 200), _texts(rng, 300, 150)
    values = rng.random(300).tolist(), rng.random(300).tolist()
    begin = time.perf_counter()
    for n in (1, 2, 3):
        paired_distinct_interval(before, after, n)
    paired_perplexity_interval(values, values)
    paired_interval(*values)
    assert time.perf_counter() - begin < 2.0
