"""Each sign of collapse is seen on its own, and health is not taken for one."""

import math

import pytest

from lora_detox.limits import CollapseLimits
from lora_detox.update import CollapseGuard

LIMITS = CollapseLimits(
    kl=40.0,
    ratio=2.0,
    entropy=0.1,
    entropy_rise=4.0,
    perplexity=3.0,
    length=0.25,
    distinct_2=0.35,
    repetition=0.3,
    reward_rise=1.0,
    judge_fall=0.1,
)
START = {
    "score": 1.0,
    "score_std": 2.0,
    "ref_kl_k3": 0.0,
    "ratio": 1.0,
    "entropy": 0.5,
    "perplexity": 10.0,
    "response_tokens": 20.0,
    "distinct_2": 0.6,
    "repetition": 0.1,
}


def begun(limits=LIMITS):
    guard = CollapseGuard(limits=limits, retries=2)
    assert guard.look(START) is None
    return guard


@pytest.mark.parametrize(
    ("sick", "healthy", "words"),
    [
        ({"ref_kl_k3": 41.0}, {"ref_kl_k3": 39.0}, "KL to the reference rose to 41"),
        ({"ratio": 2.1}, {"ratio": 1.9}, "probability ratio rose"),
        ({"ratio": 0.4}, {"ratio": 0.6}, "probability ratio fell"),
        ({"entropy": 0.04}, {"entropy": 0.06}, "entropy fell"),
        ({"entropy": 2.1}, {"entropy": 1.9}, "entropy rose"),
        ({"perplexity": 31.0}, {"perplexity": 29.0}, "perplexity rose to 31"),
        ({"response_tokens": 4.0}, {"response_tokens": 6.0}, "response length fell"),
        ({"distinct_2": 0.2}, {"distinct_2": 0.22}, "distinct-2 fell"),
        ({"repetition": 0.45}, {"repetition": 0.35}, "repetition rose"),
        ({"score": math.nan}, {"score": 99.0}, "score not finite"),
        ({"entropy": math.inf}, {}, "entropy not finite"),
    ],
)
def test_each_sign_is_seen_beyond_its_limit_and_not_before(sick, healthy, words):
    guard = begun()
    assert guard.look(START | healthy) is None
    assert words in guard.look(START | sick)
    if not any(map(math.isfinite, sick.values())):
        return
    assert begun(CollapseLimits()).look(START | sick) is None  # a limit of None watches nothing


def test_a_reward_that_rises_alone_is_seen():
    guard, risen = begun(), {"score": 4.0, "score_std": 2.0}
    assert "the judge's toxicity went from 0.500 to 0.480" in guard.look_judged(risen, 0.48, 0.5)
    assert guard.look_judged(risen, 0.44, 0.5) is None  # the judge follows
    assert guard.look_judged(risen | {"score": 2.0}, 0.5, 0.5) is None  # half a deviation
    assert guard.look_judged(risen, None, None) is None  # there is no judge
    assert guard.look_judged(risen, 0.0, 0.0) is None  # nothing that could fall


def test_each_way_back_halves_the_step_and_doubles_the_price_and_survives_a_checkpoint():
    guard = begun()
    guard.used = 2
    assert (guard.step_factor, guard.kl_factor) == (0.25, 4.0)
    copy = CollapseGuard(limits=LIMITS, retries=2)
    copy.restore(guard.state())
    assert copy == guard


@pytest.mark.parametrize("key", ["score", "ref_kl_k3", "ratio", "entropy", "response_tokens"])
def test_every_number_of_the_training_must_be_finite(key):
    guard = begun(CollapseLimits())
    assert guard.look(START | {key: math.nan}) == f"{key} not finite"
    assert guard.look({}) is None  # what is not there is not watched


def test_several_numbers_are_named_together():
    assert begun().look(START | {"score": math.nan, "ratio": math.inf}) == "score, ratio not finite"


@pytest.mark.parametrize(
    ("key", "limit"),
    [("ref_kl_k3", 40.0), ("ratio", 2.0), ("ratio", 0.5), ("entropy", 2.0), ("distinct_2", 0.21)],
)
def test_a_limit_itself_is_still_inside(key, limit):
    assert begun().look(START | {key: limit}) is None


def test_a_measure_that_is_not_there_hides_no_other():
    row = {key: value for key, value in START.items() if key not in ("ref_kl_k3", "entropy")}
    assert "repetition rose" in begun().look(row | {"repetition": 0.9})


def test_repetition_that_the_start_did_not_have_counts_from_nothing():
    guard = CollapseGuard(limits=CollapseLimits(repetition=0.3), retries=1)
    first = {key: value for key, value in START.items() if key != "repetition"}
    assert guard.look(first) is None
    assert guard.look(START | {"repetition": 0.29}) is None
    assert "repetition rose to 0.31 (limit 0.3)" in guard.look(START | {"repetition": 0.31})


def test_the_judge_is_asked_from_the_limit_on_and_only_where_all_is_known():
    guard = begun(CollapseLimits(reward_rise=1.0, judge_fall=0.5))
    at_limit = {"score": 3.0, "score_std": 2.0}  # risen by one deviation
    assert guard.look_judged(at_limit, 0.375, 0.5) is not None
    assert guard.look_judged(at_limit, 0.25, 0.5) is None  # fallen by just as much as it must
    assert guard.look_judged({"score": 1.9, "score_std": 0.5}, 0.5, 0.5) is not None
    assert guard.look_judged(at_limit, None, 0.5) is None
    assert guard.look_judged(at_limit, 0.5, None) is None
    assert begun(CollapseLimits()).look_judged(at_limit, 0.5, 0.5) is None
    assert begun(CollapseLimits()).look_judged(at_limit, None, 0.5) is None
    fresh = CollapseGuard(limits=LIMITS, retries=1)
    assert fresh.look_judged(at_limit, 0.5, 0.5) is None  # there is no first iteration yet


def test_the_factor_on_the_kl_coefficient_doubles_with_each_rollback():
    assert [CollapseGuard(limits=LIMITS, retries=3, used=n).kl_factor for n in range(4)] == [
        1,
        2,
        4,
        8,
    ]
