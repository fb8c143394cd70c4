"""The fairness audit against scipy, tables worked by hand, and what chance alone gives."""

import math

import numpy as np
import pytest
from scipy import stats

from lora_detox.metrics import names
from lora_detox.metrics.fairness import (
    GroupedPrompts,
    audit_by_group,
    gap_by_group,
    gap_interval,
    mean_interval,
)
from lora_detox.types import Evaluation


def evaluation(responses, toxicity, prompts=None, nll=None, tokens=None):
    per_response = {
        names.TOXICITY: list(toxicity),
        names.EMPTY: [float(not text.strip()) for text in responses],
        names.RESPONSE_TOKENS: tokens or [4.0] * len(responses),
    }
    if nll is not None:
        per_response[names.REFERENCE_NLL] = nll
    prompts = prompts or [f"prompt {place} about a woman" for place in range(len(responses))]
    return Evaluation(
        prompts=prompts,
        responses=list(responses),
        references=[[] for _ in responses],
        per_response=per_response,
    )


def about(groups, terms=("woman",)):
    return GroupedPrompts(groups=groups, terms=[terms] * len(groups))


def test_intervals_are_those_of_scipy():
    rng = np.random.default_rng(0)
    own, others = rng.normal(0.3, 0.2, 11), rng.normal(0.1, 0.5, 40)
    ours = mean_interval(own, 0.99)
    low, high = stats.ttest_1samp(own, 0).confidence_interval(0.99)
    assert ours == pytest.approx((own.mean(), low, high))
    ours = gap_interval(own, others, 0.98)
    low, high = stats.ttest_ind(own, others, equal_var=False).confidence_interval(0.98)
    assert ours == pytest.approx((own.mean() - others.mean(), low, high))


def test_fractions_have_newcombes_interval():
    """The example of Newcombe 1998, table II (a): 56/70 and 48/80, 0.0524 to 0.3339."""
    own, others = [1.0] * 56 + [0.0] * 14, [1.0] * 48 + [0.0] * 32
    interval = gap_interval(np.array(own), np.array(others), 0.95)
    assert interval == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    # Method 10 also knows that ten times no is not never.
    never = gap_interval(np.zeros(10), np.zeros(100), 0.95)
    assert never.change == 0
    assert never.low < -0.01
    assert never.high > 0.2


def test_changes_by_group_are_paired_and_corrected_for_their_number():
    rng = np.random.default_rng(1)
    groups = ["a"] * 12 + ["b"] * 15 + ["c"] * 3 + [None] * 4
    first, second = rng.random(34), rng.random(34)
    before, after = (evaluation(["she is here now"] * 34, one) for one in (first, second))
    entry = audit_by_group(before, after, about(groups), least=10)
    assert list(entry["groups"]) == ["a", "b"]
    assert entry["left_out"] == {"c": 3}
    assert entry["all"]["prompts"] == 30  # those that name a group
    assert entry["confidence"] == pytest.approx(0.975)  # 5 % over two groups
    change = entry["groups"]["b"]["change"][names.TOXICITY]
    pair = stats.ttest_rel(second[12:27], first[12:27]).confidence_interval(0.975)
    assert change["interval"] == pytest.approx([pair.low, pair.high])
    assert change["mean"] == pytest.approx((second - first)[12:27].mean())
    gap = entry["groups"]["a"]["gap"][names.TOXICITY]
    others = np.delete(second[:30], slice(0, 12))
    assert gap["mean"] == pytest.approx(second[:12].mean() - others.mean())
    whole = stats.ttest_rel(second[:30], first[:30]).confidence_interval(0.95)
    assert entry["all"]["change"][names.TOXICITY]["interval"] == pytest.approx(list(whole))


def test_what_an_answer_is_like():
    prompts = ["a woman came", "a woman left", "nobody", "a woman sat"]
    before = evaluation(
        ["she is a woman of few words", "women are many here", "a woman", "I cannot help with it"],
        [0.0] * 4,
        prompts,
    )
    after = evaluation(
        ["it rains today again", "women are many here", "rain", ""], [0.0] * 4, prompts
    )
    entry = audit_by_group(before, after, about(["w"] * 4), least=2)["groups"]["w"]
    # The third prompt names nobody, so that its answers can keep nothing.
    assert entry["before"][names.MENTION] == pytest.approx(2 / 3)
    assert entry["after"][names.MENTION] == pytest.approx(1 / 3)
    assert entry["change"][names.MENTION]["mean"] == pytest.approx(-1 / 3)
    assert (entry["before"][names.REFUSED], entry["after"][names.REFUSED]) == (0.25, 0.0)
    assert (entry["before"][names.SHORT], entry["after"][names.SHORT]) == (0.25, 0.5)
    assert entry["after"][names.EMPTY] == 0.25
    assert names.PERPLEXITY not in entry["after"]  # it was not measured
    assert names.JUDGE_TOXICITY not in entry["after"]


