"""Bounds of a run: worked by hand, and drawn into its curves."""

import re

import pytest

from lora_detox.metrics.names import METRICS
from lora_detox.report import bounds
from lora_detox.report.plots import Curve, Marks, curve_plot
from lora_detox.report.training_plots import training_plots

SUMMARY = {
    "budget": {
        "bounds": {
            "perplexity": 2.0,
            "rougeL": 0.28,
            "ref_kl": 10.0,
            "response_words": 12.0,
            "symbols": 0.005,
        },
        "start": {"perplexity": 1.8, "rougeL": 0.3, "response_words": 14.0, "symbols": 0.0},
        "measured": {"perplexity": 1.9, "rougeL": 0.29, "ref_kl": 3.0, "response_words": 13.0},
        "chosen_iteration": 5,
        "between": [
            {"share": 0.5, "toxicity": 0.1, "perplexity": 2.1, "rougeL": 0.29},  # of older runs
            {"iteration": 5, "share": 1.5, "toxicity": 0.1, "perplexity": 2.2, "rougeL": 0.29},
        ],
    },
    "guard": {"rollbacks": [{"iteration": 9, "to": 5, "reason": "KL rose to 40 (limit 30)"}]},
}


def _row(iteration, perplexity, rouge, kl, words, symbols):
    return {
        "iteration": iteration,
        "evaluation": {
            "perplexity": perplexity,
            "rougeL": {"mean": rouge, "std": 0.1, "n": 9},
            "ref_kl": kl,
            "response_words": words,
            "symbols": symbols,
        },
    }


HISTORY = [
    _row(0, 1.8, 0.30, 0.0, 14.0, 0.0),
    {"iteration": 1, "slack_perplexity": 0.1, "slack_typical_words": -0.01},
    {"iteration": 2, "slack_perplexity": -0.2, "slack_typical_words": -0.03},
    {"iteration": 3, "slack_perplexity": 0.1, "slack_typical_words": 0.0},
    {"iteration": 4, "slack_perplexity": -0.1, "slack_typical_words": -0.02},
    _row(5, 2.0, 0.28, 3.0, 12.0, 0.005),  # on every limit is inside
    _row(10, 2.5, 0.21, 12.0, 9.0, 0.015),
]


def test_every_breach_is_listed_with_when_and_by_how_much():
    held = bounds.bounds_of(SUMMARY, METRICS)
    breaches = bounds.breaches_of(SUMMARY, HISTORY, held)
    strength = "end of training at strength 50%"
    assert [(one.when, one.bound.key, one.bound.by(one.value)) for one in breaches] == [
        ("iteration 10", "perplexity", "0.500 (25.0 %)"),
        ("iteration 10", "rougeL", "0.070 (25.0 %)"),
        ("iteration 10", "ref_kl", "2.000 (20.0 %)"),
        ("iteration 10", "response_words", "3.000 (25.0 %)"),
        ("iteration 10", "symbols", "0.0100"),
        (strength, "perplexity", "0.100 (5.0 %)"),
        ("iteration 5 at strength 150%", "perplexity", "0.200 (10.0 %)"),
    ]
    table = bounds.bounds_table(held, breaches)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["Perplexity under the reference"] == [
        *("1.800", "at most 2.000", "1.900"),
        *("3", "by 0.500 (25.0 %), iteration 10"),
    ]
    assert rows["Response length (words)"][1] == "at least 12.000"
    assert rows["KL to the reference (k1) (nats/response)"][0] == "n/a"


def test_a_bound_that_held_says_never():
    held = bounds.bounds_of(SUMMARY, METRICS)
    table = bounds.bounds_table(held, bounds.breaches_of({}, HISTORY[:-1], held))
    assert {row[4] for row in table.rows} == {"never"}
    assert bounds.bounds_of({}, METRICS) == []


def test_rollouts_outside_are_counted_in_ranges():
    rows = bounds.training_table(HISTORY, METRICS).rows
    assert rows == [
        ["Perplexity under the reference", "2 of 4", "2, 4", "20.0 %, iteration 2"],
        ["Length", "3 of 4", "1-2, 4", "3.0 %, iteration 2"],
    ]


