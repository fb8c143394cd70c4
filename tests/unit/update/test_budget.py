"""Bounds, the multipliers that hold them, and what each of these gives a token."""

import math

import pytest
import torch

from lora_detox.update import Bound, Budget, Constraint, PenaltyTerm
from tests.unit.advantages.test_advantages import mask_of, rollout_of

LENGTH = Bound(measure="response_tokens", above=False)
PERPLEXITY = Bound(measure="perplexity", above=True, allowed=0.05)
ROUGE = Bound(measure="rougeL", above=False)
KL = Bound(measure="ref_kl", above=True, limit_at=10.0)
AT_21 = Bound(measure="perplexity", above=True, limit_at=21.0)
MASK = mask_of(4, 2, 5)


def held_length(**changes):
    return Constraint(bound=LENGTH, term=PenaltyTerm.WORD, gain=0.5, **changes)


def test_excess_by_hand():
    assert PERPLEXITY.limit(20.0) == pytest.approx(21.0)
    assert PERPLEXITY.excess(23.1, 20.0) == pytest.approx(0.1)
    assert PERPLEXITY.excess(20.0, 20.0) < 0
    diversity = Bound(measure="distinct_2", above=False, allowed=0.2)
    assert diversity.excess(0.3, 0.5) == pytest.approx(0.25)  # the limit is 0.4
    assert diversity.excess(0.45, 0.5) < 0
    assert KL.excess(15.0, 0.0) == pytest.approx(0.5)
    assert diversity.excess(0.0, 0.0) == 0.0  # a start of 0 leaves nothing to lose


def test_the_length_is_held_as_by_hand():
    control = held_length(start=20.0)
    budget = Budget([control], [])
    harmonic = sum(1 / t for t in range(1, 21))  # a response of 20 tokens earns the multiplier

    def bonus(token=0):
        return float(budget.token_bonus(rollout_of(MASK))[0, token])

    budget.observe({"response_tokens": 10.0})  # excess 0.5: pressure 0.25, multiplier 0.25 + 0.5
    assert control.pressure == pytest.approx(0.25)
    assert bonus() == pytest.approx(0.75 / harmonic)
    assert bonus(token=1) == pytest.approx(0.75 / harmonic / 2)
    budget.observe({"response_tokens": 20.0})  # on target: the proportional part is gone
    assert bonus() == pytest.approx(0.25 / harmonic)
    budget.observe({"response_tokens": 60.0})  # far too long: never less than nothing
    assert (bonus(), control.pressure) == (0.0, 0.0)


def test_a_measure_held_both_ways_is_pulled_back_from_too_far_inside():
    most = Bound(measure="response_tokens", above=True, allowed=0.0)
    control = held_length(start=20.0, most=most)
    for words, sign in ((40.0, -1), (20.0, -1), (10.0, 1)):
        control.observe(words)
        assert control.multiplier * sign > 0


def test_between_the_ends_of_a_band_the_pull_goes_back_to_nothing():
    """Gain 0.5, damping 2, a band of 20 to 30 tokens; worked by hand."""
    most = Bound(measure="response_tokens", above=True, allowed=0.5)
    control = held_length(start=20.0, most=most)
    for tokens, _excess, pressure, multiplier in (
        (25.0, 0.0, 0.0, 0.0),  # inside from the start: nothing to undo
        (60.0, -1.0, -0.5, -1.5),  # twice the most
        (27.0, 0.1, -0.45, -0.35),  # inside: a tenth of the way to the most
        (21.0, 0.3, -0.3, 0.0),  # the pull ends at nothing, it does not turn round
        (10.0, 0.5, -0.05, 0.45),  # half of the least
        (5.0, 0.75, 0.325, 1.075),
        (26.0, -0.3, 0.175, 0.0),
        (29.0, -0.45, 0.0, 0.0),
    ):
        control.observe(tokens)
        assert control.pressure == pytest.approx(pressure), tokens
        assert control.multiplier == pytest.approx(multiplier), tokens


