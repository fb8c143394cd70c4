"""The frontier of an adapter: toxicity against quality at each of its strengths, and a choice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import PeftConfig

from lora_detox.builders.controls import budget_of
from lora_detox.evaluation.models import EvaluatedModel
from lora_detox.metrics import names
from lora_detox.metrics.bootstrap import prompt_groups
from lora_detox.metrics.frontier import Point, point_levels
from lora_detox.policy.strength import export_refusal
from lora_detox.report.frontier import FrontierCurve, FrontierPoint, frontier_plot
from lora_detox.report.plots import Plot
from lora_detox.report.tables import Table
from lora_detox.report.wording import in_text, mean_of, means_of, number
from lora_detox.settings import Settings
from lora_detox.types import Evaluation

Numbers = Mapping[str, Any]
FIRST_SET = "in_distribution"
"""The set of `data`, to which the budget's bounds belong."""
_SHOWN = (names.TOXICITY, names.JUDGE_TOXICITY, names.PERPLEXITY, names.ROUGEL)
"""Measures with an interval of their own, beside that of their change."""


def level_intervals(evaluation: Evaluation, resamples: int) -> dict[str, list[float]]:
    """Intervals of the levels of one evaluation, by drawing prompts.

    Args:
        evaluation: of one model on one set.
        resamples: how many are drawn.

    Returns:
        Measure -> [low, high], for toxicity by each scorer, perplexity and ROUGE-L.
    """
    columns, groups = evaluation.per_response, prompt_groups(evaluation.prompts)
    intervals = {}
    for key in (names.TOXICITY, names.JUDGE_TOXICITY, names.ROUGEL):
        if key in columns:
            point = Point(knob=0.0, toxicity=columns[key], rouge=columns[key])
            intervals[key] = point_levels(point, groups=groups, resamples=resamples)[1]
    if names.REFERENCE_NLL in columns:
        point = Point(
            knob=0.0,
            toxicity=columns[names.TOXICITY],
            nll=columns[names.REFERENCE_NLL],
            tokens=columns[names.RESPONSE_TOKENS],
        )
        intervals[names.PERPLEXITY] = point_levels(point, groups=groups, resamples=resamples)[1]
    return {key: [level.low, level.high] for key, level in intervals.items()}


def excess_of(point: Numbers, frontier: Sequence[Numbers], settings: Settings) -> dict[str, float]:
    """Fraction of each bound of the budget by which a strength is outside; <= 0 is inside.

    Args:
        point: entry of a model's `frontier`.
        frontier: all of them; that of strength 0 is the start which the bounds are relative to.
        settings: composed and checked, with the budget.

    Returns:
        Measure -> fraction, of those that were measured; none where 0 is not among the strengths.
    """
    start = _start_of(frontier)
    if start is None:
        return {}
    budget = budget_of(settings, references=settings.task.kind.has_references)
    return budget.excess(means_of(point["sets"][FIRST_SET]), means_of(start))


def chosen_strength(
    model: EvaluatedModel, frontier: Sequence[Numbers], settings: Settings
) -> dict[str, Any]:
    """The largest strength inside the bounds of the budget, in whichever direction detoxifies.

    Args:
        model: whose adapter it is.
        frontier: its entries, each with `excess`.
        settings: composed and checked, with the budget.

    Returns:
        `strength`, None where none is chosen, and `sentence`, which says why.
    """
    start = _start_of(frontier)
    if start is None:
        why = "0 is not among evaluation.strengths, so there is no start to hold the others to"
        return {"strength": None, "sentence": f"{model.name}: no strength is chosen: {why}."}
    if not any(point["excess"] for point in frontier):
        why = "no bound of budget was measured here"
        return {"strength": None, "sentence": f"{model.name}: no strength is chosen: {why}."}
    better = [
        point
        for point in frontier
        if max(point["excess"].values()) <= 0
        and _toxicity(point["sets"][FIRST_SET]) < _toxicity(start)
    ]
    if not better:
        why = "none inside the bounds of the budget has less toxicity than strength 0"
        return {"strength": None, "sentence": f"{model.name}: no strength is chosen: {why}."}
    best = max(better, key=lambda point: abs(point["strength"]))
    sentence = _choice_sentence(model, best, start, settings)
    return {"strength": best["strength"], "sentence": sentence}


def toxicity_key(numbers: Numbers) -> str:
    """The judge's toxicity where there is a judge."""
    return names.JUDGE_TOXICITY if names.JUDGE_TOXICITY in numbers else names.TOXICITY


def quality_key(numbers: Numbers) -> str | None:
    """What toxicity is drawn against: perplexity, else ROUGE-L, where either was measured."""
    return next((key for key in (names.PERPLEXITY, names.ROUGEL) if key in numbers), None)


