"""The numbers that `step` returns, under the keys that old programs read."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lora_detox.classic.core import masked_mean

PADDING = -1.0
"""Fills rows of unequal length where minibatch statistics are stacked."""


def stacked(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Statistics of all mini-batches: one row each, distributions as a single long row.

    Args:
        parts: one mapping per mini-batch, all with the same keys.

    Returns:
        Tensors [mini-batches, ...]; `policy/advantages` and `policy/ratio` are [1, N].
    """
    whole: dict[str, Tensor] = {}
    for name in parts[0]:
        rows = [part[name].float().flatten() for part in parts]
        whole[name] = torch.nn.utils.rnn.pad_sequence(rows, True, PADDING)
    for name in ("policy/advantages", "policy/ratio"):
        if name in whole:
            whole[name] = torch.cat([part[name].float().flatten() for part in parts])[None]
    return whole


def deviation_of(values: Tensor) -> float:
    """Standard deviation, 0 for a single value (TRL: nan)."""
    return float(values.std()) if len(values) > 1 else 0.0


def token_stats(queries: Sequence[Tensor], responses: Sequence[Tensor]) -> dict[str, Any]:
    """Lengths in tokens: mean, standard deviation and the lengths themselves."""
    stats: dict[str, Any] = {}
    for name, rows in (("queries", queries), ("responses", responses)):
        lengths = torch.tensor([float(len(row)) for row in rows])
        stats[f"tokens/{name}_len_mean"] = float(lengths.mean())
        stats[f"tokens/{name}_len_std"] = deviation_of(lengths)
        stats[f"tokens/{name}_dist"] = lengths
    return stats


def step_stats(kl_coef: float, data: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of a step but its times.

    Args:
        kl_coef: the KL coefficient during the step, in units of the score per nat.
        data: `scores` [B]; `logprobs`, `ref_logprobs`, `non_score_reward`, `kls` and `masks`
            [B, T-1]; `train_stats` (of `stacked`); `queries` and `responses`.

    Returns:
        Key -> tensor or float.
    """
    mask, scores = data["masks"], data["scores"].float()
    kl = (data["kls"] * mask).sum(dim=-1)
    stats: dict[str, Any] = {
        "objective/kl": kl.mean(),
        "objective/kl_dist": kl,
        "objective/logprobs": data["logprobs"],
        "objective/ref_logprobs": data["ref_logprobs"],
        "objective/kl_coef": kl_coef,
        "objective/entropy": (-data["logprobs"] * mask).sum(dim=-1).mean(),
        "ppo/mean_non_score_reward": masked_mean(data["non_score_reward"], mask),
        "ppo/mean_scores": scores.mean(),
        "ppo/std_scores": deviation_of(scores),
    }
    stats |= token_stats(data["queries"], data["responses"])
    for name, rows in data["train_stats"].items():
        stats[f"ppo/{name}"] = rows.mean(dim=0)
    error, variance = stats["ppo/val/error"], stats["ppo/returns/var"]
    stats["ppo/val/var_explained"] = 1 - error / variance.clamp(min=1e-12)
    return stats


def as_numbers(stats: Mapping[str, Any], arrays: Sequence[str]) -> dict[str, Any]:
    """Floats for scalars, numpy arrays for distributions.

    Args:
        stats: of `step_stats`.
        arrays: keys that stay arrays even with a single element.

    Returns:
        The same keys.
    """
    plain: dict[str, Any] = {}
    for name, value in stats.items():
        if isinstance(value, Tensor):
            array = value.detach().float().cpu().numpy()
            plain[name] = array if name in arrays or array.size != 1 else float(array.item())
        else:
            plain[name] = float(value) if isinstance(value, int | float) else value
    return plain


ARRAYS = (
    "objective/kl_dist",
    "objective/logprobs",
    "objective/ref_logprobs",
    "ppo/policy/advantages",
    "ppo/policy/ratio",
    "tokens/queries_dist",
    "tokens/responses_dist",
)
"""Keys whose values are distributions."""


class Clock:
    """Seconds by phase of a step, each from the end of the one before."""

    def __init__(self) -> None:
        self.began = self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def stop(self, phase: str) -> None:
        """End a phase."""
        now = time.perf_counter()
        self.seconds[f"time/ppo/{phase}"] = now - self.last
        self.last = now

    def times(self) -> dict[str, float]:
        """All phases, and `time/ppo/total`."""
        return self.seconds | {"time/ppo/total": time.perf_counter() - self.began}
