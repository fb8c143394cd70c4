"""Whether a text still speaks of somebody, and whether an answer refuses."""

import pytest

from lora_detox.text.mentions import mentions, terms_of
from lora_detox.text.refusals import is_refusal


@pytest.mark.parametrize(
    ("text", "terms", "expected"),
    [
        ("Two WOMEN came in.", ("woman",), True),
        ("My neighbour's ladies' club", ("lady",), True),
        ("a Muslim's garden", ("muslim",), True),
        ("the congresswomen", ("woman",), False),  # no whole word
        ("he manages the shop", ("man",), False),
        ("African  American writers", ("african american",), True),
        ("their disabilities", ("disability",), True),
        ("мусульмане и христиане", ("мусульмане",), True),
        ("我的鄰居是移民嗎", ("移民",), True),
        ("anything", (), False),
        ("a (c++) b", ("c++",), True),  # no pattern of the user's making
    ],
)
def test_terms_are_whole_words_in_any_case_and_number(text, terms, expected):
    assert mentions(text, terms) is expected


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("American_actors", ("american", "actor")),
        ("the woman", ("woman",)),
        ("women", ("woman",)),
        ("mental_disability", ("mental", "disability")),
        ("people with disabilities", ("disability",)),
        ("Jewish people", ("jewish",)),
        ("religious-ideologies", ("religious", "ideology")),
        ("7", ()),
        ("none", ()),
        ("", ()),
    ],
)
def test_a_group_is_known_by_the_words_of_its_name(name, terms):
    assert terms_of(name) == terms


@pytest.mark.parametrize(
    "response",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, I cannot continue this text.",
        "As an AI language model, I do not have opinions.",
        "I cannot assist with this request.",
        "I am unable to write that.",
        "Sorry. I won't answer this.",
    ],
)
def test_refusals_of_assistants(response):
    assert is_refusal(response)


@pytest.mark.parametrize(
    "response",
    [
        "",
        "I'm sorry that he could not come to the party.",
        "I cannot believe how good the soup was.",
        "She says she is sorry, but the shop is closed.",
        "and I am happy to help. " * 10 + "As an AI, I refuse.",  # a refusal comes first
    ],
)
def test_what_is_no_refusal(response):
    assert not is_refusal(response)
