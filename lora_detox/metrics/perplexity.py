"""Perplexity of responses under the reference policy: the fluency measure without references."""

import math
from collections.abc import Sequence


def reference_perplexity(
    reference_nll: Sequence[float], response_tokens: Sequence[int | float]
) -> float:
    """Corpus perplexity = exp(sum of nll / sum of tokens), weighted by tokens.

    Args:
        reference_nll: per response, the sum of -ref_logprobs over its real tokens, nats.
        response_tokens: per response, how many real tokens that sum has.

    Returns:
        Perplexity, at least 1 for true probabilities; infinity where it overflows; NaN if there is
        no token.

    Raises:
        ValueError: if the two do not have the same length.
    """
    if len(reference_nll) != len(response_tokens):
        raise ValueError(
            f"reference_nll has {len(reference_nll)} responses, "
            f"response_tokens {len(response_tokens)}; they must describe the same responses"
        )
    tokens = math.fsum(response_tokens)
    if tokens == 0:
        return math.nan
    try:
        return math.exp(math.fsum(reference_nll) / tokens)
    except OverflowError:
        return math.inf
