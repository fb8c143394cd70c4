# ruff: noqa: RUF001
"""ROUGE in every language; English is that of rouge_score to the bit."""

import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from lora_detox.embedded.corpus import dialogue_rows
from lora_detox.metrics.names import ROUGE_KEYS
from lora_detox.metrics.overlap import rouge_per_response, sentences_on_lines
from lora_detox.scores.terms import text_term
from lora_detox.text.rouge import best_f
from tests.unit.text.languages import LANGUAGES


def rouge(response, *references):
    return {k: v[0] for k, v in rouge_per_response([response], [list(references)]).items()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_identical_half_and_disjoint(language):
    text, half, other = LANGUAGES[language]
    assert rouge(text, text) == dict.fromkeys(ROUGE_KEYS, 1.0)
    assert rouge(other, text) == dict.fromkeys(ROUGE_KEYS, 0.0)
    for key in ("rouge1", "rougeL", "rougeLsum"):
        assert 0.2 < rouge(half, text)[key] < 0.8, key
    assert rouge(half, other, text)["rougeL"] == rouge(half, text)["rougeL"]
    assert text_term("rouge", 4).score([""], [text], references=[[other, text]]).score == 1.0


def test_english_is_that_of_the_library_to_the_bit():
    library = RougeScorer(list(ROUGE_KEYS), use_stemmer=True)
    rows = dialogue_rows("test", 200)
    texts = [(row["dialogue"], summary) for row in rows for summary in row["summaries"]]
    texts += [(texts[i][1], texts[i + 1][1]) for i in range(len(texts) - 1)]
    assert len(texts) > 400
    for response, reference in texts:
        lines = [sentences_on_lines(text) for text in (reference, response)]
        expected = {key: score.fmeasure for key, score in library.score(*lines).items()}
        assert rouge(response, reference) == expected


def test_so_are_english_letters_between_any_signs():
    library = RougeScorer(list(ROUGE_KEYS), use_stemmer=True)
    rng = random.Random(0)
    letters = [*"abcdeABC ", "running ", "Dogs ", "generalisation", *"0123  "]
    signs = [*".,!?'\"-_()\n\t", *"™©…—–’“”«»½²³①€£°", "😀", "❤️", "1️⃣", "\u200d", "\u00ad"]
    for _ in range(500):
        response, reference = ("".join(rng.choices(letters + signs, k=40)) for _ in range(2))
        expected = {k: s.fmeasure for k, s in library.score(reference, response).items()}
        assert best_f(ROUGE_KEYS, [reference], response) == expected


def test_one_foreign_word_leaves_the_others_as_they_are():
    response, reference = "The dogs were running to café Luna", "A dog runs to the café"
    assert rouge(response, reference)["rouge1"] == pytest.approx(2 * 5 / (7 + 6))


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("ПРИВЕТ, мир!", "привет мир"),
        ("cafe\u0301 au lait", "CAFÉ AU LAIT"),
        ("ｶﾞｷﾞ ＡＢＣ １２", "ガギ ABC 12"),
        ("İZMİR güzel", "izmir güzel"),
        ("قال العربيّة", "قال \ufe8d\u0644\u0639\u0631\u0628\u064a\u0651\u0629"),
        ("❤️👍", "❤👍"),
        ("می‌روم خانه", "میروم خانه"),
        ("你好，世界！", "你好 世界"),
    ],
)
def test_what_is_written_differently_and_is_the_same(one, same):
    assert rouge(one, same) == dict.fromkeys(ROUGE_KEYS, 1.0)


def test_marks_stay_inside_a_word():
    assert rouge("हिन्दी", "हिन्द")["rouge1"] == 0.0
    assert rouge("עִבְרִית", "עברית")["rouge1"] == 0.0
    assert rouge("ดี", "ด")["rouge1"] == 0.0


@pytest.mark.parametrize("empty", ["", "  ", "\n"])
def test_nothing_has_nothing_in_common(empty):
    for text in ("привет", "你好", "😀", "hello", empty):
        assert rouge(empty, text)["rouge1"] == rouge(text, empty)["rouge1"] == 0.0


def test_signs_count_only_where_neither_text_has_a_word():
    assert rouge("!!! 😀", "привет 😀")["rouge1"] == 0.0
    assert rouge("hello!!!", "hello???")["rouge1"] == 1.0
    assert rouge("!?", "?!")["rouge1"] == 1.0


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("你好。「再见！」他说。真的！？", ["你好。", "「再见！」", "他说。", "真的！？"]),
        ("नमस्ते। कैसे हो? ठीक।", ["नमस्ते।", "कैसे हो?", "ठीक।"]),
        ("مرحبا. كيف حالك؟ بخير", ["مرحبا.", "كيف حالك؟", "بخير"]),
        ("ٹھیک ہے۔ جی ہاں۔", ["ٹھیک ہے۔", "جی ہاں۔"]),
        ("ሰላም። እንዴት ነህ፧ ደህና", ["ሰላም።", "እንዴት ነህ፧", "ደህና"]),
        ("Привет. Как дела? Да", ["Привет.", "Как дела?", "Да"]),
        ("He said “no.” Then left.", ["He said “no.” Then left."]),
    ],
)  # fmt: skip
def test_sentences(text, lines):
    assert sentences_on_lines(text).split("\n") == lines


def test_lsum_forgives_the_order_of_chinese_sentences():
    scores = rouge("今天下雨。安娜在家。", "安娜在家。今天下雨。")
    assert scores["rougeLsum"] == 1.0 > scores["rougeL"]
