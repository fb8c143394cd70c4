"""The distribution that tokens are drawn from, against Transformers' own processors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lora_detox.policy.chunk_stats import chunk_stats
from lora_detox.policy.token_stats import exact_kl, sampling_logits, token_logprobs
from lora_detox.rollout.sampling import draw, sample_responses
from lora_detox.types import Sampling
from tests.tiny import tiny_policy, tiny_prompts
from tests.warpers import library_logits

EOS = 1
CHANCE = 1e-4
"""Probability that a right sampler fails a chi-square test here; the seed fixes the outcome."""


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([1.0, 0.1, 0.7, 2.0, 5.0]),
    top_k=st.sampled_from([0, 1, 2, 5, 11, 12, 50]),
    top_p=st.sampled_from([1.0, 0.05, 0.5, 0.8, 0.9, 0.99]),
    min_new_tokens=st.integers(0, 3),
)
def test_each_position_has_the_distribution_of_the_library(
    seed, temperature, top_k, top_p, min_new_tokens
):
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_new_tokens=min_new_tokens
    )
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(5, 12, generator=generator, dtype=torch.float64)
    positions = torch.tensor([2, 0, 3, 1, 2])
    ours = sampling_logits(logits.clone(), positions, sampling, (EOS,))
    for row, position in enumerate(positions.tolist()):
        library = library_logits(logits[row : row + 1], position, sampling, EOS)
        assert torch.equal(ours[row : row + 1], library)


@pytest.mark.parametrize(("top_p", "kept"), [(0.3, 1), (0.5, 1), (0.6, 2), (0.75, 2), (0.8, 3)])
def test_the_nucleus_by_hand(top_p, kept):
    """Probabilities 1/2, 1/4, 1/8, 1/8: a set that reaches the bound exactly is not enlarged."""
    logits = math.log(2) * torch.tensor([[-3.0, -1.0, -3.0, -2.0]], dtype=torch.float64)
    left = sampling_logits(logits, torch.tensor([0]), Sampling(top_p=top_p), (EOS,)).isfinite()
    assert left[0, [1, 3]].tolist() == [True, kept > 1]
    assert int(left.sum()) == kept


@pytest.mark.parametrize("top_p", [3e-207, 1e-46, 1e-12])
def test_the_likeliest_token_stays_however_small_the_nucleus(top_p):
    logits = torch.tensor([[0.1, 2.0, -1.0, 0.5], [1.0, 1.0, 1.0, 1.0]])
    left = sampling_logits(logits, torch.tensor([0, 0]), Sampling(top_p=top_p), (EOS,))
    assert left.isfinite().sum(dim=1).tolist() == [1, 1]
    assert left[0].argmax() == 1
    drawn = draw(left.log_softmax(dim=-1), torch.tensor([0.0, 0.999]), greedy=False)
    assert drawn.tolist() == left.argmax(dim=-1).tolist()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.6),
        Sampling(temperature=1.5, top_k=6),
        Sampling(top_p=0.8),
        Sampling(temperature=0.8, top_k=9, top_p=0.9, min_new_tokens=1),
    ],
)
def test_draws_follow_the_distribution_of_the_library(sampling):
    """Chi-square over 8,000 first tokens after one prompt, drawn by the policy itself."""
    policy, count = tiny_policy("gptj"), 8000
    prompts = tiny_prompts(policy, [4])
    ids, mask = prompts.query_ids.expand(count, -1), prompts.query_mask.expand(count, -1)
    uniforms = torch.rand(count, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.no_grad():
        raw = policy.model(input_ids=prompts.query_ids).logits[:, -1].float()
        bounds = torch.ones(count, dtype=torch.long)
        tokens, _, logprobs = sample_responses(policy, ids, mask, sampling, bounds, uniforms)
    expected = library_logits(raw.double(), 0, sampling, EOS).softmax(dim=-1)[0]
    counts = torch.bincount(tokens[:, 0], minlength=len(expected))
    possible = expected > 0
    assert not counts[~possible].any()
    assert stats.chisquare(counts[possible], count * expected[possible]).pvalue > CHANCE
    torch.testing.assert_close(
        logprobs[:, 0].double(), expected.log()[tokens[:, 0]], rtol=1e-4, atol=1e-4
    )


def test_a_token_of_probability_nothing_is_not_drawn_at_either_end():
    log_p = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(3, 3)
    uniforms = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(log_p, uniforms, greedy=False).tolist() == [1, 1, 1]


def linear(weight, sampling):
    """Logits of states by a matrix, warped as when sampling."""
    return lambda states, at: sampling_logits(states @ weight, at, sampling, (EOS,))


def random_states(count=9, width=4, vocabulary=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randn(n, width, generator=generator) for n in (count, count)]
    weight = torch.randn(width, vocabulary, generator=generator)
    ids = torch.randint(2, vocabulary, (count,), generator=generator)
    return *draws, weight, ids, torch.arange(count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("with_entropy", "with_slope"), [(True, True), (False, True), (True, False)]
)
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_chunk_in_the_caches_pieces_is_the_chunk(
    monkeypatch, dtype, with_entropy, with_slope, rows
):
    logits = 3 * torch.randn(9, 12, generator=torch.Generator().manual_seed(0)).to(dtype)
    logits[:, 3] = -torch.inf
    ids = torch.arange(9) + 3
    ids[0] = 0
    wanted = {"with_entropy": with_entropy, "with_slope": with_slope}
    whole = chunk_stats(logits, ids, **wanted)
    seen = []
    softmax = torch.Tensor.log_softmax

    def counted(part, dim):
        seen.append(len(part))
        return softmax(part, dim)

    monkeypatch.setattr(torch.Tensor, "log_softmax", counted)
    monkeypatch.setattr("lora_detox.policy.chunk_stats.cached_elements", lambda _: 12 * rows)
    pieces = chunk_stats(logits, ids, **wanted)
    assert max(seen) == rows
    assert sum(seen) == len(logits)
    for one, other in zip(whole, pieces, strict=True):
        assert torch.equal(one, other)
    assert pieces.slope.shape == (logits.shape if with_slope else (0,))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_logprob_entropy_and_derivative_are_those_of_autograd(monkeypatch, grad, rows):
    """Chunks of one row, of two, and all at once; with the token forbidden that `top_k` drops."""
    monkeypatch.setattr("lora_detox.policy.token_stats.chunk_elements", lambda _: 12 * rows)
    hidden, _, weight, _, positions = random_states()
    sampling = Sampling(temperature=0.7, top_k=5, min_new_tokens=3)
    to_logits = linear(weight, sampling)
    ids = (hidden @ weight)[:, 2:].argmax(dim=-1) + 2
    hidden.requires_grad_(grad)
    log_p = to_logits(hidden, positions).log_softmax(dim=-1)
    expected = log_p.gather(-1, ids[:, None])[:, 0]
    entropy = torch.distributions.Categorical(logits=log_p.detach()).entropy()
    logprobs, entropies = token_logprobs(hidden, ids, positions, to_logits, 12)
    torch.testing.assert_close(logprobs, expected)
    torch.testing.assert_close(entropies, entropy)
    assert not entropies.requires_grad
    bare, nothing = token_logprobs(hidden, ids, positions, to_logits, 12, with_entropy=False)
    torch.testing.assert_close(bare, expected)
    assert torch.equal(nothing, torch.zeros(9))
    assert logprobs.requires_grad == grad
    if grad:
        weights = torch.arange(1.0, 10.0)
        (ours,) = torch.autograd.grad((logprobs * weights).sum(), hidden)
        (library,) = torch.autograd.grad((expected * weights).sum(), hidden)
        torch.testing.assert_close(ours, library)


def test_without_a_gradient_wanted_none_is_taken():
    hidden, _, weight, ids, positions = random_states()
    hidden.requires_grad_()
    with torch.no_grad():
        logprobs, _ = token_logprobs(hidden, ids, positions, linear(weight, Sampling()), 12)
    assert not logprobs.requires_grad


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_exact_kl_is_the_sum_over_the_vocabulary(monkeypatch, rows):
    monkeypatch.setattr("lora_detox.policy.token_stats.chunk_elements", lambda _: 24 * rows)
    hidden, other, weight, _, positions = random_states()
    to_logits = linear(weight, Sampling(temperature=0.7, min_new_tokens=3))
    p = to_logits(hidden, positions).double().softmax(dim=-1)
    q = to_logits(other, positions).double().softmax(dim=-1)
    slow = [
        sum(float(a * (a / b).log()) for a, b in zip(*row, strict=True) if a > 0)
        for row in zip(p, q, strict=True)
    ]
    found = exact_kl(hidden, other, positions, to_logits, 12)
    assert found.tolist() == pytest.approx(slow, rel=1e-4, abs=1e-5)
    assert not exact_kl(hidden, hidden, positions, to_logits, 12).any()


@pytest.mark.parametrize("min_new_tokens", [0, 1, 2, 4])
def test_end_of_sequence_is_possible_from_the_least_length_on(min_new_tokens):
    logits = torch.randn(4, 6)
    sampling = Sampling(min_new_tokens=min_new_tokens)
    left = sampling_logits(logits.clone(), torch.arange(4), sampling, (EOS,)).isfinite()
    assert left[:, EOS].tolist() == [position >= min_new_tokens for position in range(4)]
    assert left.sum() == 4 * 6 - min_new_tokens


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("states_learn", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_a_learning_matrix_gets_the_gradient_of_autograd(monkeypatch, rows, states_learn, entropy):
    """Chunk by chunk, with logits that are computed again in the backward pass."""
    monkeypatch.setattr("lora_detox.policy.token_stats.chunk_elements", lambda _: 12 * rows)
    hidden, _, weight, _, positions = random_states()
    sampling = Sampling(temperature=0.7, top_k=5, min_new_tokens=3)
    ids = (hidden @ weight)[:, 2:].argmax(dim=-1) + 2
    learned = [weight.requires_grad_()]
    if states_learn:
        learned.append(hidden.requires_grad_())
    log_p = linear(weight, sampling)(hidden, positions).log_softmax(dim=-1)
    expected = log_p.gather(-1, ids[:, None])[:, 0]
    sizes = []

    def to_logits(states, at):
        sizes.append(len(states))
        return linear(weight, sampling)(states, at)

    logprobs, entropies = token_logprobs(
        hidden, ids, positions, to_logits, 12, with_entropy=entropy, head_learns=True
    )
    torch.testing.assert_close(logprobs, expected)
    slow = torch.distributions.Categorical(logits=log_p.detach()).entropy()
    torch.testing.assert_close(entropies, slow if entropy else torch.zeros(9))
    assert not entropies.requires_grad
    ratios = torch.arange(1.0, 10.0)
    ours = torch.autograd.grad((logprobs * ratios).sum(), learned)
    library = torch.autograd.grad((expected * ratios).sum(), learned)
    for one, other in zip(ours, library, strict=True):
        torch.testing.assert_close(one, other)
    assert max(sizes) == min(rows, 9)  # [n, V] of one chunk is all that ever exists
    assert sum(sizes) == 18


def test_exact_kl_takes_the_matrix_of_the_reference():
    hidden, other, weight, _, positions = random_states()
    changed = weight + torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    policy, reference = linear(weight, Sampling()), linear(changed, Sampling())
    p, q = policy(hidden, positions).softmax(-1), reference(other, positions).softmax(-1)
    slow = (p * (p / q).log()).sum(dim=-1)
    found = exact_kl(hidden, other, positions, policy, 12, reference)
    torch.testing.assert_close(found, slow, rtol=1e-4, atol=1e-5)
    assert (found - exact_kl(hidden, other, positions, policy, 12)).abs().max() > 1e-3
