"""compare.html and sweep.html, and the same in the terminal: candidates beside each other.

All of it is made from the numbers of a comparison as its summary.json holds them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lora_detox.report.compare_tables import (
    Cells,
    configuration_table,
    effect_tables,
    measure_cells,
    ranking_cells,
    settings_table,
    short_table,
)
from lora_detox.report.frontier import FrontierCurve, FrontierPoint, frontier_plot
from lora_detox.report.glossary import terms
from lora_detox.report.jsonl import write_text_atomic
from lora_detox.report.plots import INK, Plot
from lora_detox.report.samples import Sample, SampleTable, ScoreColumn, further_of, sample_table
from lora_detox.report.tables import Table
from lora_detox.report.templates import template
from lora_detox.report.wording import MetricWording, in_text, mean_of, number, verdict
from lora_detox.visible import readable

MOST_SIDES = 4
"""Candidates whose responses a page shows, beside those of the start."""
_IN_ORDER = ("toxicity", "judge_toxicity")
_NOT_SHOWN = ("reference_nll", "response_tokens")

Numbers = Mapping[str, Any]
Metrics = Mapping[str, MetricWording]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One comparison of a page.

    Attributes:
        comparison: the summary of `lora_detox.comparison.compare`.
        samples: what was answered, or None.
        heading: where a page has several sections.
        sweep: numbers over the seeds and parameters of a multirun.
        lead: what stands before the verdict on the candidates.
        sentences: what seeds and parameters come to.
        tables: further ones.
        plots: further ones.
        notes: further ones.
        draws_front: whether toxicity is drawn against quality; not where `plots` do.
    """

    comparison: Numbers
    samples: SampleTable | None
    heading: str = ""
    sweep: Numbers | None = None
    lead: Sequence[str] = ()
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    notes: Sequence[str] = ()
    draws_front: bool = True


def answer_table(
    sides: Sequence[str], rows: Sequence[Numbers], toxicity: str, metrics: Metrics
) -> SampleTable | None:
    """Responses side by side, as a page shows them.

    Args:
        sides: names of those who answered.
        rows: `prompt`, `responses`, `scores` and what else a row of samples.jsonl has.
        toxicity: the measure of the verdict, which orders them.
        metrics: how each measure is shown.

    Returns:
        The table; None without rows.
    """
    keys = sorted({key for row in rows for key in row["scores"] if key in metrics})
    keys.sort(key=lambda key: (key != toxicity, key not in _IN_ORDER))
    columns = [_score_column(key, metrics[key]) for key in keys if key not in _NOT_SHOWN]
    samples = [
        Sample(
            prompt=row["prompt"],
            responses=row["responses"],
            scores=row["scores"],
            further=further_of(row),
        )
        for row in rows
    ]
    return sample_table(sides, samples, columns)


def write_comparison(
    path: Path,
    *,
    title: str,
    about: str,
    sections: Sequence[Section],
    metrics: Metrics,
    failed: Sequence[str] = (),
    settings_yaml: str = "",
) -> None:
    """Write the page.

    Args:
        path: the file to write.
        title: of the page.
        about: line above it.
        sections: at least one, or failed jobs.
        metrics: how each measure is shown (`metrics.names.METRICS`).
        failed: jobs of a multirun that failed, a line each.
        settings_yaml: of the run that made the page; empty leaves them out.
    """
    shown = [_shown(one, place, metrics) for place, one in enumerate(sections)]
    links = [link for one in shown for link in one["links"]]
    links += [("failed", "Failed jobs")] if failed else []
    links += [("settings", "Settings")] if settings_yaml else []
    page = template("compare.html.j2").render(
        title=title,
        about=about,
        sections=[*links, ("words", "Words")],
        shown=shown,
        failed=list(failed),
        settings_yaml=settings_yaml,
        terms=terms(_labels(shown)),
    )
    write_text_atomic(path, page)


def print_comparison(
    section: Section, metrics: Metrics, path: Path, console: Console | None = None
) -> None:
    """Print the verdict, the table and what differs.

    Args:
        section: to print.
        metrics: how each measure is shown.
        path: of the page.
        console: where to; None means standard output.
    """
    console = console or Console(highlight=False)
    comparison = section.comparison
    console.print()
    for sentence in (*section.lead, *comparison["verdict"]):
        console.print(readable(sentence, console), style="bold")
    console.print(short_table(comparison, metrics, console))
    differing = settings_table(comparison)
    notes = [*section.sentences, *_notes(section)]
    if differing is not None and len(differing.rows) <= 12:
        lines = ("; ".join(dict.fromkeys(row[1:])) for row in differing.rows)
        keys = (row[0] for row in differing.rows)
        notes += [f"differs: {key}: {line}" for key, line in zip(keys, lines, strict=True)]
    elif differing is not None:
        notes.append(f"{len(differing.rows)} settings differ: see the page.")
    for line in (*notes, f"page     {path}"):
        console.print(readable(line, console), soft_wrap=True)


