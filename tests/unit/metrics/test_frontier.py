"""Toxicity at equal quality: worked by hand, against a slow obvious version, and its intervals."""

import itertools
import math

import numpy as np
import pytest

from lora_detox.metrics.frontier import Point, point_levels, toxicity_at_quality

START = Point(knob=0, toxicity=[0.5] * 4, nll=[math.log(10)] * 4, tokens=[1.0] * 4)


def flat(knob, toxicity, perplexity):
    """Four responses alike, so that every draw of prompts gives the same levels."""
    nll = [math.log(perplexity)] * 4
    return Point(knob=knob, toxicity=[toxicity] * 4, nll=nll, tokens=[1.0] * 4)


def at(curve, allowed=0.05, start=START):
    return toxicity_at_quality({"m": [curve]}, start, allowed=allowed, against="m")["m"]


def test_between_two_points_toxicity_is_interpolated_to_the_bound():
    curve = [flat(0, 0.5, 10.0), flat(0.5, 0.3, 10.2), flat(1, 0.1, 11.0)]
    value = at(curve)  # 10.5 is 3/8 of the way from 10.2 to 11.0
    assert value.toxicity == pytest.approx((0.3 - 0.2 * 3 / 8,) * 3)
    assert value.inside == 1
    assert value.places == pytest.approx((1 + 3 / 8,))


def test_a_curve_that_ends_inside_takes_its_best_point_and_is_not_continued():
    value = at([flat(0, 0.5, 10.0), flat(1, 0.2, 10.1), flat(2, 0.3, 10.2)])
    assert (value.toxicity[0], value.places) == (0.2, (1.0,))
    value = at([flat(0, 0.5, 10.0), flat(1, 0.2, 10.1)])
    assert (value.toxicity[0], value.places) == (0.2, (1.0,))
    value = at([flat(1, 0.2, 10.1)])
    assert (value.toxicity[0], value.places) == (0.2, (0.0,))


def test_a_curve_that_is_wholly_outside_counts_as_the_start():
    value = at([flat(1, 0.1, 12.0), flat(2, 0.05, 20.0)])
    assert value.toxicity == pytest.approx((0.5,) * 3)
    assert (value.inside, value.places) == (0, (0.0,))


def test_a_point_on_the_bound_is_inside_and_one_that_comes_back_counts_again():
    assert at([flat(0, 0.4, 10.0)], allowed=0.0).inside == 1
    back = [flat(0, 0.5, 10.0), flat(1, 0.4, 11.0), flat(2, 0.2, 10.0)]
    assert at(back).toxicity[0] == pytest.approx(0.2)


def test_rouge_is_better_where_it_is_higher():
    def point(knob, toxicity, rouge):
        return Point(knob=knob, toxicity=[toxicity] * 4, rouge=[rouge, rouge, rouge, math.nan])

    start = point(0, 0.5, 0.4)
    curve = [start, point(1, 0.1, 0.2)]
    # 0.36 is a fifth of the way from 0.4 to 0.2
    assert at(curve, allowed=0.1, start=start).toxicity[0] == pytest.approx(0.42)


def keeping(point, **kept):
    return Point(**{**vars(point), "kept": {name: [value] * 4 for name, value in kept.items()}})


def test_what_is_kept_is_a_bound_beside_the_quality():
    start = keeping(START, relevance=0.2, words=10.0)
    # relevance stands at 95 % a quarter of the way, words at 90 % half way, perplexity never
    curve = [start, keeping(flat(1, 0.1, 10.0), relevance=0.16, words=8.0)]

    def at_kept(**kept):
        both = {"m": [curve]}
        value = toxicity_at_quality(both, start, allowed=0.05, against="m", kept=kept)
        return value["m"].toxicity[0]

    assert at_kept() == pytest.approx(0.1)
    assert at_kept(words=0.9) == pytest.approx(0.3)
    assert at_kept(words=0.9, relevance=0.95) == pytest.approx(0.4)


def test_the_inside_of_a_segment_counts_where_neither_of_its_ends_is_inside():
    start = keeping(START, relevance=0.2)
    outside = [
        keeping(flat(0.5, 0.4, 11.0), relevance=0.2),  # too perplexing until half way
        keeping(flat(1, 0.0, 10.0), relevance=0.16),  # and irrelevant from three quarters on
    ]
    measure = {"allowed": 0.05, "against": "m", "kept": {"relevance": 0.85}}
    value = toxicity_at_quality({"m": [outside]}, start, **measure)["m"]
    assert value.toxicity[0] == pytest.approx(0.1)
    assert value.inside == 1
    measure["kept"] = {"relevance": 0.95}  # from a quarter on: the two never hold at once
    value = toxicity_at_quality({"m": [outside]}, start, **measure)["m"]
    assert (value.toxicity[0], value.inside) == (0.5, 0)


def test_responses_without_the_kept_measure_do_not_count_in_its_mean():
    start = keeping(START, relevance=0.2)
    point = Point(**{**vars(flat(1, 0.1, 10.0)), "kept": {"relevance": [0.2, 0.2, 0.2, math.nan]}})
    measure = {"allowed": 0.05, "against": "m", "kept": {"relevance": 1.0}}
    value = toxicity_at_quality({"m": [[start, point]]}, start, **measure, resamples=10)["m"]
    assert value.toxicity[0] == pytest.approx(0.1)


@pytest.mark.parametrize("lacking", ["start", "m at 1"])
def test_a_kept_measure_that_was_not_taken_is_an_error(lacking):
    start = START if lacking == "start" else keeping(START, relevance=0.2)
    curve = [flat(1, 0.1, 10.0)]
    with pytest.raises(ValueError, match=f"{lacking} has no relevance"):
        toxicity_at_quality(
            {"m": [curve]}, start, allowed=0.05, against="m", kept={"relevance": 1.0}
        )


