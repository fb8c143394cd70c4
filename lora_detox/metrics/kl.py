"""Estimates of KL(policy || reference) from the log-probabilities of sampled tokens.

See http://joschu.net/blog/kl-approx.html. Both estimate the same quantity; k1 is unbiased but may
be negative on a sample, k3 is unbiased, never negative and less noisy.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def k1(logprobs: Float[Tensor, "B R"], ref_logprobs: Float[Tensor, "B R"]) -> Float[Tensor, "B R"]:
    """Per-token k1 = logprobs - ref_logprobs, nats, either sign.

    Args:
        logprobs: log p of the sampled tokens under the policy [B, R].
        ref_logprobs: the same under the reference policy [B, R].

    Returns:
        k1 at each token [B, R].
    """
    return logprobs - ref_logprobs


def k3(logprobs: Float[Tensor, "B R"], ref_logprobs: Float[Tensor, "B R"]) -> Float[Tensor, "B R"]:
    """Per-token k3 = exp(-k1) - 1 + k1, nats, at least 0.

    Args:
        logprobs: log p of the sampled tokens under the policy [B, R].
        ref_logprobs: the same under the reference policy [B, R].

    Returns:
        k3 at each token [B, R].
    """
    difference = k1(logprobs, ref_logprobs)
    # expm1 keeps the digits where policy and reference nearly agree, as when training starts.
    return (torch.expm1(-difference) + difference).clamp(min=0.0)


def response_sums(
    per_token: Float[Tensor, "B R"], response_mask: Bool[Tensor, "B R"]
) -> Float[Tensor, "B"]:
    """Sum a per-token quantity over the real tokens of each response.

    Args:
        per_token: any quantity [B, R]; what stands at padding, NaN included, is ignored.
        response_mask: True at real response tokens [B, R].

    Returns:
        One sum per response [B], 0 for a response without tokens.
    """
    return per_token.masked_fill(~response_mask, 0.0).sum(dim=1)


def token_mean(
    per_token: Float[Tensor, "B R"], response_mask: Bool[Tensor, "B R"]
) -> Float[Tensor, ""]:
    """Mean of a per-token quantity over all real tokens of the batch.

    Args:
        per_token: any quantity [B, R]; what stands at padding, NaN included, is ignored.
        response_mask: True at real response tokens [B, R].

    Returns:
        A scalar, NaN if the batch has no real token.
    """
    return response_sums(per_token, response_mask).sum() / response_mask.sum()