def test_only_tokens_that_begin_a_word_are_paid_the_wth_one_by_w():
    control = held_length(start=3.0, multiplier=1.1)  # 1 + 1/2 + 1/3 = 11/6
    rollout = rollout_of(MASK)
    begins = torch.zeros_like(MASK)
    begins[0, 1] = begins[0, 3] = True
    bonus = Budget([control], []).token_bonus(rollout, begins=begins & MASK)
    assert bonus[0].tolist() == pytest.approx([0.0, 0.6, 0.0, 0.3, 0.0])
    assert not bonus[1:].any()


def test_a_policy_that_shrinks_under_the_score_is_held():
    """A toy response length that falls by 1 an iteration and rises with its bonus."""
    control, free, held = held_length(start=20.0), 20.0, 20.0
    for _ in range(60):
        free = max(1.0, free - 1.0)
        held = max(1.0, held - 1.0 + 40 * control.multiplier / control.limit())
        control.observe(held)
    assert free == 1.0
    assert held == pytest.approx(20.0, rel=0.05)


def test_a_toy_policy_that_trades_quality_for_reward_ends_at_its_bound():
    """Its log-perplexity climbs with the reward and sinks with the multiplier."""
    one = Constraint(
        bound=PERPLEXITY, term=PenaltyTerm.REFERENCE, gain=1.0, damping=10.0, smoothing=0.3
    )
    drift = 0.0
    one.observe(math.exp(3.0))
    for _ in range(300):
        drift = max(0.0, drift + 0.02 - 0.02 * one.multiplier)
        one.observe(math.exp(3.0 + drift))
    assert one.multiplier == pytest.approx(1.0, abs=0.1)
    assert math.exp(drift) == pytest.approx(1.05, abs=0.01)


def test_a_paired_evaluation_corrects_the_noise_of_rollouts():
    one = Constraint(bound=PERPLEXITY, term=PenaltyTerm.REFERENCE, gain=5.0, smoothing=0.5)
    one.observe(20.0)
    one.observe(30.0)  # the running level is 25
    assert one.excess() == pytest.approx(25 / 21 - 1)
    one.correct(18.0, 20.0)  # on the same prompts it fell by a tenth: halfway from 25 to 18
    assert one.excess() == pytest.approx(21.5 / 21 - 1)
    copy = Constraint(bound=PERPLEXITY, term=PenaltyTerm.REFERENCE, gain=5.0, smoothing=0.5)
    Budget([copy], []).restore(Budget([one], []).state())
    assert copy == one


def test_rollouts_of_the_start_say_what_the_start_is():
    one = Constraint(bound=PERPLEXITY, term=PenaltyTerm.REFERENCE, gain=5.0, smoothing=0.5)
    given = Constraint(bound=LENGTH, term=PenaltyTerm.WORD, gain=5.0, start=12.0)
    budget = Budget([one, given], [])
    budget.begin([{"perplexity": 18.0, "response_tokens": 9.0}, {"perplexity": 22.0}])
    assert one.start == one.level == 20.0
    assert given.start == 12.0  # known before
    budget.observe({"perplexity": 30.0})
    assert one.excess() == pytest.approx(25 / 21 - 1)


def bonus_of(term, start, *, bound=PERPLEXITY, multiplier=2.0, quality=None):
    rollout = rollout_of(MASK)
    one = Constraint(bound=bound, term=term, gain=1.0, start=start, multiplier=multiplier)
    return rollout, Budget([one], []).token_bonus(rollout, quality)


def test_what_the_reference_finds_likely_is_paid_in_proportion():
    rollout, bonus = bonus_of(PenaltyTerm.REFERENCE, start=math.exp(1.5))
    mean_length = 11 / 3
    slow = 2.0 * (rollout.ref_logprobs + 1.5) / mean_length
    torch.testing.assert_close(bonus, slow * MASK)


