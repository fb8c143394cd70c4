"""The free functions that old programs import from `trl.core`, over the engine's own.

`masked_*` and `whiten` take tensors of any rank and masks of any dtype; the arithmetic is that of
`advantages.whitening`.
"""

import numpy as np
import torch
from torch import Tensor, nn
from transformers import set_seed as transformers_set_seed

from lora_detox.advantages import whitening
from lora_detox.policy.token_stats import sampling_logits
from lora_detox.rollout.sampling import draw
from lora_detox.types import Sampling


def set_seed(seed: int) -> None:
    """Seed `random`, numpy and torch on every device."""
    transformers_set_seed(int(seed))


class LengthSampler:
    """Draws integers from [min_value, max_value) with numpy's global generator.

    Args:
        min_value: smallest length.
        max_value: one more than the largest.
    """

    def __init__(self, min_value: int, max_value: int) -> None:
        self.values = list(range(min_value, max_value))
        if not self.values:
            raise ValueError(f"LengthSampler: no integer in [{min_value}, {max_value})")

    def __call__(self) -> int:
        """One length."""
        return int(np.random.choice(self.values))  # noqa: NPY002 - old programs seed this generator


@torch.no_grad()
def respond_to_batch(
    model: nn.Module, queries: Tensor, txt_len: int = 20, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """Sample a continuation of fixed length, one whole forward pass per token.

    Args:
        model: a value-head model, or any whose first output is the logits.
        queries: token ids [B, Q] without padding.
        txt_len: tokens to write.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set of this probability.

    Returns:
        Response ids [B, txt_len].
    """
    ids = queries
    sampling = Sampling(top_k=int(top_k), top_p=float(top_p))
    for position in range(txt_len):
        logits = model(ids)[0][:, -1].float()
        at = torch.full((len(logits),), position, device=logits.device)
        logits = sampling_logits(logits, at, sampling, eos_token_ids=())
        uniform = torch.rand(len(logits), device=logits.device, dtype=torch.float64)
        token = draw(logits.log_softmax(dim=-1), uniform, greedy=False)
        ids = torch.cat([ids, token[:, None]], dim=1)
    return ids[:, -txt_len:]


def logprobs_from_logits(logits: Tensor, labels: Tensor | None, gather: bool = True) -> Tensor:
    """Log-probabilities of labels, or of the whole vocabulary.

    Args:
        logits: [B, T, V].
        labels: token ids [B, T]; unused where `gather` is False.
        gather: pick the labels' entries.

    Returns:
        [B, T], or [B, T, V] without gathering, nats.
    """
    logprobs = logits.log_softmax(dim=-1)
    if not gather or labels is None:
        return logprobs
    return logprobs.gather(-1, labels[..., None])[..., 0]


def entropy_from_logits(logits: Tensor) -> Tensor:
    """Entropy of each distribution over the last dimension, nats."""
    logprobs = logits.log_softmax(dim=-1)
    return -(logprobs.exp() * logprobs.clamp(min=-1e4)).sum(dim=-1)


def masked_mean(values: Tensor, mask: Tensor, axis: int | None = None) -> Tensor:
    """Mean over the positions where the mask is not 0, in all or along one axis."""
    if axis is None:
        return whitening.masked_mean(*_rows(*torch.broadcast_tensors(values, mask)))
    return (values * mask).sum(dim=axis) / mask.sum(dim=axis)


def masked_var(values: Tensor, mask: Tensor, unbiased: bool = True) -> Tensor:
    """Variance over the positions where the mask is not 0.

    Args:
        values: any shape.
        mask: the same shape.
        unbiased: with Bessel's correction.

    Returns:
        A scalar; 0 for a single position.

    Raises:
        ValueError: an empty mask.
    """
    rows, kept = _rows(values, mask)
    count = kept.sum()
    if count == 0:
        raise ValueError("the mask is empty, so there is no variance; use a larger mini_batch_size")
    variance = whitening.masked_variance(rows, kept)
    return variance if unbiased else variance * (count - 1) / count


def masked_whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Variance 1 over the mask, and mean 0 too where `shift_mean`; 0 outside the mask.

    Without `shift_mean` the mean stays what it was. TRL fills the places outside the mask with
    other numbers, which its `whiten_rewards` then discounts into the advantages.
    """
    rows, kept = _rows(values, mask)
    whitened = whitening.whiten(rows, kept)
    if not shift_mean:
        whitened = whitened + whitening.masked_mean(rows, kept) * kept
    return whitened.reshape(values.shape)


def whiten(values: Tensor, shift_mean: bool = True) -> Tensor:
    """Variance 1 over all values, and mean 0 too where `shift_mean`."""
    return masked_whiten(values, torch.ones_like(values, dtype=torch.bool), shift_mean)


def _rows(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """One row of values and its mask, as the engine's functions take them."""
    return values.reshape(1, -1), (mask != 0).reshape(1, -1)
