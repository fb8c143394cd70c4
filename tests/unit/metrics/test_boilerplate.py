"""Openings that many responses share, and self-BLEU against NLTK's BLEU."""

import math
import random

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from lora_detox.metrics.boilerplate import (
    SELF_BLEU_RESPONSES,
    common_openings,
    opening,
    openings_without_each,
    self_bleu,
)
from lora_detox.metrics.bootstrap import paired_openings_interval
from lora_detox.text.words import split_words


def sentences(count, seed, words=12, longest=14):
    draws = random.Random(seed)
    return [
        " ".join(f"w{int(words * draws.random() ** 2)}" for _ in range(draws.randint(0, longest)))
        for _ in range(count)
    ]


def test_an_opening_is_three_words_in_any_case_and_script():
    assert opening("The Man said: go") == opening("THE man Said: no") == ("the", "man", "said:")
    assert opening("Yes.") == ("yes.",)
    assert opening(" \n") == ()
    assert opening("\u4f60\u597d\u5417\uff1f") == ("\u4f60", "\u597d", "\u5417\uff1f")


def test_common_openings_by_hand():
    alike = ["I do not know."] * 6
    others = [f"word {number} here" for number in range(14)]
    assert common_openings(alike + others) == pytest.approx((6 + 9) / 20)
    assert common_openings([*alike, "", ""]) == pytest.approx(6 / 8)
    assert common_openings(others) == pytest.approx(10 / 14)
    assert common_openings(others[:10]) == 1.0
    assert math.isnan(common_openings(["", " "]))


def test_leaving_a_prompt_out_is_the_same_as_measuring_without_it():
    responses = sentences(60, seed=3, words=4, longest=5)
    owners = np.array([place // 3 for place in range(60)])
    slow = [
        common_openings([one for one, owner in zip(responses, owners, strict=True) if owner != out])
        for out in range(20)
    ]
    assert openings_without_each(responses, owners) == pytest.approx(slow)
    assert len(set(slow)) > 3


def test_the_interval_of_a_change_of_openings():
    before = [f"w{place} here now" for place in range(40)]
    after = ["I am sorry", *before[1:]]
    assert paired_openings_interval(before, before)[:] == (0.0, 0.0, 0.0)
    uniform = ["I am sorry"] * 20 + before[20:]
    interval = paired_openings_interval(before, uniform)
    assert interval.change == pytest.approx((20 + 9) / 40 - 10 / 40)
    assert 0 < interval.low < interval.change < interval.high
    assert paired_openings_interval(before, after).change == 0.0
    for nothing in (
        paired_openings_interval([""] * 3, ["a"] * 3),
        paired_openings_interval(["a"], ["b"]),
    ):
        assert math.isnan(nothing.low)


@pytest.mark.parametrize("seed", range(4))
def test_self_bleu_is_what_nltk_says_of_each_against_all_others(seed):
    responses = [*sentences(12, seed), "w0", "w1 w0", "unlike anything else here"]
    words = [split_words(text) for text in responses]
    expected = [
        sentence_bleu(
            words[:place] + words[place + 1 :],
            words[place],
            smoothing_function=SmoothingFunction().method1,
        )
        for place in range(len(words))
    ]
    assert self_bleu(responses) == pytest.approx(sum(expected) / len(expected), abs=1e-12)
    assert 0 < self_bleu(responses) < 1


def test_self_bleu_at_its_ends():
    assert self_bleu(["one and the same text"] * 3) == pytest.approx(1.0)
    assert self_bleu(["nothing in common", "with that at all"]) == 0.0
    assert self_bleu(["", ""]) == 0.0
    assert math.isnan(self_bleu(["alone in here"]))


def test_of_many_responses_the_same_evenly_spaced_ones_are_taken():
    responses = sentences(2 * SELF_BLEU_RESPONSES, seed=9)
    assert self_bleu(responses) == self_bleu(responses[::2])
    assert self_bleu(responses) != self_bleu(responses[1::2])
