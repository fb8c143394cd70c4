"""Group baselines against loops over the responses of a prompt, and what they do to advantages."""

import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_detox.advantages import AdvantagePlan, RunningMean, estimate_advantages
from lora_detox.advantages.baselines import group_mean, group_std, leave_one_out
from lora_detox.advantages.rewards import sequence_rewards
from lora_detox.choices import Baseline, KlPenalty
from tests.unit.advantages.test_advantages import mask_of, rollout_of

PLAIN = {
    "kl_penalty": KlPenalty.kl,
    "gamma": 1.0,
    "gae_lambda": 0.95,
    "whiten_rewards": False,
    "whiten_advantages": False,
}
MASK = mask_of(4, 2, 5, 1, 3, 3)
SCORE = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0, 1.5])


def groups_of(values, size):
    return [values[i : i + size] for i in range(0, len(values), size)]


def test_baselines_by_hand():
    returns = torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0])
    assert leave_one_out(returns, 3).tolist() == [4.0, 3.5, 1.5, 1.5, 1.5, 0.0]
    assert group_mean(returns, 3).tolist() == [3.0, 3.0, 3.0, 1.0, 1.0, 1.0]
    assert group_std(returns, 2).tolist() == pytest.approx(
        [0.5**0.5] * 2 + [18**0.5] * 2 + [4.5**0.5] * 2
    )


@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 4))
def test_baselines_are_what_a_loop_over_each_group_gives(seed, size, prompts):
    generator = torch.Generator().manual_seed(seed)
    returns = torch.randn(size * prompts, generator=generator, dtype=torch.float64)
    others, means, spreads = [], [], []
    for group in groups_of(returns.tolist(), size):
        for own in range(size):
            others.append(statistics.fmean(group[:own] + group[own + 1 :]))
            means.append(statistics.fmean(group))
            spreads.append(statistics.stdev(group))
    assert leave_one_out(returns, size).tolist() == pytest.approx(others)
    assert group_mean(returns, size).tolist() == pytest.approx(means)
    assert group_std(returns, size).tolist() == pytest.approx(spreads)


def test_a_running_mean_knows_only_earlier_batches_and_comes_back_from_its_state():
    mean = RunningMean(decay=0.5)
    assert mean(torch.tensor([1.0, 3.0])).tolist() == [2.0, 2.0]  # the first has its own
    assert mean(torch.tensor([8.0, 10.0])).tolist() == [2.0, 2.0]
    copy = RunningMean(decay=0.5)
    copy.restore(mean.state())
    assert (
        copy(torch.tensor([0.0])).tolist() == [0.5 * 2 + 0.5 * 9] == mean(torch.zeros(1)).tolist()
    )


def slow_advantages(rollout, score, kl_coef, *, sequence, size):
    """Reward to go minus the mean whole return of the others, token by token."""
    lengths = MASK.sum(dim=1).tolist()
    kl = (rollout.logprobs - rollout.ref_logprobs).tolist()
    whole = [float(score[row]) - kl_coef * sum(kl[row][:n]) for row, n in enumerate(lengths)]
    advantages = torch.zeros(MASK.shape)
    for row, length in enumerate(lengths):
        first = row - row % size
        others = [whole[i] for i in range(first, first + size) if i != row]
        for t in range(length):
            to_go = float(score[row]) - kl_coef * sum(kl[row][t:length])
            own = whole[row] if sequence else to_go
            advantages[row, t] = own - statistics.fmean(others)
    return advantages


@pytest.mark.parametrize("sequence", [True, False])
def test_rloo_advantages_are_those_of_a_loop(sequence):
    rollout = rollout_of(MASK)
    plan = AdvantagePlan(
        **PLAIN,
        baseline=Baseline.leave_one_out,
        responses_per_prompt=3,
        sequence_level=sequence,
    )
    found = estimate_advantages(rollout, SCORE, 0.3, plan)
    slow = slow_advantages(rollout, SCORE, 0.3, sequence=sequence, size=3)
    torch.testing.assert_close(found.advantages, slow)
    assert found.kl_coef_in_loss == 0.0