def frontier_picture(comparison: Numbers, metrics: Metrics, heading: str = "") -> Plot | None:
    """Toxicity against quality of every candidate, with the intervals of its changes.

    Args:
        comparison: the numbers.
        metrics: how each measure is shown.
        heading: of the section, so that titles differ.

    Returns:
        The picture with its numbers; None where quality was not measured.
    """
    quality, toxicity = comparison["quality"], comparison["toxicity"]
    if quality is None:
        return None
    curves: dict[str, list[FrontierPoint]] = {}
    for label, shown, spans in _ranked_points(comparison, (quality, toxicity)):
        curves[label] = [FrontierPoint(label=shown, x=spans[0], y=spans[1])]
    start = comparison["start"]
    if start is not None and {quality, toxicity} <= start["numbers"].keys():
        point = [_span(start["numbers"][key], {}) for key in (quality, toxicity)]
        curves["start"] = [FrontierPoint(label="start", x=point[0], y=point[1])]
    labels = metrics[quality].label, metrics[toxicity].label
    return frontier_plot(
        f"{labels[1]} against {in_text(labels[0])}{': ' if heading else ''}{heading}",
        [
            FrontierCurve(label=name, points=points, colour=INK if name == "start" else None)
            for name, points in curves.items()
        ],
        labels,
        "Numbers are the places in the table above; bars are the 95 % intervals of the changes "
        f"from the start. {_direction(metrics[quality])}",
        (metrics[quality].digits, metrics[toxicity].digits),
    )


def configuration_picture(
    sweep: Numbers, comparison: Numbers, metrics: Metrics, heading: str = ""
) -> Plot | None:
    """The mean of each configuration over its seeds; None without several seeds or quality."""
    quality, toxicity = comparison["quality"], comparison["toxicity"]
    configurations = sweep["configurations"]
    if quality is None or all(one["jobs"] < 2 for one in configurations):
        return None
    curves = {}
    for place, one in enumerate(configurations, 1):
        x, y = (
            (value["mean"], value["mean"] - reach, value["mean"] + reach)
            for value in (one[quality], one[toxicity])
            for reach in [value["std"] or 0.0]
        )
        label = f"{place}. {one['name']}"
        curves[label] = [FrontierPoint(label=str(place), x=x, y=y)]
    labels = metrics[quality].label, metrics[toxicity].label
    return frontier_plot(
        f"Means over seeds: {in_text(labels[1])} against {in_text(labels[0])}"
        f"{': ' if heading else ''}{heading}",
        [FrontierCurve(label=name, points=points) for name, points in curves.items()],
        labels,
        "Numbers are the places in the table of configurations; bars are one standard deviation "
        f"over seeds to each side. {_direction(metrics[quality])}",
        (metrics[quality].digits, metrics[toxicity].digits),
    )


def _shown(section: Section, place: int, metrics: Metrics) -> dict[str, Any]:
    """What the template needs of a section; ids and links of later sections are numbered."""
    comparison, sweep = section.comparison, section.sweep
    end = "" if place == 0 else f"-{place + 1}"
    draws = section.draws_front
    picture = frontier_picture(comparison, metrics, section.heading) if draws else None
    plots = [picture] if picture else []
    configurations: list[Cells] = []
    if sweep is not None:
        means = configuration_picture(sweep, comparison, metrics, section.heading)
        plots = [*([means] if means else []), *plots]
        effects = effect_tables(sweep, comparison, metrics)
        configurations = [
            Cells.of(table)
            for table in (
                configuration_table(sweep, comparison, metrics),
                *(effects if len(effects) > 1 else []),
            )
        ]
    differing = settings_table(comparison)
    parts = [
        ("verdict", section.heading or "Verdict", True),
        ("configurations", "Seeds and parameters", configurations),
        ("ranking", "Beside each other", True),
        ("frontier", "Toxicity against quality", plots or section.plots),
        ("measures", "Every measure", True),
        ("samples", "Samples", section.samples),
        ("tables", "Further tables", section.tables),
        ("differing", "Settings that differ", differing),
        ("notes", "Notes", _notes(section)),
    ]
    return {
        "end": end,
        "heading": section.heading,
        "sentences": [*section.lead, *comparison["verdict"], *section.sentences],
        "tone": comparison_tone(comparison),
        "tiles": _tiles(comparison, metrics),
        "ranking": ranking_cells(comparison, metrics),
        "measures": measure_cells(comparison, metrics),
        "configurations": configurations,
        "plots": [*plots, *section.plots],
        "samples": section.samples,
        "tables": section.tables,
        "differing": differing,
        "notes": _notes(section),
        "links": [(f"{id}{end}", name) for id, name, kept in parts if kept],
    }


