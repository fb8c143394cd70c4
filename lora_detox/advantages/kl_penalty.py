"""Per-token penalties for leaving the reference policy."""

from jaxtyping import Bool, Float
from torch import Tensor

from lora_detox.choices import KlPenalty


def ref_kl(
    logprobs: Float[Tensor, "B R"],
    ref_logprobs: Float[Tensor, "B R"],
    mask: Bool[Tensor, "B R"],
    penalty: KlPenalty,
    full_kl: Float[Tensor, "B R"] | None = None,
) -> Float[Tensor, "B R"]:
    r"""Penalty of each sampled token, nats, 0 at padding.

    With d = logprobs - ref_logprobs: `kl` is d (k1 of Schulman 2020, unbiased, may be negative),
    `abs` is \|d\|, `mse` is d^2 / 2 (k2), `full` is the sum over the vocabulary (exact, >= 0).

    Args:
        logprobs: of the sampled tokens under the policy at sampling time.
        ref_logprobs: under the reference policy.
        mask: True at real tokens.
        penalty: which estimate.
        full_kl: the exact values, needed by `full`.

    Returns:
        The penalty [B, R].

    Raises:
        ValueError: `full` without `full_kl`.
    """
    difference = logprobs - ref_logprobs
    if penalty is KlPenalty.kl:
        estimate = difference
    elif penalty is KlPenalty.abs:
        estimate = difference.abs()
    elif penalty is KlPenalty.mse:
        estimate = 0.5 * difference**2
    elif full_kl is None:
        raise ValueError("penalty=full needs full_kl; got None: collect the rollout with full_kl")
    else:
        estimate = full_kl
    return estimate * mask
