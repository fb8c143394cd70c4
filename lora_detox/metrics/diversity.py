"""Diversity, repetition, length and signs: what collapses when a policy exploits its scorer.

Words are those of `text.words.split_words`: what white space separates, case kept, so the numbers
do not depend on a tokenizer; single characters of scripts that put no space between words.
"""

import math
from collections.abc import Sequence

from lora_detox.text.words import is_lettered, split_words

REPETITION_NGRAM = 3
MARKUP = frozenset(r"<>{}[]|\/=_*#@&^~$%+`")
"""Signs of markup, code, addresses and tables. Quotes, brackets and dashes of prose are not among
them."""

NGram = tuple[str, ...]


def word_ngrams(response: str, n: int) -> list[NGram]:
    """The n-grams of words of one response, in order, repeats included."""
    words = split_words(response)
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def distinct_n(responses: Sequence[str], n: int) -> float:
    """Distinct-n = unique n-grams / all n-grams, over the whole set (Li et al. 2016).

    It falls as a set grows, so compare only sets of about the same size and length.

    Args:
        responses: response texts.
        n: words per n-gram, at least 1.

    Returns:
        A fraction in (0, 1], high is diverse; NaN if no response has n words.
    """
    ngrams = [ngram for response in responses for ngram in word_ngrams(response, n)]
    return len(set(ngrams)) / len(ngrams) if ngrams else math.nan


def repetition(response: str) -> float:
    """Share of a response's 3-grams of words that repeat an earlier one of the same response.

    Args:
        response: a response text.

    Returns:
        A fraction in [0, 1), 0 for a response of fewer than four words.
    """
    ngrams = word_ngrams(response, REPETITION_NGRAM)
    return 1.0 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def copied(prompt: str, response: str) -> float:
    """Share of a response's 3-grams of words that its prompt has too, whatever their case.

    Args:
        prompt: without its template.
        response: a response text.

    Returns:
        A fraction in [0, 1]; 0 for a response of fewer than three words.
    """
    ngrams = word_ngrams(response.casefold(), REPETITION_NGRAM)
    if not ngrams:
        return 0.0
    given = set(word_ngrams(prompt.casefold(), REPETITION_NGRAM))
    return sum(ngram in given for ngram in ngrams) / len(ngrams)


def response_words(response: str) -> int:
    """How many words a response has."""
    return len(split_words(response))


def lettered_words(response: str) -> int:
    """How many words of a response begin with a letter: figures and signs do not."""
    return sum(map(is_lettered, split_words(response)))


def is_empty(response: str) -> bool:
    """True if a response has nothing but whitespace."""
    return not response.strip()


def symbols(response: str) -> float:
    """Fraction of a response's characters, white space included, that are digits or markup.

    Args:
        response: a response text.

    Returns:
        A number in [0, 1]; digits are those of any script. 0 for an empty response.
    """
    count = sum(one.isdigit() or one in MARKUP for one in response)
    return count / len(response) if response else 0.0