def _notes(section: Section) -> list[str]:
    """What a reader has to know, each once: a comparison and its stage may say the same."""
    return list(dict.fromkeys([*section.comparison["notes"], *section.notes]))


def _labels(shown: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands in the tables of a page and may need a word."""
    cells = [one[name] for one in shown for name in ("ranking", "measures")]
    heads = [head for one in cells for head in (*one.columns, *(row[0].text for row in one.rows))]
    return [*heads, "95 % interval", "Reference", "Adapter"]


def comparison_tone(comparison: Numbers) -> str:
    """Colour of the verdict: `better` or `worse` where the least toxic is so than its start."""
    least = comparison["candidates"][0]
    change = least["change"].get(comparison["toxicity"]) or {}
    outcome = verdict(change, "lower")
    return outcome if outcome in {"better", "worse"} else "unclear"


def _tiles(comparison: Numbers, metrics: Metrics) -> list[dict[str, str]]:
    """Name, number, interval and verdict of what decides, for a small screen."""
    least, *others = comparison["candidates"]
    toxicity, quality = comparison["toxicity"], comparison["quality"]
    tiles = [_tile("Toxicity from the start", least["change"].get(toxicity), metrics[toxicity])]
    if quality is not None:
        label = f"{metrics[quality].label} from the start"
        tiles.append(_tile(label, least["change"].get(quality), metrics[quality]))
    if others:
        to_second = _tile(
            "From the first to the second", others[0].get("difference"), metrics[toxicity]
        )
        tiles.append({**to_second, "verdict": ""} if to_second else {})
    return [tile for tile in tiles if tile]


def _tile(name: str, change: Numbers | None, metric: MetricWording) -> dict[str, str]:
    if not change:
        return {}
    ends = [number(end, metric.digits, signed=True) for end in change.get("ci95") or (None, None)]
    return {
        "name": name,
        "number": number(change["mean"], metric.digits, signed=True),
        "interval": f"{ends[0]} to {ends[1]}",
        "verdict": verdict(change, metric.better, metric.digits),
    }


def _score_column(key: str, metric: MetricWording) -> ScoreColumn:
    short = {"judge_toxicity": "judge", "response_tokens": "tokens"}
    label = short.get(key, in_text(metric.label).removesuffix(" to the prompt"))
    return ScoreColumn(key=key, label=label, digits=metric.digits, better=str(metric.better))


def _ranked_points(
    comparison: Numbers, keys: tuple[str, str]
) -> list[tuple[str, str, list[tuple[float, float, float]]]]:
    """Name, label and spans of each candidate; of those in one place the first has all labels."""
    entries = comparison["candidates"]
    at = [tuple(round(one["numbers"][key], 6) for key in keys) for one in entries]
    return [
        (
            f"{place}. {entry['name']}",
            ", ".join(str(other + 1) for other, one in enumerate(at) if one == at[place - 1])
            if at.index(at[place - 1]) == place - 1
            else "",
            [_span(entry["numbers"][key], entry["change"].get(key) or {}) for key in keys],
        )
        for place, entry in enumerate(entries, 1)
    ]


def _span(level: float, change: Numbers) -> tuple[float, float, float]:
    """A level with the interval of its change laid around it."""
    mean, ends = mean_of(change), [mean_of(end) for end in change.get("ci95") or (None, None)]
    if mean is None or ends[0] is None or ends[1] is None:
        return level, float("nan"), float("nan")
    return level, level + ends[0] - mean, level + ends[1] - mean


def _direction(quality: MetricWording) -> str:
    side = "left" if quality.better == "lower" else "right"
    return f"Better is down and to the {side}."