def test_grpo_advantages_are_standardised_scores_and_leave_the_kl_to_the_loss():
    plan = AdvantagePlan(
        **PLAIN,
        baseline=Baseline.group_zscore,
        responses_per_prompt=3,
        kl_in_loss=True,
    )
    found = estimate_advantages(rollout_of(MASK), SCORE, 0.3, plan)
    assert found.kl_coef_in_loss == 0.3
    for row, score in enumerate(SCORE.tolist()):
        group = SCORE[row - row % 3 :][:3].tolist()
        expected = (score - statistics.fmean(group)) / statistics.stdev(group)
        said = found.advantages[row][MASK[row]]
        torch.testing.assert_close(said, torch.full_like(said, expected), rtol=1e-3, atol=1e-3)
    equal = estimate_advantages(rollout_of(MASK), torch.ones(6), 0.3, plan)
    assert not equal.advantages.any()  # no difference within a group, nothing to learn


def test_a_mean_by_response_weighs_short_and_long_ones_alike():
    plan = {**PLAIN, "baseline": Baseline.group_mean, "responses_per_prompt": 3, "kl_in_loss": True}
    by_token = estimate_advantages(rollout_of(MASK), SCORE, 0.3, AdvantagePlan(**plan))
    by_response = estimate_advantages(
        rollout_of(MASK), SCORE, 0.3, AdvantagePlan(**plan, mean_by_response=True)
    )
    wanted = [float(by_token.advantages[i][MASK[i]].mean()) for i in range(6)]
    loss_mean = by_response.advantages.sum() / MASK.sum()  # what the update takes
    assert float(loss_mean) == pytest.approx(statistics.fmean(wanted), abs=1e-6)


def test_reinforce_compares_with_the_past_and_needs_to_know_it():
    plan = AdvantagePlan(**PLAIN, baseline=Baseline.running_mean, sequence_level=True)
    past = RunningMean(decay=0.9, mean=0.7)
    found = estimate_advantages(rollout_of(MASK), SCORE, 0.0, plan, 0.0, past)
    torch.testing.assert_close(found.advantages, (SCORE[:, None] - 0.7) * MASK)
    assert past.mean == pytest.approx(0.9 * 0.7 + 0.1 * float(SCORE.mean()))
    with pytest.raises(ValueError, match="running_mean"):
        estimate_advantages(rollout_of(MASK), SCORE, 0.0, plan)


def test_a_response_as_one_action_earns_its_sum_at_the_end():
    rewards = torch.tensor([[1.0, 2.0, 9.0], [1.0, 1.0, 1.0]])
    assert sequence_rewards(rewards, mask_of(2, 3)).tolist() == [[0.0, 3.0, 0.0], [0.0, 0.0, 3.0]]


def test_a_bonus_by_token_is_paid_where_it_is_due():
    bonus = torch.arange(30.0).reshape(6, 5)
    plan = AdvantagePlan(**PLAIN)
    with_bonus = estimate_advantages(rollout_of(MASK), SCORE, 0.3, plan, bonus)
    without = estimate_advantages(rollout_of(MASK), SCORE, 0.3, plan)
    torch.testing.assert_close(with_bonus.rewards - without.rewards, bonus * MASK)


def test_a_mean_by_response_is_by_hand():
    """Lengths 4, 2, 5, 1, 3, 3 have the mean 3: weights 3/4, 3/2, 3/5, 3, 1, 1."""
    plan = {**PLAIN, "baseline": Baseline.group_mean, "responses_per_prompt": 3, "kl_in_loss": True}
    plain, weighted = (
        estimate_advantages(
            rollout_of(MASK), SCORE, 0.3, AdvantagePlan(**plan, mean_by_response=one)
        ).advantages
        for one in (False, True)
    )
    weights = torch.tensor([3 / 4, 3 / 2, 3 / 5, 3.0, 1.0, 1.0])
    torch.testing.assert_close(weighted, plain * weights[:, None])


def test_a_group_without_spread_is_divided_by_epsilon():
    """Returns 0 and 1.5e-4: the deviation is 1.0607e-4, the divisor 2.0607e-4."""
    plan = AdvantagePlan(**PLAIN, baseline=Baseline.group_zscore, responses_per_prompt=2)
    found = estimate_advantages(rollout_of(mask_of(1, 1)), torch.tensor([0.0, 1.5e-4]), 0.0, plan)
    assert found.advantages[:, 0].tolist() == pytest.approx([-0.36397, 0.36397], rel=1e-3)
