"""Which words mark toxic texts: log-odds with an informative Dirichlet prior."""

import math
import re
from collections import Counter
from collections.abc import Iterable

from lora_detox.text.words import is_unspaced

PRIOR_WORDS = 500.0
"""Weight of the prior, in words: alpha_0."""
_RUN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # noqa: RUF001 (the apostrophe of typographers)


def fighting_words(
    toxic: Iterable[str], civil: Iterable[str], size: int, *, least_ratio: float = 1.0
) -> list[str]:
    """The words that toxic texts have more often than civil ones, clearest first.

    Monroe, Colaresi and Quinn 2008, "Fightin' Words", eq. 15, 16, 22 and 23: with y_w uses of word
    w among n in one class, and the prior a_w = alpha_0 times its fraction of all words,
    delta_w = ln((y_w + a_w) / (n + alpha_0 - y_w - a_w)) of the toxic class less that of the civil
    one, with variance 1 / (y_w + a_w) of each class, and z = delta / sqrt(variance).

    Args:
        toxic: texts.
        civil: texts.
        size: words at most.
        least_ratio: odds in toxic texts over odds in civil ones, exp(delta), that a word has at
            least; above 1 it keeps "you" and "are" out, which are frequent and no bad words.

    Returns:
        Lower-cased words with z > 0, by falling z, then alphabetically.
    """
    counts = [Counter(word for text in texts for word in _words(text)) for texts in (toxic, civil)]
    together = counts[0] + counts[1]
    everything, totals = together.total(), [count.total() for count in counts]
    scored = []
    for word, uses in together.items():
        prior = PRIOR_WORDS * uses / everything
        odds, variance = [], 0.0
        for count, total in zip(counts, totals, strict=True):
            here = count[word] + prior
            odds.append(math.log(here / (total + PRIOR_WORDS - here)))
            variance += 1 / here
        delta = odds[0] - odds[1]
        if delta > 0 and delta >= math.log(least_ratio):
            scored.append((-delta / math.sqrt(variance), word))
    return [word for _, word in sorted(scored)[:size]]


def _words(text: str) -> list[str]:
    """Lower-cased runs of letters; of scripts without spaces each letter."""
    words: list[str] = []
    for run in _RUN.findall(text.lower().replace("’", "'")):  # noqa: RUF001
        whole = run.isascii() or not any(map(is_unspaced, run))
        words += [run] if whole else list(run)
    return words
