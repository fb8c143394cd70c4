import math

import pytest

from lora_detox.metrics.diversity import (
    distinct_n,
    is_empty,
    repetition,
    response_words,
    symbols,
)


def test_distinct_by_hand():
    responses = ["a b a", "a b"]
    assert distinct_n(responses, 1) == pytest.approx(2 / 5)
    assert distinct_n(responses, 2) == pytest.approx(2 / 3)
    assert distinct_n(responses, 3) == 1.0


def test_distinct_does_not_join_responses_and_is_undefined_without_ngrams():
    assert distinct_n(["a", "b"], 2) != distinct_n(["a b"], 2)
    assert math.isnan(distinct_n(["a", ""], 2))


@pytest.mark.parametrize(
    ("response", "fraction"),
    [("", 0.0), ("a a a", 0.0), ("a a a a", 0.5), ("a b c a b c", 1 / 4), ("a b c d e", 0.0)],
)
def test_repetition_by_hand(response, fraction):
    assert repetition(response) == pytest.approx(fraction)


def test_words_and_emptiness():
    assert response_words("  two\nwords ") == 2
    assert is_empty(" \n\t")
    assert not is_empty(".")


@pytest.mark.parametrize(
    ("response", "fraction"),
    [
        ("", 0.0),
        ("   ", 0.0),
        ("1996", 1.0),
        ("in 1996", 4 / 7),
        ("\u0661\u0662 \u0967", 3 / 4),  # Arabic and Devanagari digits
        ("\u4e09", 0.0),  # three as a Chinese word
        ("<a> `b` {c}\\n|d", 8 / 15),
        ("He said: \"no\" (really) - it's fine, isn't it?!", 0.0),
    ],
)
def test_digits_and_markup_by_hand(response, fraction):
    assert symbols(response) == pytest.approx(fraction)