def test_surprise_is_paid_and_sums_to_nothing_over_the_batch():
    rollout, bonus = bonus_of(PenaltyTerm.SURPRISE, start=0.5)
    assert float(bonus.sum()) == pytest.approx(0.0, abs=1e-5)
    likely, unlikely = (rollout.logprobs[MASK].argmax(), rollout.logprobs[MASK].argmin())
    assert bonus[MASK][likely] < 0 < bonus[MASK][unlikely]


def test_quality_is_paid_at_the_end_of_each_response():
    _, bonus = bonus_of(
        PenaltyTerm.QUALITY,
        start=0.5,
        bound=ROUGE,
        quality={"rougeL": torch.tensor([0.5, 1.0, 0.0])},
    )
    expected = torch.zeros(MASK.shape)
    expected[1, 1], expected[2, 4] = 2.0, -2.0
    torch.testing.assert_close(bonus, expected)


def test_each_constraint_on_quality_is_paid_by_its_own_measure():
    relevance = Bound(measure="relevance", above=False, allowed=0.05)
    measured = {"rougeL": torch.tensor([0.5, 1.0, 0.0]), "relevance": torch.tensor([0.4, 0.1, 0.2])}
    options = {"term": PenaltyTerm.QUALITY, "gain": 1.0}
    first = Constraint(bound=ROUGE, start=0.5, multiplier=2.0, **options)
    second = Constraint(bound=relevance, start=0.2, multiplier=3.0, **options)
    bonus = Budget([first, second], []).token_bonus(rollout_of(MASK), measured)
    assert bonus[0, 3] == pytest.approx(3.0)  # 3 * (0.4 / 0.2 - 1)
    assert bonus[1, 1] == pytest.approx(2.0 - 1.5)
    assert bonus[2, 4] == pytest.approx(-2.0)
    assert bonus.count_nonzero() == 3


@pytest.mark.parametrize("start", [0.0, -0.2])
def test_a_start_without_relevance_binds_nothing(start):
    relevance = Bound(measure="relevance", above=False, allowed=0.05)
    one = Constraint(bound=relevance, term=PenaltyTerm.QUALITY, gain=1.0, start=start, level=start)
    one.observe(-0.9)
    one.correct(-0.9, start)
    assert (one.excess(), one.multiplier) == (0.0, 0.0)
    assert one.level == pytest.approx(-0.9)
    one.multiplier = 2.0
    assert not Budget([one], []).token_bonus(rollout_of(MASK), {"relevance": torch.ones(3)}).any()
    assert Budget([], [relevance]).excess({"relevance": -0.9}, {"relevance": start}) == {
        "relevance": 0.0
    }


DIGITS = Bound(measure="symbols", above=True, plus=0.005, whole=0.01)


def test_an_absolute_allowance_has_a_scale_also_at_a_start_of_nothing():
    assert DIGITS.limit(0.02) == pytest.approx(0.025)
    assert DIGITS.excess(0.05, 0.02) == pytest.approx(1.0)  # twice the limit of 0.025
    assert DIGITS.excess(0.0, 0.0) == pytest.approx(-0.5)
    assert DIGITS.excess(0.005, 0.0) == 0.0
    assert DIGITS.excess(0.01, 0.0) == pytest.approx(0.5)  # of 0.01, not of the limit
    strict = Bound(measure="symbols", above=True, plus=0.0, whole=0.01)
    assert strict.excess(0.001, 0.0) == pytest.approx(0.1)
    least = Bound(measure="share", above=False, plus=0.1, whole=0.2)
    assert least.excess(0.0, 0.2) == pytest.approx(0.5)
    assert least.better_by(torch.tensor([0.4]), 0.2).tolist() == pytest.approx([1.0])