def test_perplexity_of_a_group_has_a_jackknife():
    nll = [[4.0, 8.0, 6.0], [5.0, 9.0, 3.0]]
    tokens = [2.0, 4.0, 2.0]
    before, after = (
        evaluation(["some words here too"] * 3, [0.0] * 3, nll=one, tokens=tokens) for one in nll
    )
    entry = audit_by_group(before, after, about(["w"] * 3), least=2)["groups"]["w"]
    assert entry["before"][names.PERPLEXITY] == pytest.approx(math.exp(18 / 8))

    def change(rows):
        count = sum(tokens[row] for row in rows)
        first, second = (math.exp(sum(one[row] for row in rows) / count) for one in nll)
        return second - first

    left_out = np.array([change([1, 2]), change([0, 2]), change([0, 1])])
    error = math.sqrt(2 / 3 * ((left_out - left_out.mean()) ** 2).sum())
    reach = stats.t.ppf(0.975, 2) * error
    stated = entry["change"][names.PERPLEXITY]
    assert stated["mean"] == pytest.approx(change([0, 1, 2]))
    assert stated["interval"] == pytest.approx([stated["mean"] - reach, stated["mean"] + reach])


def test_several_responses_to_a_prompt_count_as_one():
    prompts = ["a woman"] * 3 + ["the woman"] * 3
    toxicity = [0.0, 0.3, 0.6, 1.0, 1.0, 0.4]
    after = evaluation(["text of some words"] * 6, toxicity, prompts)
    entry = audit_by_group(None, after, about(["w"] * 6), least=2)
    assert entry["groups"]["w"]["prompts"] == 2
    assert entry["groups"]["w"]["after"][names.TOXICITY] == pytest.approx((0.3 + 0.8) / 2)
    assert "change" not in entry["groups"]["w"]


def test_one_text_may_be_about_two_groups():
    after = evaluation(["words"] * 4, [0.0, 1.0, 0.0, 1.0], ["x", "y", "x", "y"])
    entry = audit_by_group(None, after, about(["a", "a", "b", "b"]), least=2)
    assert {name: one["prompts"] for name, one in entry["groups"].items()} == {"a": 2, "b": 2}


def test_other_prompts_are_refused():
    one, other = evaluation(["a"], [0.0], ["x"]), evaluation(["a"], [0.0], ["y"])
    with pytest.raises(ValueError, match="same order"):
        audit_by_group(one, other, about(["w"]), least=2)


def test_rates_by_group():
    values = [1.0] * 5 + [0.0] * 15 + [1.0]
    groups = ["a"] * 10 + ["b"] * 10 + [None]
    entry = gap_by_group(values, groups, least=10)
    assert entry["groups"]["a"]["rate"] == 0.5
    assert entry["groups"]["a"]["gap"]["mean"] == pytest.approx(0.5 - 1 / 11)
    assert entry["groups"]["b"]["texts"] == 10
    assert gap_by_group(values, groups, least=11)["left_out"] == {"a": 10, "b": 10}


@pytest.mark.parametrize("probability", [0.15, 0.3])
def test_chance_alone_is_rarely_clear_of_zero_for_any_of_twelve_groups(probability):
    """Mentions that come and go by chance; the paired bootstrap was clear in 13 to 56 %."""
    rng = np.random.default_rng(0)
    audits, alarms = 300, 0
    for _ in range(audits):
        changes = rng.choice(
            [-1.0, 0.0, 1.0], size=(12, 10), p=[probability, 1 - 2 * probability, probability]
        )
        intervals = [mean_interval(one, 1 - 0.05 / 12) for one in changes]
        alarms += any(one.low > 0 or one.high < 0 for one in intervals)
    assert alarms / audits < 0.08
