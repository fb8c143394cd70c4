import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_detox.metrics.kl import k1, k3, response_sums, token_mean
from lora_detox.metrics.perplexity import reference_perplexity

LOGPROBS = st.floats(min_value=-20, max_value=0)


def test_by_hand():
    logprobs, ref_logprobs = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-2.0, -1.0]])
    assert k1(logprobs, ref_logprobs).tolist() == [[1.0, -1.0]]
    expected = torch.tensor([[math.exp(-1), math.e - 2]])
    torch.testing.assert_close(k3(logprobs, ref_logprobs), expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(LOGPROBS, LOGPROBS), min_size=1, max_size=8))
def test_k3_is_never_negative_and_zero_only_where_equal(pairs):
    logprobs, ref_logprobs = torch.tensor([pairs], dtype=torch.float64).unbind(dim=2)
    estimate = k3(logprobs, ref_logprobs)
    assert (estimate >= 0).all()
    assert (estimate[logprobs == ref_logprobs] == 0).all()


def test_both_estimate_the_true_divergence():
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 5, dtype=torch.float64, generator=generator).log_softmax(-1)
    truth = (policy.exp() * (policy - reference)).sum()
    # The mean over tokens drawn from the policy, taken exactly.
    for estimate in (k1, k3):
        mean = (policy.exp() * estimate(policy[None], reference[None])[0]).sum()
        torch.testing.assert_close(mean, truth)


def test_padding_does_not_count_even_if_it_is_not_a_number():
    per_token = torch.tensor([[1.0, 2.0, math.nan], [4.0, math.inf, math.nan]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert response_sums(per_token, mask).tolist() == [3.0, 4.0]
    assert token_mean(per_token, mask).item() == pytest.approx(7 / 3)
    assert response_sums(per_token, torch.zeros_like(mask)).tolist() == [0.0, 0.0]


def test_perplexity_weighs_by_tokens():
    nll = [math.log(2) * 1, math.log(8) * 3]
    assert reference_perplexity(nll, [1, 3]) == pytest.approx(2 ** (10 / 4))
    assert math.isnan(reference_perplexity([0.0], [0]))
    assert reference_perplexity([1e6], [1]) == math.inf
    with pytest.raises(ValueError, match="same responses"):
        reference_perplexity([1.0], [1, 2])