@pytest.mark.parametrize(("start", "expected"), [(0.0, -4.0), (0.015, -1.25)])
def test_digits_and_markup_cost_more_than_the_start_had(start, expected):
    one = Constraint(
        bound=DIGITS, term=PenaltyTerm.QUALITY, gain=1.0, start=start, level=start, multiplier=1.0
    )
    measured = {"symbols": torch.tensor([0.04, start, 0.0])}
    bonus = Budget([one], []).token_bonus(rollout_of(MASK), measured)
    assert bonus[0, 3] == pytest.approx(expected)
    assert bonus[1, 1] == 0.0
    assert float(bonus[2, 4]) == pytest.approx(start / 0.02)
    one.observe(start + 0.025)
    assert one.multiplier > 0
    one.level = 0.1
    one.correct(0.06, 0.05)  # a point more on validation prompts: halfway to start + 0.01
    assert one.level == pytest.approx((0.1 + start + 0.01) / 2)
    assert Budget([one], []).unbound() == {}


def test_a_toy_policy_that_flees_into_digits_ends_at_its_bound():
    """Its digits rise with the score and sink with what a response of them costs."""
    default = {"gain": 0.1, "damping": 25.0, "smoothing": 0.3}
    one = Constraint(bound=DIGITS, term=PenaltyTerm.QUALITY, start=0.0, **default)
    budget, digits = Budget([one], []), 0.0
    for _ in range(300):
        paid = budget.token_bonus(rollout_of(MASK), {"symbols": torch.full((3,), 0.05)})[0, 3]
        digits = max(0.0, digits + 0.001 + 0.001 * float(paid))
        one.observe(digits)
    assert digits == pytest.approx(0.005, abs=0.0005)
    assert one.multiplier == pytest.approx(0.2, abs=0.05)  # 5 * multiplier = the pull of the score


def test_what_does_not_start_above_nothing_is_named():
    relevance = Bound(measure="relevance", above=False, allowed=0.05)
    options = {"term": PenaltyTerm.QUALITY, "gain": 1.0}
    held = [Constraint(bound=one, start=0.0, **options) for one in (relevance, DIGITS, KL)]
    assert Budget(held, []).unbound() == {"relevance": 0.0}
    held[0].start = 0.1
    assert Budget(held, []).unbound() == {}


def test_the_bound_on_the_kl_raises_the_price_of_a_nat():
    one = Constraint(bound=KL, term=PenaltyTerm.KL, gain=5.0, start=0.0)
    budget = Budget([one], [KL])
    budget.observe({"ref_kl": 8.0})
    assert budget.added_kl_coef() == 0.0
    budget.observe({"ref_kl": 15.0})  # excess 0.5: (2.5 + 2 * 2.5) / 10
    assert budget.added_kl_coef() == pytest.approx(0.75)
    assert not budget.token_bonus(rollout_of(MASK)).any()
    assert budget.columns() == {"multiplier_ref_kl": 7.5, "slack_ref_kl": -0.5}


def test_a_result_is_held_to_what_was_measured_of_it():
    budget = Budget([], [PERPLEXITY, KL, LENGTH])
    start = {"perplexity": 20.0, "toxicity": 0.5}
    now = {"perplexity": 22.0, "ref_kl": 5.0}
    excess = budget.excess(now, start)
    assert excess == pytest.approx({"perplexity": 22 / 21 - 1, "ref_kl": -0.5})


def test_before_the_start_is_known_nothing_is_outside_and_nothing_is_corrected():
    for one in (held_length(), held_length(start=20.0), held_length(level=20.0)):
        before = Constraint(**vars(one))
        assert one.excess() == 0.0
        one.correct(18.0, 20.0)
        assert one == before
    known = held_length(start=20.0, level=10.0)
    known.correct(5.0, 0.0)  # a start of 0 says nothing of the change
    assert known.level == 10.0
    known.correct(0.25, 0.5)  # a share: halfway from 10 to 20 / 2
    assert known.level == 10.0
    known.correct(0.25, 1.0)
    assert known.level == pytest.approx(7.5)


