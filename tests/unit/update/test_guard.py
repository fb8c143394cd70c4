"""Each sign of collapse is seen on its own, and health is not taken for one."""

import math

import pytest

from lora_detox.update import CollapseGuard, CollapseLimits

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
