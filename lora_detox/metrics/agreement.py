"""Do two scorers agree? Spearman's rank correlation of their toxicities, and how it changed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from lora_detox.metrics import names
from lora_detox.metrics.bootstrap import CONFIDENCE, RESAMPLES, Interval
from lora_detox.types import Evaluation

FloatArray = NDArray[np.float64]
Pair = tuple[Sequence[float], Sequence[float]]
_BATCH_NUMBERS = 1_000_000
"""Ranks that are held at once."""


def with_agreement(evaluation: Evaluation) -> Evaluation:
    """An evaluation with how far reward and judge agree, where there is a judge.

    Args:
        evaluation: with the toxicities of both.

    Returns:
        The same with the judge's toxicity less the reward's of each response, and their rank
        correlation where it is known.
    """
    columns = evaluation.per_response
    if names.JUDGE_TOXICITY not in columns:
        return evaluation
    pair = columns[names.TOXICITY], columns[names.JUDGE_TOXICITY]
    gap = [judge - reward for reward, judge in zip(*pair, strict=True)]
    agreement = rank_correlation(*pair)
    known = {} if np.isnan(agreement) else {names.JUDGE_AGREEMENT: agreement}
    return replace(
        evaluation,
        per_response={**columns, names.JUDGE_GAP: gap},
        corpus={**evaluation.corpus, **known},
    )


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rho: Pearson's correlation of the ranks, ties with their mean rank.

    Args:
        first: numbers of one scorer [B].
        second: those of another for the same responses [B].

    Returns:
        A number in [-1, 1]; NaN for fewer than two responses, or where a scorer gives all of them
        the same number.
    """
    both = np.asarray([first, second], dtype=np.float64)
    return float(_correlations(both[:1], both[1:])[0]) if both.shape[1] > 1 else float("nan")


def paired_correlation_interval(
    before: Pair,
    after: Pair,
    *,
    groups: Sequence[int],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile interval on the change of the rank correlation, by drawing prompts.

    Args:
        before: the numbers of both scorers.
        after: the same for responses to the same prompts.
        groups: which prompt each response belongs to.
        confidence: in (0, 1).
        resamples: how many are drawn.
        seed: of the draws.

    Returns:
        The change and its interval; NaN for fewer than two prompts, or where no draw has one.
    """
    columns = np.asarray([*before, *after], dtype=np.float64)
    change = rank_correlation(*after) - rank_correlation(*before)
    _, index = np.unique(groups, return_inverse=True)
    rows = [np.flatnonzero(index == place) for place in range(int(index.max(initial=-1)) + 1)]
    if len(rows) < 2:
        return Interval(change, np.nan, np.nan)
    sizes = {len(one) for one in rows}
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(rows), size=(resamples, len(rows)))
    if len(sizes) == 1:
        changes = _drawn_changes(columns, np.stack(rows)[drawn].reshape(resamples, -1))
    else:
        picks = (np.concatenate([rows[place] for place in one])[None] for one in drawn)
        changes = np.concatenate([_drawn_changes(columns, one) for one in picks])
    changes = changes[np.isfinite(changes)]
    if not len(changes):
        return Interval(change, np.nan, np.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(changes, [tail, 1 - tail])
    return Interval(change, float(low), float(high))


def _drawn_changes(columns: FloatArray, picks: NDArray[np.int64]) -> FloatArray:
    """Change of the correlation for rows of drawn responses [D, B]."""
    step = max(1, _BATCH_NUMBERS // picks.shape[1])
    parts = []
    for first in range(0, len(picks), step):
        drawn = columns[:, picks[first : first + step]]
        parts.append(_correlations(drawn[2], drawn[3]) - _correlations(drawn[0], drawn[1]))
    return np.concatenate(parts)


def _correlations(first: FloatArray, second: FloatArray) -> FloatArray:
    """Rank correlation of each row of [D, B]."""
    ranks = [rankdata(one, axis=1) for one in (first, second)]
    centred = [one - one.mean(axis=1, keepdims=True) for one in ranks]
    products = (centred[0] * centred[1]).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(
            products / np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
        )