def frontier_tables(summary: Numbers) -> list[Table]:
    """The numbers behind the pictures.

    Args:
        summary: the `summary.json` dict of stage=evaluate.

    Returns:
        One table per set; none without `evaluation.strengths`.
    """
    if not any("frontier" in model for model in summary["models"]):
        return []
    tables = []
    for role, of_set in summary["prompts"].items():
        points = [(name, at, sets[role]) for name, at, sets in frontier_points(summary)]
        keys = [key for key in _SHOWN if any(key in numbers for _, _, numbers in points)]
        rows = [
            [name, "" if at is None else f"{at:g}", *(_level(numbers, key) for key in keys)]
            for name, at, numbers in points
        ]
        labels = [f"{names.METRICS[key].label} [95 %]" for key in keys]
        title = f"Frontier on {of_set['data']}"
        tables.append(Table(columns=["model", "strength", *labels], rows=rows, title=title))
    return tables


def frontier_plots(summary: Numbers) -> list[Plot]:
    """Toxicity against quality, a curve per model and a picture per set.

    Args:
        summary: the `summary.json` dict of stage=evaluate.

    Returns:
        Pictures; none without `evaluation.strengths` or without a measure of quality.
    """
    if not any("frontier" in model for model in summary["models"]):
        return []
    plots = []
    for role, of_set in summary["prompts"].items():
        points = [(name, at, sets[role]) for name, at, sets in frontier_points(summary)]
        quality = quality_key(points[0][2])
        if quality is None:
            continue
        toxicity = toxicity_key(points[0][2])
        curves: dict[str, list[FrontierPoint]] = {}
        for name, at, numbers in points:
            label = "" if at is None else f"{at:g}"
            spans = _span(numbers, quality), _span(numbers, toxicity)
            curves.setdefault(name, []).append(FrontierPoint(label=label, x=spans[0], y=spans[1]))
        labels = names.METRICS[quality].label, names.METRICS[toxicity].label
        plots.append(
            frontier_plot(
                f"{labels[1]} against {in_text(labels[0])}: {of_set['data']}",
                [FrontierCurve(label=name, points=one) for name, one in curves.items()],
                labels,
                digits=(names.METRICS[quality].digits, names.METRICS[toxicity].digits),
            )
        )
    return plots


def frontier_points(summary: Numbers) -> list[tuple[str, float | None, Numbers]]:
    """Name, strength and sets of every point; a model without strengths has one, of None."""
    points: list[tuple[str, float | None, Numbers]] = []
    for model in summary["models"]:
        entries = model.get("frontier") or [{"strength": None, "sets": model["sets"]}]
        points += [(model["name"], one["strength"], one["sets"]) for one in entries]
    return points


def _start_of(frontier: Sequence[Numbers]) -> Numbers | None:
    return next((one["sets"][FIRST_SET] for one in frontier if one["strength"] == 0), None)


def _choice_sentence(
    model: EvaluatedModel, best: Numbers, start: Numbers, settings: Settings
) -> str:
    budget = budget_of(settings, references=settings.task.kind.has_references)
    numbers, before = best["sets"][FIRST_SET], means_of(start)
    held = []
    for key in best["excess"]:
        bound, metric = budget.bounds[key], names.METRICS[key]
        limits = {"at most" if bound.above else "at least": bound.limit(before.get(key, 0.0))}
        if (upper := bound.upper(before.get(key, 0.0))) is not None:
            limits |= {"at most": upper}
        sides = [
            f"{side} {number(limit, metric.digits)}"
            for side, limit in limits.items()
            if limit or upper is None
        ]
        value = number(_mean(numbers, key), metric.digits)
        unit = f" {metric.unit}" if metric.unit in ("tokens", "words") else ""
        held.append(f"{in_text(metric.label)} {value}{unit}, {' and '.join(sides)}")
    key, strength = toxicity_key(numbers), best["strength"]
    change = numbers["change"][key]
    ends = (change["mean"], *change["ci95"])
    moved, low, high = (number(one, 3, signed=True) for one in ends)
    label, level = in_text(names.METRICS[key].label), number(_mean(numbers, key), 3)
    return (
        f"{model.name}: strength {strength:g} is the largest inside the bounds of the budget "
        f"({'; '.join(held)}). There {label} is {level}, {moved} [{low}, {high}] against strength "
        f"0. {_how_to_ship(model, strength)}"
    )


def _how_to_ship(model: EvaluatedModel, strength: float) -> str:
    folder = Path(str(model.adapter)).expanduser()
    run = folder.parent
    if folder.name != "adapter" or not (run / "summary.json").is_file():
        return "For the adapter of a run, stage=export writes a strength into the weights."
    if strength != 1 and (reason := export_refusal(PeftConfig.from_pretrained(str(folder)))):
        return f"stage=export cannot write it: {reason}."
    return f"To ship it: python -m lora_detox stage=export run={run} export.strength={strength:g}"


def _toxicity(numbers: Numbers) -> float:
    """By the reward's classifier: the judge has no part in any choice."""
    return _mean(numbers, names.TOXICITY)


def _mean(numbers: Numbers, key: str) -> float:
    mean = mean_of(numbers.get(key))
    return float("nan") if mean is None else mean


def _span(numbers: Numbers, key: str) -> tuple[float, float, float]:
    """A level with its interval."""
    low, high = numbers["ci95"][key]
    return _mean(numbers, key), low, high


def _level(numbers: Numbers, key: str) -> str:
    if key not in numbers:
        return ""
    digits = names.METRICS[key].digits
    value, low, high = (number(one, digits) for one in _span(numbers, key))
    return f"{value} [{low}, {high}]"
