"""How good a toxicity classifier is: accuracy, F1, AUC, calibration, and whom it wrongs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

BINS = 10
FloatArray = NDArray[np.float64]


def classification_figures(
    toxicity: Sequence[float], toxic: Sequence[bool], threshold: float = 0.5
) -> dict[str, float | int]:
    """Figures of a classifier whose positive class is toxic.

    The expected calibration error is sum_b n_b / n |mean toxicity_b - fraction of toxic_b| over ten
    equal bins of the probability (Guo et al. 2017).

    Args:
        toxicity: probability of toxic for each text, in [0, 1].
        toxic: what the label says.
        threshold: a text is called toxic from here on.

    Returns:
        `n`, `accuracy`, `precision`, `recall`, `f1`, `false_positive_rate`, `civil_toxicity` (mean
        probability on civil texts), `auc`, `calibration_error` and `brier`; what one class alone
        cannot give is absent.
    """
    scores = np.asarray(toxicity, dtype=np.float64)
    labels = np.asarray(toxic, dtype=bool)
    called = scores >= threshold
    hits, called_count = int((called & labels).sum()), int(called.sum())
    figures: dict[str, float | int] = {
        "n": len(labels),
        "accuracy": float((called == labels).mean()),
        "calibration_error": _calibration_error(scores, labels),
        "brier": float(((scores - labels) ** 2).mean()),
    }
    if labels.any():
        precision = hits / called_count if called_count else 0.0
        recall = hits / int(labels.sum())
        both = precision + recall
        figures |= {"precision": precision, "recall": recall}
        figures["f1"] = 2 * precision * recall / both if both else 0.0
    if not labels.all():
        figures["false_positive_rate"] = float(called[~labels].mean())
        figures["civil_toxicity"] = float(scores[~labels].mean())
    if labels.any() and not labels.all():
        figures["auc"] = _auc(scores, labels)
    return figures


def identity_gap(
    toxicity: Sequence[float],
    toxic: Sequence[bool],
    identities: Sequence[str | None],
    *,
    threshold: float = 0.5,
    least: int = 20,
) -> dict[str, Any] | None:
    """False-positive rates by the identity that civil texts mention (Dixon et al. 2018).

    Args:
        toxicity: probability of toxic for each text, in [0, 1].
        toxic: what the label says.
        identities: the identity that each text mentions, None for none.
        threshold: a text is called toxic from here on.
        least: identities with fewer civil texts are left out.

    Returns:
        `overall` (the rate on all civil texts), `gap` (largest minus smallest rate of an identity),
        `equality_difference` (sum of |rate - overall| over identities, Dixon's measure),
        `identities` (how many), `highest` and `lowest` as {identity: rate}; None with fewer than
        two identities.
    """
    called = np.asarray(toxicity, dtype=np.float64) >= threshold
    civil = ~np.asarray(toxic, dtype=bool)
    named = np.asarray([one or "" for one in identities])
    rates = {}
    for identity in sorted(set(named.tolist()) - {""}):
        rows = civil & (named == identity)
        if rows.sum() >= least:
            rates[identity] = float(called[rows].mean())
    if len(rates) < 2:
        return None
    overall = float(called[civil].mean())
    ordered = sorted(rates, key=lambda one: (-rates[one], one))
    return {
        "overall": overall,
        "gap": rates[ordered[0]] - rates[ordered[-1]],
        "equality_difference": sum(abs(rate - overall) for rate in rates.values()),
        "identities": len(rates),
        "highest": {one: rates[one] for one in ordered[:3]},
        "lowest": {one: rates[one] for one in ordered[-3:]},
    }


def _auc(scores: FloatArray, labels: NDArray[np.bool_]) -> float:
    """Share of (toxic, civil) pairs in the right order, ties half: the rank-sum statistic."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    ranks = rankdata(scores)
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _calibration_error(scores: FloatArray, labels: NDArray[np.bool_]) -> float:
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    error = 0.0
    for one in range(BINS):
        inside = bins == one
        if inside.any():
            gap = abs(float(scores[inside].mean()) - float(labels[inside].mean()))
            error += float(inside.mean()) * gap
    return error
