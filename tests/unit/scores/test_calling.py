"""A user's function that takes long, ends the process, or returns no numbers."""

import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch

from lora_detox.errors import ScorerError
from lora_detox.scores import FunctionScorer, calling
from lora_detox.scores.functions import import_function
from lora_detox.signals import Interrupted, deferring, listening


def score(function, word_scorer, timeout=None):
    scorer = FunctionScorer(function, word_scorer(), timeout=timeout)
    return scorer.score(["a", "b"], ["c", "d"]).score.tolist()


@pytest.mark.parametrize("timeout", [None, 20.0])
@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ([1, 0.5], [1.0, 0.5]),
        ((True, False), [1.0, 0.0]),
        (np.array([1.5, 2], dtype=np.float32), [1.5, 2.0]),
        (torch.tensor([1.0, -1.0]), [1.0, -1.0]),
        (iter([3, 4]), [3.0, 4.0]),
    ],
)
def test_numbers_of_any_kind_are_taken(word_scorer, timeout, returned, expected):
    def function(prompts, completions, **columns):
        return returned if not hasattr(returned, "__next__") else iter([3, 4])

    assert score(function, word_scorer, timeout) == expected


def test_columns_may_have_any_name(word_scorer):
    seen = {}

    def function(prompts, completions, **columns):
        seen.update(columns)
        return [1.0, 2.0]

    columns = {"name": ["x", "y"], "key": [1, 2], "timeout": [3, 4], "function": [5, 6]}
    FunctionScorer(function, word_scorer()).score(["a", "b"], ["c", "d"], **columns)
    assert seen == columns


@pytest.mark.parametrize(
    ("returned", "named"),
    [
        (["1.0", "2.0"], "entry 0 of what it returned is '1.0', which is no number"),
        ([1.0, b"2"], "entry 1 of what it returned is b'2'"),
        ([1.0, None], "entry 1 of what it returned is None"),
        ("12", "it returned a str"),
        ({"c": 1.0, "d": 2.0}, "it returned a dict"),
        ({1.0, 2.0}, "it returned a set"),
        ([[1.0], [2.0, 3.0]], "TypeError"),
        ([1j, 2j], "TypeError"),
    ],
)
def test_what_is_no_number_is_refused(word_scorer, returned, named):
    with pytest.raises(ScorerError, match=f"the reward function <lambda> failed: .*{named}"):
        score(lambda prompts, completions, **_: returned, word_scorer)


class Cancelled(BaseException):
    pass


@pytest.mark.parametrize("timeout", [None, 20.0])
@pytest.mark.parametrize(
    ("error", "named"),
    [
        (SystemExit(3), r"tried to end the process \(SystemExit: 3\); want a list"),
        (KeyboardInterrupt(), "raised KeyboardInterrupt by itself, without a signal"),
        (Cancelled("stop"), "failed: Cancelled: stop"),
        (ValueError("no"), "failed: ValueError: no"),
    ],
)
def test_no_exception_of_a_function_ends_the_process_unnamed(word_scorer, timeout, error, named):
    def function(prompts, completions, **columns):
        raise error

    with listening(), pytest.raises(ScorerError, match=f"reward function function {named}"):
        score(function, word_scorer, timeout)


def test_ctrl_c_stays_what_it_is_where_nobody_listens(word_scorer):
    def function(prompts, completions, **columns):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        score(function, word_scorer)


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_a_signal_ends_a_function_at_once_and_is_no_fault_of_it(word_scorer, timeout):
    main_thread = threading.main_thread().ident

    def function(prompts, completions, **columns):
        signal.pthread_kill(main_thread, signal.SIGTERM)
        time.sleep(30)

    begun = time.monotonic()
    with listening(), deferring(), pytest.raises(Interrupted, match="SIGTERM"):
        score(function, word_scorer, timeout)
    assert time.monotonic() - begun < 10


def test_a_function_that_takes_too_long_is_given_up_with_what_to_change(word_scorer):
    def function(prompts, completions, **columns):
        time.sleep(5)

    begun = time.monotonic()
    with pytest.raises(ScorerError, match=r"did not return within 0.2 s; raise `reward.timeout`"):
        score(function, word_scorer, 0.2)
    assert time.monotonic() - begun < 4


def test_after_a_while_a_line_says_who_takes_the_time(word_scorer, monkeypatch, capsys):
    monkeypatch.setattr(calling, "REMINDER_SECONDS", 0.1)

    def function(prompts, completions, **columns):
        time.sleep(0.5)
        return [1.0, 2.0]

    assert score(function, word_scorer) == [1.0, 2.0]
    line = "note     the reward function function has run for 0 s; reward.timeout=SECONDS ends"
    assert capsys.readouterr().out.count(line) == 1
    assert score(lambda prompts, completions, **_: [1.0, 2.0], word_scorer) == [1.0, 2.0]
    time.sleep(0.2)
    assert capsys.readouterr().out == ""


def test_a_module_that_ends_the_process_when_imported_is_named(tmp_path):
    (tmp_path / "script.py").write_text("import sys\nsys.exit('usage: script')\n")
    with pytest.raises(ScorerError, match=r"cannot import .*script.py.*SystemExit: usage: script"):
        import_function(f"{tmp_path}/script.py:f")
    assert "script" not in sys.modules