def noisy(knob, toxicity, perplexity, seed, prompts=60):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 20, prompts).astype(float)
    nll = tokens * (math.log(perplexity) + 0.1 * rng.standard_normal(prompts))
    return Point(
        knob=knob,
        toxicity=np.clip(toxicity + 0.1 * rng.standard_normal(prompts), 0, 1).tolist(),
        nll=nll.tolist(),
        tokens=tokens.tolist(),
    )


def slow_value(curve, start, allowed, rows):
    """The least toxicity inside by walking along the curve in small steps."""

    def level(point):
        tokens = np.asarray(point.tokens)[rows].sum()
        perplexity = math.exp(np.asarray(point.nll)[rows].sum() / tokens)
        return perplexity, np.asarray(point.toxicity)[rows].mean()

    limit, levels = level(start)[0] * (1 + allowed), [level(point) for point in curve]
    walked = [levels[-1]]
    for (x, y), (u, v) in itertools.pairwise(levels):
        walked += [(x + w * (u - x), y + w * (v - y)) for w in np.linspace(0, 1, 20001)]
    inside = [toxicity for perplexity, toxicity in walked if perplexity <= limit]
    return min(inside, default=level(start)[1])


def test_value_and_draws_are_those_of_a_slow_walk_along_the_curve():
    start = noisy(0, 0.5, 10.0, 0)
    curve = [start, noisy(0.5, 0.35, 10.3, 1), noisy(1, 0.2, 11.5, 2)]
    fast = toxicity_at_quality(
        {"m": [curve]}, start, allowed=0.05, against="m", resamples=200, seed=3
    )
    assert fast["m"].toxicity.value == pytest.approx(
        slow_value(curve, start, 0.05, np.arange(60)), abs=1e-4
    )
    counts = np.random.default_rng(3).multinomial(60, np.full(60, 1 / 60), size=200)
    drawn = [slow_value(curve, start, 0.05, np.repeat(np.arange(60), one)) for one in counts[:40]]
    assert fast["m"].toxicity.low <= np.median(drawn) <= fast["m"].toxicity.high
    few = toxicity_at_quality(
        {"m": [curve]}, start, allowed=0.05, against="m", resamples=40, seed=3
    )["m"].toxicity
    counts = np.random.default_rng(3).multinomial(60, np.full(60, 1 / 60), size=40)
    drawn = [slow_value(curve, start, 0.05, np.repeat(np.arange(60), one)) for one in counts]
    assert (few.low, few.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-3)


def test_the_same_prompts_make_the_difference_surer_than_the_levels():
    start = noisy(0, 0.5, 10.0, 0)
    better = [start, noisy(1, 0.3, 10.2, 1)]
    higher = [one + 0.05 for one in better[1].toxicity]
    shifted = [start, Point(**{**vars(better[1]), "toxicity": higher})]
    both = toxicity_at_quality({"a": [better], "b": [shifted]}, start, allowed=0.05, against="a")
    assert both["a"].difference == (0, 0, 0)
    assert both["b"].difference == pytest.approx((0.05,) * 3)
    assert both["b"].toxicity.high - both["b"].toxicity.low > 0.02


def test_seeds_that_differ_widen_the_interval():
    start = noisy(0, 0.5, 10.0, 0)
    seeds = [[noisy(1, level, 10.0, 1)] for level in (0.1, 0.2, 0.3)]
    one = at(seeds[1], start=start).toxicity
    all_of_them = toxicity_at_quality({"m": seeds}, start, allowed=0.05, against="m")["m"].toxicity
    values = [np.mean(curve[0].toxicity) for curve in seeds]
    assert all_of_them.value == pytest.approx(np.mean(values))
    assert all_of_them.high - all_of_them.low > 2 * (one.high - one.low)


def test_responses_of_a_prompt_are_drawn_together():
    point = Point(knob=0, toxicity=[0.0, 0.0, 1.0, 1.0] * 10, rouge=[0.1] * 40)
    alone = point_levels(point)[0]
    together = point_levels(point, groups=[n // 2 for n in range(40)])[0]
    assert alone.value == together.value == 0.5
    assert together.high - together.low > 1.2 * (alone.high - alone.low)


def test_levels_of_a_point_are_the_plain_ones():
    point = Point(knob=1, toxicity=[0.1, 0.3], nll=[2.0, 4.0], tokens=[2.0, 1.0])
    toxicity, perplexity = point_levels(point)
    assert toxicity.value == pytest.approx(0.2)
    assert perplexity.value == pytest.approx(math.exp(2.0))
    assert perplexity.low == pytest.approx(math.e)
    assert perplexity.high == pytest.approx(math.exp(4.0))


@pytest.mark.parametrize(
    ("methods", "match"),
    [
        ({"a": [[START]]}, "against='b' is none of the methods a"),
        ({"b": []}, "b has no curve"),
        ({"b": [[]]}, "b has no curve, or one without points"),
        ({"b": [[Point(knob=2, toxicity=[0.1], nll=[1.0], tokens=[1.0])]]}, "b at 2 has 1 resp"),
        ({"b": [[Point(knob=2, toxicity=[0.1] * 4, rouge=[1.0] * 4)]]}, "the same measure"),
    ],
)
def test_what_cannot_be_compared_is_an_error(methods, match):
    with pytest.raises(ValueError, match=match):
        toxicity_at_quality(methods, START, allowed=0.05, against="b")
