"""By which rules a set of texts was read, in the words of a report."""

from collections import Counter
from collections.abc import Iterable

from lora_detox.text.words import compared_words, is_unspaced, split_words, symbols

ENGLISH = "English words, Porter-stemmed"
UNICODE = "Unicode words"
CHARACTERS = "single characters"
SYMBOLS = "symbols"
SPACED = "words between white space"


def compared_by(texts: Iterable[str]) -> str:
    """What ROUGE compares in these texts.

    Args:
        texts: responses and references.

    Returns:
        The kinds of words with their fractions where there are several, as in "Unicode words
        (97 %), English words, Porter-stemmed (3 %)". Words of a-z and 0-9 alone count as English
        in every language.
    """
    kinds: Counter[str] = Counter()
    for text in texts:
        words = compared_words(text)
        kinds.update(map(_compared_kind, words))
        if not words:
            kinds[SYMBOLS] += len(symbols(text))
    return _described(kinds, ENGLISH)


def counted_by(texts: Iterable[str]) -> str:
    """What word counts, distinct-n and repetition count in these texts.

    Args:
        texts: responses.

    Returns:
        As of `compared_by`.
    """
    words = (word for text in texts for word in split_words(text))
    return _described(Counter(map(_counted_kind, words)), SPACED)


def reads_english(rule: str) -> bool:
    """Whether texts that are `compared_by` this rule pass for English."""
    return rule == ENGLISH or rule.startswith(f"{ENGLISH} (over 99 %)")


def _compared_kind(word: str) -> str:
    if word.isascii():
        return ENGLISH
    return CHARACTERS if is_unspaced(word[0]) else UNICODE


def _counted_kind(word: str) -> str:
    return CHARACTERS if any(map(is_unspaced, word)) else SPACED


def _described(kinds: Counter[str], without: str) -> str:
    present = [(kind, count) for kind, count in kinds.most_common() if count]
    if len(present) < 2:
        return present[0][0] if present else without
    whole = sum(count for _, count in present)
    return ", ".join(f"{kind} ({_percent(count / whole)})" for kind, count in present)


def _percent(fraction: float) -> str:
    rounded = round(100 * fraction)
    if not 0 < rounded < 100:
        return "under 1 %" if rounded == 0 else "over 99 %"
    return f"{rounded} %"
