"""From one score per response to one reward per token."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def token_rewards(
    score: Float[Tensor, "B"],
    ref_kl: Float[Tensor, "B R"],
    mask: Bool[Tensor, "B R"],
    kl_coef: float,
    token_bonus: float | Float[Tensor, "B R"] = 0.0,
) -> Float[Tensor, "B R"]:
    """r[t] = token_bonus - kl_coef * ref_kl[t], plus the score at the last real token.

    Without the bonus this is Ziegler et al. 2019, section 2.2.

    Args:
        score: one number per response, higher is better.
        ref_kl: per-token penalty, nats.
        mask: True at real tokens; each row has at least one (end-of-sequence).
        kl_coef: KL coefficient, score units per nat, >= 0.
        token_bonus: what each real token earns, score units (see update.budget).

    Returns:
        Rewards [B, R], 0 at padding.

    Raises:
        ValueError: a row without a real token; its score would be lost.
    """
    lengths = mask.sum(dim=1)
    if bool((lengths == 0).any()):
        rows = (lengths == 0).nonzero()[:, 0].tolist()
        raise ValueError(f"rows {rows} have no response token; want at least one in each row")
    columns = torch.arange(mask.shape[1], device=mask.device)
    is_last = columns[None] == lengths[:, None] - 1
    return (token_bonus - kl_coef * ref_kl) * mask + score[:, None] * is_last


def sequence_rewards(
    rewards: Float[Tensor, "B R"], mask: Bool[Tensor, "B R"]
) -> Float[Tensor, "B R"]:
    """The whole response as one action: the sum of a row's rewards at its last real token.

    Args:
        rewards: per token.
        mask: True at real tokens; each row has at least one.

    Returns:
        Rewards [B, R], 0 but at the last real token of each row.
    """
    columns = torch.arange(mask.shape[1], device=mask.device)
    is_last = columns[None] == mask.sum(dim=1, keepdim=True) - 1
    return (rewards * mask).sum(dim=1, keepdim=True) * is_last
