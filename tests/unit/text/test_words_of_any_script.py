# ruff: noqa: RUF001
"""Word counts, distinct-n, repetition, length and similarity in every language."""

import math
import random

import pytest

from lora_detox.metrics.diversity import (
    distinct_n,
    lettered_words,
    repetition,
    response_words,
    word_ngrams,
)
from lora_detox.scores.terms import text_term
from lora_detox.text.kinds import compared_by, counted_by
from lora_detox.text.words import split_words
from tests.unit.text.languages import LANGUAGES, UNSPACED


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_words(language):
    for text in LANGUAGES[language]:
        assert response_words(text) > 0
        letters = any(character.isalpha() for character in text)
        assert (lettered_words(text) > 0) is letters
        assert repetition(text) == 0.0
        # No ending but a language without spaces loses or invents a character.
        assert "".join(split_words(text)) == "".join(text.split())


@pytest.mark.parametrize("language", UNSPACED)
def test_characters_are_the_words_where_there_are_no_spaces(language):
    text = LANGUAGES[language][0]
    assert response_words(text) > 4
    assert 0 < distinct_n([text, text], 2) == pytest.approx(0.5)
    assert repetition(text + text) > 0.3
    longer = text_term("length", 20).score([""] * 2, [text, text + text]).score
    assert -math.log(20) < longer[0] < longer[1]


def test_words_of_spaced_languages_are_those_between_white_space():
    rng = random.Random(0)
    spaced = LANGUAGES.keys() - {*UNSPACED, "Chinese with English"}
    words = [word for name in sorted(spaced) for word in LANGUAGES[name][0].split()]
    words += ["“Quoted”,", "don’t", "3.14", "—", "½", "snake_case", "¿Qué", "😀"]
    for _ in range(200):
        text = "  ".join(rng.choices(words, k=12))
        assert split_words(text) == text.split()
        assert lettered_words(text) == sum(word[0].isalpha() for word in text.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("你好，世界。", ["你", "好，", "世", "界。"]),
        ("我用Python3写代码！", ["我", "用", "Python3", "写", "代", "码！"]),
        ("「你好」—价格3.14元", ["「你", "好」—", "价", "格", "3.14", "元"]),
        ("ラーメンを食べた", ["ラ", "ー", "メ", "ン", "を", "食", "べ", "た"]),
        ("น้ำดี ๑๒", ["น้ำ", "ดี", "๑๒"]),
        ("ខ្មែរ", ["ខ្មែ", "រ"]),
        ("ሰላም፡ለዓለም", ["ሰላም", "ለዓለም"]),
        ("—— 你", ["——", "你"]),
        ("한국어 단어", ["한국어", "단어"]),
    ],
)
def test_by_hand(text, words):
    assert split_words(text) == words
    assert word_ngrams(text, 1) == [(word,) for word in words]


def test_a_figure_is_no_lettered_word_in_chinese_either():
    assert lettered_words("「价格」3.14元") == 3


def test_similarity_of_any_script():
    similarity = text_term("similarity", 4)
    for language in ("Russian", "Hindi", "Chinese", "Thai", "Arabic, vocalised"):
        text, half, other = LANGUAGES[language]
        scores = similarity.score([text] * 3, [text, half, other]).score.tolist()
        assert scores[0] == pytest.approx(1.0)
        assert scores[0] > scores[1] > scores[2] == 0.0
    # as Python's \w in English
    assert similarity.score(["snake_case m² ½"], ["snake case m 1"]).score.item() == 0.0


def test_the_rules_are_named():
    english, chinese = "the cat sat", "猫坐下了"
    assert compared_by([english, ""]) == "English words, Porter-stemmed"
    assert compared_by(["кот сидит"]) == "Unicode words"
    assert compared_by([chinese]) == "single characters"
    assert compared_by(["😀"]) == "symbols"
    mixed = compared_by(["кот сидит на крыше", english, "кот cat"])
    assert mixed == "Unicode words (56 %), English words, Porter-stemmed (44 %)"
    rare = compared_by([english] * 100 + ["café"])
    assert rare == "English words, Porter-stemmed (over 99 %), Unicode words (under 1 %)"
    assert counted_by([english, "кот сидит"]) == "words between white space"
    assert counted_by([chinese, english]) == (
        "single characters (57 %), words between white space (43 %)"
    )
    assert counted_by([""]) == "words between white space"
