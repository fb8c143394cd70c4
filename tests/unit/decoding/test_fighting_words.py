"""Words that mark toxic texts, against the formula worked by hand."""

import math

from lora_detox.decoding.fighting_words import PRIOR_WORDS, fighting_words

TOXIC = ["you fool you fool", "what a fool", "Fool!"]
CIVIL = ["you are kind", "what a day you had", "a kind day"]


def z_by_hand(word):
    counts = []
    for texts in (TOXIC, CIVIL):
        words = [one.strip("!").lower() for text in texts for one in text.split()]
        counts.append((words.count(word), len(words)))
    (toxic, n_toxic), (civil, n_civil) = counts
    prior = PRIOR_WORDS * (toxic + civil) / (n_toxic + n_civil)
    odds = [
        (y + prior) / (n + PRIOR_WORDS - y - prior) for y, n in ((toxic, n_toxic), (civil, n_civil))
    ]
    z = math.log(odds[0] / odds[1]) / math.sqrt(1 / (toxic + prior) + 1 / (civil + prior))
    return z, odds[0] / odds[1]


def test_words_by_falling_z():
    words = fighting_words(TOXIC, CIVIL, 99)
    assert words[0] == "fool"
    assert "kind" not in words
    everything = {"you", "fool", "what", "a", "are", "kind", "day", "had"}
    assert set(words) == {word for word in everything if z_by_hand(word)[0] > 0}
    values = [z_by_hand(word)[0] for word in words]
    assert values == sorted(values, reverse=True)
    assert fighting_words(TOXIC, CIVIL, 1) == ["fool"]


def test_a_least_ratio_keeps_frequent_words_out():
    ratio = z_by_hand("fool")[1]
    assert fighting_words(TOXIC, CIVIL, 99, least_ratio=ratio * 0.999) == ["fool"]
    assert fighting_words(TOXIC, CIVIL, 99, least_ratio=ratio * 1.001) == []


def test_apostrophes_and_scripts_without_spaces():
    words = fighting_words(["don\u2019t 笨蛋 don't", "ДУРАК"], ["civil", "很好"], 99)
    assert {"don't", "笨", "蛋", "дурак"} == set(words)
