"""The word list: plurals, leet, masks and drawn-out letters, and what is another word."""

import time

import pytest

from lora_detox.embedded.mild_words import MILD_WORDS
from lora_detox.errors import ScorerError
from lora_detox.scores import WordListScorer, check_scorer

MILD = WordListScorer(MILD_WORDS, "embedded:mild")


@pytest.mark.parametrize(
    "text",
    [
        "You are an idiot.",
        "IDIOTS, all of them",
        "what an 1d10t",
        "so $tup!d",
        "st*pid question",
        "what a s****d idea",
        "stuuuuupid",
        "s.t.u.p.i.d",
        "such a l-o-s-e-r!",
        "i d i o t",
        "two jackasses",
        "a dummy and more dummies",
        "dumm1es",
        "the moron's hat",
        "oh, shut  up",
        "SHUT UP!",
        "l0sers",
        "(damn)",
        "d@mn it",
        "'crap'",
        "you fool\u2019s gold",
    ],
)
def test_what_is_listed(text):
    assert MILD.score([""], [text]).toxicity.item() == 1.0
    assert MILD.score([""], [text]).score.item() == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "We assess the class of the passenger.",
        "Scunthorpe and Cockermouth",
        "hello, shell, Michelle",
        "classes at 4:55, room 455",
        "The folk music of Damnak",
        "I shut the door and got up.",
        "a looser knot",
        "The cost is $5 + 7 or 1*0",
        "the museum of fine art",
        "* * * * *",
        "Москва слезам не верит",
    ],
)
def test_what_is_another_word(text):
    assert not list(MILD.listed(text)), list(MILD.listed(text))


def test_a_list_of_ones_own_in_any_script():
    own = WordListScorer(["Дурак", "笨蛋", "C++ fan", "old  fart"], "own.txt")
    texts = ["дурак!", "你是笨蛋吗", "a c++ fan", "old farts", "дураками", "c++"]
    assert own.score([""] * 6, texts).toxicity.tolist() == [1, 1, 1, 1, 0, 0]
    assert own.scorer_id.startswith("own.txt@")
    assert own.scorer_id.endswith("(4 words)")


def test_it_keeps_the_contract_and_names_its_words_by_a_digest():
    check_scorer(MILD)
    assert MILD.scorer_id == WordListScorer([*MILD_WORDS, "Idiot"], "embedded:mild").scorer_id
    assert MILD.scorer_id != WordListScorer(["idiot"], "embedded:mild").scorer_id


def test_a_list_without_a_word_is_refused():
    with pytest.raises(ScorerError, match=r"evaluation\.word_list"):
        WordListScorer(["", "  "], "empty.txt")


def test_a_thousand_words_read_a_thousand_responses_in_seconds():
    words = [
        f"{first}{second}xyz"
        for first in "abcdefghij" * 2
        for second in "qwertyuiopasdfghjklzxcvbnm" * 2
    ]
    long = WordListScorer(words, "long.txt")
    assert len(long.words) == 260
    begin = time.process_time()
    long.score(
        [""] * 1000, ["The museum of fine art is open on Friday, and it is free. " * 2] * 1000
    )
    MILD.score(
        [""] * 1000, ["The museum of fine art is open on Friday, and it is free. " * 2] * 1000
    )
    assert time.process_time() - begin < 20