@pytest.mark.parametrize(
    ("changes", "now", "start", "level"),
    [
        ({}, {"perplexity": 18.0}, {"perplexity": 20.0}, 21.5),  # halfway from 25 to 18
        ({"smoothing": 1.0}, {"perplexity": 18.0}, {"perplexity": 20.0}, 25.0),
        ({}, {"perplexity": 18.0}, {}, 25.0),
        ({}, {}, {"perplexity": 20.0}, 25.0),
        ({"bound": AT_21}, {"perplexity": 18.0}, {"perplexity": 20.0}, 25.0),
    ],
)
def test_a_budget_corrects_what_was_measured_twice_and_is_smoothed(changes, now, start, level):
    options = {"bound": PERPLEXITY, "smoothing": 0.5} | changes
    one = Constraint(term=PenaltyTerm.REFERENCE, gain=5.0, start=20.0, level=25.0, **options)
    Budget([one], []).correct(now, start)
    assert one.level == pytest.approx(level)


def test_a_response_of_less_than_a_word_counts_as_one():
    one = held_length(start=0.4, multiplier=1.0)
    bonus = Budget([one], []).token_bonus(rollout_of(MASK))
    assert bonus[0].tolist() == pytest.approx([1.0, 1 / 2, 1 / 3, 1 / 4, 0.0])


def test_surprise_is_paid_as_by_hand():
    rollout, bonus = bonus_of(PenaltyTerm.SURPRISE, start=0.5)
    mean, mean_length = rollout.logprobs[MASK].mean(), 11 / 3
    torch.testing.assert_close(bonus, -2.0 * (rollout.logprobs - mean) / mean_length * MASK)


def test_what_several_constraints_pay_adds_up_and_those_that_pay_nothing_stop_no_other():
    rollout, quality = rollout_of(MASK), {"quality": torch.tensor([0.5, 1.0, 0.0])}
    start = {
        PenaltyTerm.WORD: 3.0,
        PenaltyTerm.REFERENCE: 4.0,
        PenaltyTerm.SURPRISE: 0.5,
        PenaltyTerm.QUALITY: 0.5,
    }

    def bonus(multipliers, **starts):
        constraints = [
            Constraint(
                bound=Bound(measure=term.value, above=True),
                term=term,
                gain=1.0,
                start=starts.get(term.value, start[term]),
                multiplier=multiplier,
            )
            for term, multiplier in multipliers.items()
        ]
        return Budget(constraints, []).token_bonus(rollout, quality)

    each = [bonus({term: 2.0}) for term in start]
    assert all(one.any() for one in each)
    for order in (list(start), list(start)[::-1]):
        torch.testing.assert_close(bonus(dict.fromkeys(order, 2.0)), sum(each))
    idle = {PenaltyTerm.WORD: 0.0, PenaltyTerm.REFERENCE: 1.0}
    torch.testing.assert_close(bonus(idle), bonus({PenaltyTerm.REFERENCE: 1.0}))
    assert bonus({PenaltyTerm.REFERENCE: 1.0}).any()
    unknown = bonus({PenaltyTerm.WORD: 1.0, PenaltyTerm.REFERENCE: 1.0}, word=None)
    torch.testing.assert_close(unknown, bonus({PenaltyTerm.REFERENCE: 1.0}))
    assert not bonus({PenaltyTerm.QUALITY: 1.0}, quality=0.0).any()  # relative to nothing


def test_quality_that_was_not_measured_is_not_paid():
    measured, another = {"rougeL": torch.ones(3)}, {"relevance": torch.ones(3)}
    for term, quality in (
        (PenaltyTerm.QUALITY, None),
        (PenaltyTerm.QUALITY, another),
        (PenaltyTerm.KL, measured),
    ):
        _, bonus = bonus_of(term, start=0.5, bound=ROUGE, quality=quality)
        assert not bonus.any()
    assert bonus_of(PenaltyTerm.QUALITY, start=0.5, bound=ROUGE, quality=measured)[1].any()


def test_a_bound_without_a_start_reads_what_is_held_at_a_limit_alone():
    grown = Bound(measure="perplexity", above=False, limit_at=None, allowed=0.05)
    budget = Budget([], [grown, KL])
    assert budget.excess({}, {"perplexity": 20.0}) == {}
    assert budget.excess({"perplexity": 5.0}, {}) == {}
    assert budget.excess({"ref_kl": 5.0}, {}) == {"ref_kl": -0.5}