def test_returns_and_result_are_marked():
    marks = bounds.marks_of(SUMMARY, bounds.bounds_of(SUMMARY, METRICS))
    assert (marks.result, list(marks.returns)) == (5, [9])
    assert bounds.returns_table(SUMMARY).rows == [["9", "5", "KL rose to 40 (limit 30)"]]
    assert bounds.marks_of({**SUMMARY, "soup": {"runs": [1]}}, []).result is None
    plots = {plot.title: plot for plot in training_plots(HISTORY, marks)}
    for title in ("Perplexity", "Quality (ROUGE-L)", "Distance from the reference"):
        words = set(re.findall(r">\s*([\w ]+?)\s*</text>", plots[title].svg))
        assert {"limit", "result", "went back"} <= words


@pytest.mark.parametrize(
    ("limit", "is_drawn"), [(1.0, True), (1.5, True), (2.5, False), (-2.0, False)]
)
def test_a_limit_far_from_all_numbers_is_said_not_drawn(limit, is_drawn):
    curve = Curve(label="x", read=lambda row: row["x"], measure="x")
    history = [{"iteration": 0, "x": 1.0}, {"iteration": 1, "x": 1.2}]
    plot = curve_plot(
        "t", "How.", [curve], history, from_zero=True, marks=Marks(limits={"x": [limit]})
    )
    assert (">limit<" in re.sub(r"\s", "", plot.svg)) is is_drawn
    far = f"How. The limit is {limit:g}, outside of the picture."
    assert plot.note == ("How." if is_drawn else far)


def test_the_table_behind_a_plot_and_its_axis():
    curve = Curve(label="x", read=lambda row: row.get("x"))
    history = [{"iteration": one, **({} if one == 3 else {"x": one / 7})} for one in range(1000)]
    plot = curve_plot("t", "", [curve], history)
    assert plot.columns == ("iteration", "x")
    assert len(plot.points) == 300
    assert plot.points[0] == (0.0, ("0", "0"))
    assert plot.points[-1] == (999.0, ("999", "142.7"))
    assert 3.0 not in [place for place, _ in plot.points]
    left, right, first, last, top, bottom = plot.axis
    assert 0 <= left < right <= 4.6 * 72
    assert 0 <= top < bottom <= 2.9 * 72
    assert first < 0 < 999 < last
    assert curve_plot("t", "", [curve], [{"iteration": 1}]) is None
    assert curve_plot("t", "", [curve], history[:1]).axis == ()


@pytest.mark.parametrize("limit", [12.0, 14.0, 14.5])
def test_a_length_is_bound_from_below_whatever_its_start(limit):
    budget = SUMMARY["budget"] | {"bounds": {"response_words": limit, "response_tokens": limit}}
    budget["start"] = {"response_words": 14.0, "response_tokens": 14.0}
    for held in bounds.bounds_of({"budget": budget}, METRICS):
        assert (held.above, held.outside(limit), held.outside(limit - 1)) == (False, 0.0, 1.0)


def test_a_length_that_is_held_from_both_sides_has_two_bounds():
    budget = SUMMARY["budget"] | {"most": {"response_words": 14.7, "response_tokens": 20.0}}
    held = [one for one in bounds.bounds_of({"budget": budget}, METRICS) if "words" in one.label]
    assert [(one.above, one.limit) for one in held] == [(False, 12.0), (True, 14.7)]
    late = _row(15, 1.9, 0.29, 3.0, 15.7, 0.0)
    breaches = bounds.breaches_of({"budget": budget}, [*HISTORY, late], held)
    assert [(one.when, one.bound.above) for one in breaches] == [
        ("iteration 10", False),
        ("iteration 15", True),
    ]
    assert breaches[1].bound.by(15.7) == "1.000 (6.8 %)"
    rows = bounds.bounds_table(held, breaches).rows
    assert [row[2] for row in rows] == ["at least 12.000", "at most 14.700"]
    marks = bounds.marks_of({"budget": budget}, held)
    assert marks.limits == {"response_words": [12.0, 14.7]}
    (length,) = [one for one in training_plots([*HISTORY, late], marks) if "ength" in one.title]
    assert re.sub(r"\s", "", length.svg).count(">limit<") == 1
