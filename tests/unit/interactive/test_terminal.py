"""Asking by lines: commands, refusals, and what reaches a terminal."""

import io

import pytest
from rich.console import Console

from lora_detox.interactive.answers import Answer, Question
from lora_detox.interactive.session import Column, Reply
from lora_detox.interactive.terminal import Terminal, reply_table, typed_lines

HOSTILE = "\x1b[2J\x1b]0;mine\x07 <b>bold</b> [bold]not[/bold] \u202eright to left\ud800"


def talk(session, *lines):
    """What a terminal shows after these lines."""
    shown = io.StringIO()
    Terminal(session, Console(file=shown, width=100, highlight=False)).run(lines)
    return shown.getvalue()


def column(title, text, toxicity=0.9):
    one = Answer(text=text, tokens=3, score=1.5, toxicity={"reward": toxicity, "judge": 0.2})
    return Column(title=title, detail="strength 1", answers=(one,))


def test_a_prompt_is_answered_beside_the_original(session):
    shown = talk(session, "Nobody here wants", "", "/quit", "never asked")
    assert session.asked == 1
    assert "original (" in shown
    assert "detoxified (first, strength 1)" in shown
    assert shown.count("toxicity: reward ") == 2
    assert "never asked" not in shown


def test_commands_change_what_is_asked_with(session, monkeypatch):
    questions = []
    real = type(session).ask
    monkeypatch.setattr(
        type(session), "ask", lambda self, one: (questions.append(one), real(self, one))[1]
    )
    commands = ["/strength 0.5", "/samples 2", "/tokens 4", "/temperature 0", "/top_p 0.9"]
    shown = talk(session, *commands, "/top_k 3", "/seed 7", "You", "/again", "/pick 2", "//x")
    expected = Question(
        prompt="You",
        strength=0.5,
        samples=2,
        new_tokens=4,
        temperature=0,
        top_p=0.9,
        top_k=3,
        seed=7,
    )
    assert questions[:2] == [expected, expected]
    assert [one.prompt for one in questions[2:]] == ["Nobody here wants number 2", "/x"]
    assert shown.count("mean toxicity: reward ") == 8
    assert "strength 0.5, samples 2, tokens 4" in shown


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/strength 2", "chat.strength: got 2.0, want a number from 0 to 1.5"),
        ("/strength much", "/strength: got much, want a number"),
        ("/samples", "/samples: got nothing, want a whole number"),
        ("/samples 1.5", "/samples: got 1.5, want a whole number"),
        ("/seed -1", "chat.seed: got -1"),
        ("/pick 99", "/pick: got 99, want a number from 1 to 3"),
        ("/banana", "there is no command /banana; /help lists them"),
        ("/again", "the prompt is empty"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_next_line_goes_on(session, line, message):
    shown = talk(session, line, "You")
    assert f"error: {message}" in " ".join(shown.split())
    assert session.asked == 1


def test_a_backslash_goes_on_in_the_next_line(session, monkeypatch):
    prompts = []
    real = type(session).ask
    monkeypatch.setattr(
        type(session), "ask", lambda self, one: (prompts.append(one.prompt), real(self, one))[1]
    )
    talk(session, "Ann: hi\\", "Bob: go\\", "", "next")
    assert prompts == ["Ann: hi\nBob: go\n", "next"]


def test_examples_and_help_are_shown(session):
    shown = talk(session, "/examples", "/help", "/settings")
    assert "  3  Nobody here wants number 3" in shown
    assert "/strength 0.8" in shown
    assert session.asked == 0


def test_no_control_character_and_no_markup_reaches_the_terminal():
    shown = io.StringIO()
    console = Console(file=shown, width=120, highlight=False, force_terminal=False)
    columns = [column("original", HOSTILE), column(HOSTILE, "")]
    console.print(
        reply_table(Reply(question=Question(prompt=HOSTILE), columns=columns, notes=[]), console)
    )
    text = shown.getvalue()
    assert not set("\x1b\x07\u202e\ud800") & set(text)
    assert "\\x1b[2J" in text
    assert "[bold]not[/bold]" in text
    assert "(empty response)" in text


def test_piped_lines_end_with_the_input(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(b"one\n\xff\xfe two\nlast"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stream)
    assert list(typed_lines()) == ["one", "\ufffd\ufffd two", "last"]
