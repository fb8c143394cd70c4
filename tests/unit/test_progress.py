"""Whatever takes longer than two seconds says how far it is."""

import io
import time

import pytest
from rich.console import Console

from lora_detox import progress
from lora_detox.progress import Phase, TrainingProgress, advance, phase, track

ODD = "[bold]not bold[/bold]"


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "SHOWN_AFTER_SECONDS", 0.01)
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.01)


def written(terminal=False):
    file = io.StringIO()
    return file, Console(file=file, width=100, force_terminal=terminal)


def wait_for(text, file):
    for _ in range(500):
        if text in file.getvalue():
            return
        time.sleep(0.01)
    raise AssertionError(f"{text!r} never came: {file.getvalue()!r}")


def test_a_phase_without_a_terminal_says_rate_and_time_left():
    shown = Phase("evaluating the start", 200, "responses", passes=4)
    shown.begin -= 10.0
    shown.counted = 200.0  # one of four passes
    assert shown.line().startswith("evaluating the start: 50 of 200 responses, 5/s, 0:3")
    assert shown.line().endswith(" left")
    shown.finish_pass(2)
    assert "100 of 200 responses" in shown.line()
    assert Phase("loading").line() == "loading: 0 s"


def test_a_phase_never_says_that_more_is_done_than_there_is():
    shown = Phase("measuring", 192, "responses")
    shown.begin -= 10.0
    shown.counted = 237.0  # an encoder read prompts too
    assert shown.line().startswith("measuring: 192 of 192 responses")


def test_a_phase_is_shown_while_it_lasts_and_says_how_long_it_took(at_once):
    file, console = written()
    with phase("scoring", 8, "texts", console=console):
        advance(2)
        wait_for("scoring: 2 of 8 texts, ", file)
    assert file.getvalue().splitlines()[-1].startswith("scoring: 8 texts, done in ")


def test_a_phase_whose_end_nobody_knows_shows_its_seconds(at_once):
    file, console = written()
    with phase("loading", console=console):
        wait_for("loading: 0 s", file)
    assert file.getvalue().splitlines()[-1] == "loading: done in 0 s"


def test_quick_work_says_nothing():
    file, console = written()
    with phase("quick", 1, "rows", console=console):
        advance()
    assert list(track(range(5000), "reading", None, console=console)) == list(range(5000))
    assert file.getvalue() == ""


def test_only_the_innermost_phase_counts_and_speaks(at_once):
    outer, inner = written(), written()
    with phase("outer", 2, "rows", console=outer[1]) as first:
        with phase("inner", 2, "rows", console=inner[1]) as second:
            advance()
            wait_for("inner: 1 of 2", inner[0])
        assert (first.counted, second.counted) == (0, 1)
    assert not outer[0].getvalue().startswith("inner")
    advance()  # nobody is shown anything: nothing happens


@pytest.mark.parametrize(
    ("terminal", "expected"), [(False, "reading rows.jsonl: "), (True, "1,000 rows")]
)
def test_long_reading_says_how_far_it_is(terminal, expected, at_once):
    file, console = written(terminal)
    seen = []
    for item in track(range(1000), "reading rows.jsonl", 1000, console=console):
        seen.append(item)
        if item == 500:
            wait_for(expected, file)
    assert seen == list(range(1000))


def test_a_phase_within_training_shares_its_bar(at_once):
    file, console = written(terminal=True)
    with TrainingProgress(3, console=console) as training:
        with phase("evaluating", 4, "responses", console=console):
            advance(3)
            wait_for("3/4 responses", file)
        training.update(1, {"score": 0.25})
        training.update(3, {"score": 0.75})
    assert "3/3" in file.getvalue()


def test_progress_without_a_terminal_is_a_few_lines():
    file = io.StringIO()
    console = Console(file=file, width=100)
    with TrainingProgress(12, console=console) as progress:
        for iteration in range(1, 13):
            progress.update(iteration, {"score": 0.5, "toxicity": None, "ref_kl": 1.0})
        progress.message(ODD)
    lines = file.getvalue().splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["5/12", "10/12", "12/12"]
    assert "score 0.500  kl 1.000" in lines[0]
    assert " left" in lines[0]
    assert "[bold]not bold[/bold]" in lines[3]


def test_progress_in_a_terminal():
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True)
    with TrainingProgress(3, done=1, console=console) as progress:
        progress.update(2, {"score": 0.25})
        progress.update(3, {"score": 0.75, "ref_kl": float("nan")})
    assert "3/3" in file.getvalue()
    assert "score 0.750" in file.getvalue()
