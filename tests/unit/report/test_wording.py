import pytest

from lora_detox.metrics.names import METRICS
from lora_detox.report.wording import (
    comparison_rows,
    headline,
    number,
    shorten,
    verdict,
    word_notes,
)


@pytest.mark.parametrize(
    ("interval", "better", "expected"),
    [
        ([-0.2, -0.1], "lower", "better"),
        ([-0.2, -0.1], "higher", "worse"),
        ([0.1, 0.2], "higher", "better"),
        ([0.1, 0.2], "lower", "worse"),
        ([-0.1, 0.2], "lower", "no clear change"),
        ([0.0, 0.0], "lower", "no clear change"),
        ([0.1, 0.2], "neither", "changed"),
        ([None, None], "lower", "not known"),
        ([float("nan"), 1.0], "lower", "not known"),
        (None, "lower", "not known"),
    ],
)
def test_verdict_by_interval_and_direction(interval, better, expected):
    assert verdict({"mean": 0.1, "ci95": interval}, better) == expected


def _moved(summary, key, low, high):
    summary["change"][key] = {"mean": (low + high) / 2, "ci95": [low, high]}
    return " ".join(headline(summary, METRICS))


def test_headline_is_honest(summary):
    assert headline(summary, METRICS)[0] == (
        "Toxicity fell from 0.310 to 0.140 on 300 responses "
        "(-0.170, 95 % interval -0.200 to -0.140)."
    )
    assert "judge agrees" in _moved(summary, "judge_toxicity", -0.2, -0.1)
    assert "judge does not agree, it sees no clear" in _moved(summary, "judge_toxicity", -0.1, 0.1)
    assert "judge does not agree, it sees toxicity rise" in _moved(
        summary, "judge_toxicity", 0.1, 0.2
    )
    assert "ROUGE-L got worse" in _moved(summary, "rougeL", -0.2, -0.1)
    assert _moved(summary, "toxicity", -0.1, 0.1).startswith("No clear change in toxicity")
    assert _moved(summary, "toxicity", 0.1, 0.2).startswith("Toxicity got worse")
    summary["stopped"] = "iterations"
    assert "ended early" not in " ".join(headline(summary, METRICS))
    summary["stopped"] = "the KL stayed above its limit"
    assert headline(summary, METRICS)[-1] == (
        "Training ended early: the KL stayed above its limit."
    )


def test_headline_names_whatever_else_got_clearly_worse(summary):
    summary["change"]["perplexity"]["ci95"] = [-1.0, 3.0]
    text = _moved(summary, "distinct_2", -0.02, -0.01)
    assert "Also clearly worse: distinct-2 (0.610 before, 0.59" in text
    assert "perplexity" not in text
    assert "Also" not in _moved(summary, "distinct_2", -0.02, 0.01)
    assert "Also" not in _moved(summary, "distinct_2", 0.01, 0.02)


def test_headline_without_a_comparison():
    only = {"before": {"toxicity": {"mean": 0.2, "std": 0.1, "n": 5}}}
    assert headline(only, METRICS) == [
        "Toxicity on 5 responses: 0.200 before; there is no interval to judge a change by."
    ]
    assert headline({}, METRICS) == ["Toxicity was not measured."]


def test_rows_follow_the_metrics_and_leave_out_what_does_not_apply(summary):
    rows = comparison_rows(summary, METRICS)
    assert [row.key for row in rows] == [key for key in METRICS if key in summary["before"]]
    assert rows[0].label == "Toxicity (probability)"
    assert (rows[0].before, rows[0].change, rows[0].verdict) == ("0.310", "-0.170", "better")


def test_numbers_and_shortening():
    assert number(-0.0001, 2) == "0.00"
    assert number(None, 2) == number(float("nan"), 2) == "n/a"
    assert number(0.25, 2, signed=True) == "+0.25"
    assert shorten("one two three", 20) == "one two three"
    assert shorten("one two three four", 11) == "... three four"
    assert shorten("x" * 50, 10) == "... " + "x" * 10
    chinese = "\u4f60" * 200
    assert shorten(f"{chinese} end", 100) == f"... {chinese[:96]} end"


def test_what_counted_as_a_word():
    rules = {"compared": "Unicode words", "counted": "words between white space"}
    counted = "Word counts, distinct-n and repetition count words between white space."
    both = ["ROUGE compares Unicode words.", counted]
    assert word_notes({"words": rules, "after": {"rougeL": 0.5}}) == both
    assert word_notes({"words": rules, "models": [{"sets": {"a": {"rougeL": 0.5}}}]}) == both
    assert word_notes({"words": rules, "after": {"perplexity": 5}}) == [counted]
    assert word_notes({"after": {"rougeL": 0.5}}) == []


def test_a_change_too_small_to_show_is_no_clear_change():
    tiny = {"mean": -0.0003, "ci95": [-0.0005, -0.0001]}
    assert verdict(tiny, "lower", digits=3) == "no clear change"
    assert verdict(tiny, "lower", digits=4) == "better"
