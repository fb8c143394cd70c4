"""Penalties, rewards, GAE, whitening and score scaling, by hand and against slow versions."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_detox.advantages import AdvantagePlan, ScoreScaler, estimate_advantages
from lora_detox.advantages.gae import gae
from lora_detox.advantages.kl_penalty import ref_kl
from lora_detox.advantages.rewards import token_rewards
from lora_detox.advantages.whitening import masked_mean, masked_variance, scale_only, whiten
from lora_detox.choices import KlPenalty
from lora_detox.types import PromptBatch, Rollout


def mask_of(*lengths):
    return torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]


def test_penalties_by_hand():
    logprobs = torch.tensor([[-1.0, -2.0, 0.0]])
    reference = torch.tensor([[-1.5, -1.0, 0.0]])
    mask = mask_of(3)
    assert ref_kl(logprobs, reference, mask, KlPenalty.kl).tolist() == [[0.5, -1.0, 0.0]]
    assert ref_kl(logprobs, reference, mask, KlPenalty.abs).tolist() == [[0.5, 1.0, 0.0]]
    assert ref_kl(logprobs, reference, mask, KlPenalty.mse).tolist() == [[0.125, 0.5, 0.0]]
    exact = torch.tensor([[0.3, 0.2, 9.0]])
    assert ref_kl(logprobs, reference, mask_of(2, 3)[:1], KlPenalty.full, exact)[0, 2] == 0
    with pytest.raises(ValueError, match="full_kl"):
        ref_kl(logprobs, reference, mask, KlPenalty.full)


def test_the_score_lands_on_the_last_real_token():
    kl = torch.tensor([[1.0, 2.0, 7.0], [1.0, 0.0, 3.0], [4.0, 7.0, 7.0]])
    rewards = token_rewards(torch.tensor([10.0, 20.0, 30.0]), kl, mask_of(2, 3, 1), kl_coef=0.5)
    assert rewards.tolist() == [[-0.5, 9.0, 0.0], [-0.5, 0.0, 18.5], [28.0, 0.0, 0.0]]


def test_a_row_without_a_token_is_an_error():
    mask = torch.tensor([[True, False], [False, False]])
    with pytest.raises(ValueError, match=r"rows \[1\]"):
        token_rewards(torch.ones(2), torch.zeros(2, 2), mask, 0.1)


def test_gae_by_hand():
    # delta = [1 + .5*2 - 1, 0 + .5*3 - 2, 2 - 3] = [1, -.5, -1]
    # A2 = -1, A1 = -.5 - .25, A0 = 1 - .1875
    advantages = gae(
        torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1.0, 2.0, 3.0]]), mask_of(3), 0.5, 0.5
    )
    assert advantages.tolist() == [[0.8125, -0.75, -1.0]]


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_gae_is_the_discounted_sum_of_deltas(seed, gamma, gae_lambda):
    generator = torch.Generator().manual_seed(seed)
    lengths = [4, 1, 6]
    mask = mask_of(*lengths)
    rewards, values = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64)
    advantages = gae(rewards, values, mask, gamma, gae_lambda)
    for row, length in enumerate(lengths):
        v = [*values[row, :length].tolist(), 0.0]
        delta = [float(rewards[row, t]) + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            slow = sum((gamma * gae_lambda) ** (k - t) * delta[k] for k in range(t, length))
            assert float(advantages[row, t]) == pytest.approx(slow, abs=1e-9)
    assert (advantages[~mask] == 0).all()


def test_lambda_one_gives_return_minus_value():
    rewards, values = torch.randn(2, 2, 5)
    mask = mask_of(5, 3)
    advantages = gae(rewards, values, mask, 1.0, 1.0)
    for row, length in enumerate((5, 3)):
        for t in range(length):
            expected = rewards[row, t:length].sum() - values[row, t]
            torch.testing.assert_close(advantages[row, t], expected)


def test_whitening_is_masked_and_scale_only_keeps_the_sign_of_the_mean():
    x = torch.randn(4, 7) * 3 + 5
    mask = mask_of(7, 2, 5, 1)
    white, scaled = whiten(x, mask), scale_only(x, mask)
    picked = x[mask]
    torch.testing.assert_close(masked_mean(x, mask), picked.mean())
    torch.testing.assert_close(masked_variance(x, mask), picked.var())
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(white[mask].var()) == pytest.approx(1, abs=1e-5)
    assert float(scaled[mask].var()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(scaled[mask].mean(), picked.mean() / picked.std())
    assert (white[~mask] == 0).all()
    assert (scaled[~mask] == 0).all()
    x[~mask] = 1e9  # padding must not matter
    torch.testing.assert_close(whiten(x, mask), white)


def test_score_scaler_follows_all_scores_so_far():
    batches = [torch.randn(8) * 4 + 2, torch.randn(5), torch.randn(16) * 9 - 3]
    scaler, seen = ScoreScaler(scale=True, center=True), []
    for batch in batches:
        seen.append(batch)
        everything = torch.cat(seen)
        expected = (batch - everything.mean()) / everything.std()
        torch.testing.assert_close(scaler(batch), expected, rtol=1e-4, atol=1e-5)
    copy = ScoreScaler(scale=True, center=True)
    copy.restore(scaler.state())
    torch.testing.assert_close(copy(batches[0]), scaler(batches[0]))


def test_score_options_each_do_something():
    score = torch.tensor([1.0, 2.0, 9.0])
    assert ScoreScaler(scale=False)(score).tolist() == [1.0, 2.0, 9.0]
    assert ScoreScaler(scale=False, clip=3.0)(score).tolist() == [1.0, 2.0, 3.0]
    assert ScoreScaler(scale=False, center=True)(score).tolist() == [-3.0, -2.0, 5.0]
    assert float(ScoreScaler(scale=True)(score).std()) == pytest.approx(1.0)
    assert torch.isfinite(ScoreScaler(scale=True)(torch.ones(4))).all()


def rollout_of(mask, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(mask.shape, generator=generator) * mask  # noqa: E731
    count = len(mask)
    prompts = PromptBatch(
        texts=[""] * count,
        query_ids=torch.zeros(count, 1, dtype=torch.long),
        query_mask=torch.ones(count, 1, dtype=torch.bool),
        references=[[]] * count,
        row_ids=[""] * count,
    )
    return Rollout(
        prompts=prompts,
        response_ids=torch.zeros(mask.shape, dtype=torch.long),
        response_mask=mask,
        logprobs=draw(),
        ref_logprobs=draw(),
        values=draw(),
        response_texts=[""] * count,
        minibatches=((torch.arange(count),),),
    )


def test_estimate_puts_the_pieces_together():
    mask = mask_of(4, 2, 5)
    rollout, score = rollout_of(mask), torch.tensor([1.0, -2.0, 0.5])
    base = {"kl_penalty": KlPenalty.kl, "gamma": 0.9, "gae_lambda": 0.8, "whiten_rewards": False}
    plain = estimate_advantages(rollout, score, 0.1, AdvantagePlan(**base, whiten_advantages=False))
    torch.testing.assert_close(plain.ref_kl, (rollout.logprobs - rollout.ref_logprobs) * mask)
    torch.testing.assert_close(plain.returns, (plain.advantages + rollout.values) * mask)
    torch.testing.assert_close(plain.advantages, gae(plain.rewards, rollout.values, mask, 0.9, 0.8))
    white = estimate_advantages(rollout, score, 0.1, AdvantagePlan(**base))
    torch.testing.assert_close(white.advantages, whiten(plain.advantages, mask))
    torch.testing.assert_close(white.returns, plain.returns)  # taken before whitening
    scaled = estimate_advantages(
        rollout, score, 0.1, AdvantagePlan(**(base | {"whiten_rewards": True}))
    )
    assert float(scaled.rewards[mask].var()) == pytest.approx(1, abs=1e-4)


def test_the_exact_penalty_is_what_the_rollout_holds():
    mask = mask_of(4, 2, 5)
    exact = torch.rand(mask.shape) * mask
    rollout = replace(rollout_of(mask), full_kl=exact)
    plan = AdvantagePlan(kl_penalty=KlPenalty.full, gamma=0.9, gae_lambda=0.8, whiten_rewards=False)
    assert torch.equal(estimate_advantages(rollout, torch.ones(3), 0.1, plan).ref_kl, exact)


def test_a_response_of_one_token_has_an_advantage():
    advantages = gae(torch.tensor([[2.0]]), torch.tensor([[0.5]]), mask_of(1), 0.9, 0.9)
    assert advantages.tolist() == [[1.5]]


def test_statistics_of_few_tokens():
    x = torch.tensor([[4.0, 2.0, 9.0]])
    assert float(masked_mean(x, mask_of(1, 3)[:1])) == 4.0
    assert float(masked_variance(x, mask_of(2, 3)[:1])) == 2.0
    assert float(masked_variance(x, mask_of(1, 3)[:1])) == 0.0
    for none in (whiten, scale_only):
        flat = none(torch.full((1, 3), 1.0), mask_of(3))
        assert flat.isfinite().all()  # no variance, no division by nothing


def test_the_deviation_of_scores_is_one_before_there_are_two():
    scaler = ScoreScaler()
    assert scaler.std == 1.0
    scaler(torch.tensor([5.0]))
    assert scaler.std == 1.0
    scaler(torch.tensor([8.0]))
    assert scaler.std == pytest.approx(4.5**0.5)


@pytest.mark.parametrize("spread", [0.1, 10.0])
def test_the_factor_is_what_a_difference_of_scores_is_multiplied_with(spread):
    scaler = ScoreScaler()
    score = spread * torch.tensor([1.0, 2.0, 9.0])
    scaled = scaler(score)
    assert scaler.factor == pytest.approx(float((scaled[2] - scaled[0]) / (score[2] - score[0])))
    assert scaler.factor == pytest.approx(1 / float(score.std()))
    off = ScoreScaler(scale=False)
    off(score)
    assert off.factor == 1.0
    flat = ScoreScaler()
    flat(torch.ones(3))
    assert flat.factor == 1e6


def test_scores_are_clipped_on_both_sides():
    assert ScoreScaler(scale=False, clip=3.0)(torch.tensor([-9.0, 2.0, 9.0])).tolist() == [-3, 2, 3]
