"""BLEU of responses against their references, and how sure a change of it is.

NLTK counts and weighs (Papineni et al. 2002); words are those of `text.words.loose_words`, so case
and punctuation are left out, in any script.
"""

import math
from collections.abc import Sequence

import numpy as np
from nltk.translate.bleu_score import brevity_penalty, closest_ref_length, modified_precision
from numpy.typing import NDArray

from lora_detox.metrics.bootstrap import CONFIDENCE, RESAMPLES, Interval
from lora_detox.text.words import loose_words

FloatArray = NDArray[np.float64]
ORDERS = (1, 2, 3, 4)
_EPSILON = 0.1
"""What stands for no n-gram in common in the whole set: method 1 of Chen and Cherry 2014."""


def bleu_counts(responses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """What the BLEU of any set of responses is made of.

    Args:
        responses: B response texts.
        references: for each its references; a response without any counts nothing.

    Returns:
        By response n-grams in common with a reference, n-grams (orders 1 to 4 each), words, words
        of the reference of the nearest length [B, 10].

    Raises:
        ValueError: if there is not one list of references per response.
    """
    rows = []
    for response, refs in zip(responses, references, strict=True):
        words, targets = loose_words(response), [loose_words(one) for one in refs]
        if not targets:
            rows.append([0.0] * (2 * len(ORDERS) + 2))
            continue
        common = [
            modified_precision(targets, words, n).numerator if len(words) >= n else 0
            for n in ORDERS
        ]
        possible = [max(0, len(words) - n + 1) for n in ORDERS]
        nearest = closest_ref_length(targets, len(words))
        rows.append([*map(float, common), *map(float, possible), float(len(words)), float(nearest)])
    return np.array(rows, dtype=np.float64).reshape(len(rows), 2 * len(ORDERS) + 2)


def bleu_of(counts: FloatArray) -> float:
    """BLEU-4 of a set with equal weights.

    Args:
        counts: rows of `bleu_counts` summed over the set [10].

    Returns:
        A number in [0, 1]; NaN where nothing has a reference, 0 without a word in common.
    """
    common, possible = counts[: len(ORDERS)], counts[len(ORDERS) : 2 * len(ORDERS)]
    words, nearest = counts[-2:]
    if not nearest:
        return math.nan
    if not common[0]:
        return 0.0
    precisions = np.maximum(common, _EPSILON) / np.maximum(possible, 1)
    return float(brevity_penalty(nearest, words) * np.exp(np.log(precisions).mean()))


def bleu(responses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of all responses together; NaN where none has a reference (see `bleu_of`)."""
    return bleu_of(bleu_counts(responses, references).sum(axis=0))


def paired_bleu_interval(
    before: FloatArray,
    after: FloatArray,
    *,
    groups: Sequence[int] | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile interval on the change of BLEU, by drawing prompts.

    Args:
        before: rows of `bleu_counts` [B, 10].
        after: the same for the same prompts.
        groups: which prompt each response belongs to; None says each its own.
        confidence: in (0, 1).
        resamples: how many are drawn.
        seed: of the draws.

    Returns:
        The change and its interval, NaN for fewer than two prompts.
    """
    owners = np.arange(len(before)) if groups is None else np.asarray(groups)
    number = {int(owner): place for place, owner in enumerate(np.unique(owners))}
    totals = np.zeros((len(number), 2, before.shape[1]))
    for owner, first, second in zip(owners, before, after, strict=True):
        totals[number[int(owner)]] += np.stack([first, second])

    def change(both: FloatArray) -> float:
        return bleu_of(both[1]) - bleu_of(both[0])

    whole = change(totals.sum(axis=0))
    prompts = len(totals)
    if prompts < 2:
        return Interval(whole, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    drawn = np.array([change(one) for one in np.tensordot(counts, totals, axes=1)])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(whole, math.nan, math.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(whole, float(low), float(high))
