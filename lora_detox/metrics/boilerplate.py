"""Stock phrases: do all responses begin alike, and how alike are they as wholes?

Words are those of `text.words.split_words`, as for distinct-n.
"""

import heapq
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lora_detox.metrics.diversity import NGram, word_ngrams
from lora_detox.text.words import split_words

OPENING_WORDS, FREQUENT_OPENINGS = 3, 10
SELF_BLEU_RESPONSES = 500
_ORDERS = (1, 2, 3, 4)
_EPSILON = 0.1
"""What stands for no n-gram in common: method 1 of Chen and Cherry 2014, as in Texygen."""


def opening(response: str) -> NGram:
    """The first three words of a response, case-folded; fewer where it has fewer."""
    return tuple(split_words(response.casefold())[:OPENING_WORDS])


def common_openings(responses: Sequence[str]) -> float:
    """Fraction of responses that begin with one of the ten most frequent openings.

    It falls as a set grows, so compare only sets of about the same size; ten responses have 1.

    Args:
        responses: response texts.

    Returns:
        A fraction in (0, 1], high is uniform; NaN if no response has a word. A response without a
        word begins with none.
    """
    counts = Counter(filter(None, map(opening, responses)))
    return _most(counts.values()) / len(responses) if counts else math.nan


def openings_without_each(responses: Sequence[str], owners: NDArray[np.int64]) -> list[float]:
    """`common_openings` without each prompt in turn, in the order of the prompts' numbers.

    Args:
        responses: response texts.
        owners: number of the prompt of each response.

    Returns:
        One fraction per prompt, NaN where nothing is left.
    """
    openings = [opening(response) for response in responses]
    counts = Counter(filter(None, openings))
    ranked = counts.most_common()
    of_prompt: dict[int, list[NGram]] = {int(owner): [] for owner in np.unique(owners)}
    for owner, one in zip(owners, openings, strict=True):
        of_prompt[int(owner)].append(one)
    left_out = []
    for own_openings in of_prompt.values():
        own = Counter(filter(None, own_openings))
        rest = len(responses) - len(own_openings)
        # Ten openings of others stand among these whatever the prompt's own ones were.
        candidates = ranked[: FREQUENT_OPENINGS + len(own)]
        frequent = _most(count - own[one] for one, count in candidates)
        left_out.append(frequent / rest if rest else math.nan)
    return left_out


def self_bleu(responses: Sequence[str]) -> float:
    """Mean BLEU-4 of each response against all others (Zhu et al. 2018, "Texygen").

    BLEU as in Papineni et al. 2002 with equal weights, the brevity penalty by the reference of the
    nearest length, and 0.1 in the place of 0 n-grams in common. Of more than 500 responses 500 are
    taken, evenly spaced, so the same ones of the same prompts. It rises as a set grows.

    Args:
        responses: response texts.

    Returns:
        A number in [0, 1], high is uniform; NaN for fewer than two responses.
    """
    count = min(len(responses), SELF_BLEU_RESPONSES)
    if count < 2:
        return math.nan
    chosen = [responses[place * len(responses) // count] for place in range(count)]
    grams = [[Counter(word_ngrams(text, n)) for n in _ORDERS] for text in chosen]
    most = _two_highest(grams)
    lengths = [len(split_words(text)) for text in chosen]
    ordered = sorted(lengths)
    scores = []
    for place, (own, length) in enumerate(zip(grams, lengths, strict=True)):
        common = [
            sum(min(times, _others_most(most[gram], place)) for gram, times in counts.items())
            for counts in own
        ]
        penalty = _brevity_penalty(length, _nearest_other(ordered, length))
        scores.append(penalty * _precision(common, length))
    return sum(scores) / count


def _most(counts: Iterable[int]) -> int:
    """How many responses the most frequent openings have together."""
    return sum(heapq.nlargest(FREQUENT_OPENINGS, counts))


def _two_highest(grams: Sequence[Sequence[Counter[NGram]]]) -> dict[NGram, tuple[int, int, int]]:
    """n-gram -> its highest count in a response, the place of that one, the highest elsewhere."""
    most: dict[NGram, tuple[int, int, int]] = {}
    for place, orders in enumerate(grams):
        for counts in orders:
            for gram, times in counts.items():
                first, owner, second = most.get(gram, (0, -1, 0))
                if times > first:
                    most[gram] = (times, place, first)
                else:
                    most[gram] = (first, owner, max(second, times))
    return most


def _others_most(entry: tuple[int, int, int], place: int) -> int:
    first, owner, second = entry
    return second if owner == place else first


def _precision(common: Sequence[int], length: int) -> float:
    """Geometric mean of the n-gram precisions, 0 without a word in common."""
    if not common[0]:
        return 0.0
    logs = [
        math.log((count or _EPSILON) / max(1, length - n + 1))
        for n, count in zip(_ORDERS, common, strict=True)
    ]
    return math.exp(sum(logs) / len(logs))


def _nearest_other(ordered: Sequence[int], length: int) -> int:
    """Length nearest to that of a response among the others, the shorter of two."""
    place = bisect_left(ordered, length)
    around = [ordered[i] for i in (place - 1, place + 1) if 0 <= i < len(ordered)]
    return min(around, key=lambda other: (abs(other - length), other))


def _brevity_penalty(length: int, reference: int) -> float:
    if length > reference:
        return 1.0
    return math.exp(1 - reference / length) if length else 0.0
