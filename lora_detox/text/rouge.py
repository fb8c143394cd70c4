"""ROUGE by the `rouge_score` library, for texts of any script.

English texts go through the library's own tokenizer with the Porter stemmer, so their numbers are
the library's to the bit. It drops everything but a-z and 0-9, so other texts are read by
`words.compared_words`, whose words of a-z alone are stemmed as in English. A pair of texts is
always read by one rule.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from nltk.stem.porter import PorterStemmer
from rouge_score import tokenize as english
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from lora_detox.text.words import compared_words, has_words, is_english, symbols

STEMS = 100_000
"""Words whose stems are kept: stemming is most of what ROUGE costs, and words come back."""


class CachedStemmer:
    """The library's stemmer, which sees each word once."""

    def __init__(self) -> None:
        self.stem = lru_cache(maxsize=STEMS)(PorterStemmer().stem)


class WordTokenizer(Tokenizer):  # type: ignore[misc]  # rouge_score ships no types
    """Words of any script; those of a-z and 0-9 as in English."""

    def __init__(self) -> None:
        self._stemmer = CachedStemmer()

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, in order."""
        if is_english(text):
            return self._in_english(text)
        words = compared_words(text)
        return [one for word in words for one in self._stemmed(word)]

    def _stemmed(self, word: str) -> list[str]:
        return self._in_english(word) if word.isascii() else [word]

    def _in_english(self, text: str) -> list[str]:
        return list(english.tokenize(text, self._stemmer))


class SymbolTokenizer(Tokenizer):  # type: ignore[misc]
    """Every character, for two texts without any word: emoji, signs."""

    def tokenize(self, text: str) -> list[str]:
        """The characters of a text, in order, white space left out."""
        return symbols(text)


@lru_cache(maxsize=4)
def _scorers(keys: tuple[str, ...]) -> tuple[Any, Any]:
    tokenizers = WordTokenizer(), SymbolTokenizer()
    by_words, by_symbols = (RougeScorer(list(keys), tokenizer=one) for one in tokenizers)
    return by_words, by_symbols


def best_f(keys: tuple[str, ...], references: Sequence[str], response: str) -> dict[str, float]:
    """F of a response against the references, each key with the reference where its F is highest.

    Args:
        keys: names of `rouge_score`, as "rougeL".
        references: at least one.
        response: the text that is measured.

    Returns:
        Key -> F in [0, 1]; 1 for identical texts with at least n words, where the key counts
        n-grams.
    """
    by_words, by_symbols = _scorers(keys)
    wordless = not has_words(response)
    scores = [
        (by_symbols if wordless and not has_words(reference) else by_words).score(
            reference, response
        )
        for reference in references
    ]
    return {key: max(float(score[key].fmeasure) for score in scores) for key in keys}
