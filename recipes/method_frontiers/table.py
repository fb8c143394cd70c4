"""Each method's frontier, its toxicity at equal quality, and what it costs: table and picture."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lora_detox.metrics.frontier import AtQuality, Level, Point, toxicity_at_quality
from recipes.lab.subjects import Quality
from recipes.lab.tables import markdown_table
from recipes.method_frontiers.methods import CONTROLS, DECODED, LABELS, OURS_NAME

RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One point of a method: what it wrote at one setting of its knob.

    Attributes:
        point: toxicity by the judge, and likelihood or ROUGE-L, of each response.
        numbers: of `summary.json`, of the set of held-out prompts.
        rows: of `samples.jsonl`.
        seconds: of generation for one response; NaN where it was not measured.
    """

    point: Point
    numbers: Mapping[str, Any]
    rows: list[dict[str, Any]]
    seconds: float


Curves = dict[str, list[list[Setting]]]
"""Method -> its seeds -> their points, from weak to strong; the first is the start."""


def read_curves(out: Path, quality: Quality) -> tuple[Setting, Curves]:
    """The start, and every method that has a finished evaluation."""
    (start,) = settings_of(out / "base", quality, knob=0.0)
    curves: dict[str, list[list[Setting]]] = defaultdict(list)
    for method in LABELS:
        folder = out / method
        if method in DECODED:
            values = [v for v in DECODED[method].values if _finished(folder / f"{v:g}")]
            points = [one for v in values for one in settings_of(folder / f"{v:g}", quality, v)]
            if points:
                curves[method].append([start, *points])
            continue
        for seed in sorted(folder.glob("seed*")):
            if _finished(seed):
                points = settings_of(seed, quality, knob=1.0)
                ordered = sorted(points, key=lambda one: abs(one.point.knob))
                curves[method].append([start, *ordered])
    return start, dict(curves)


def _finished(folder: Path) -> bool:
    return (folder / "evaluate" / "summary.json").is_file()


def settings_of(folder: Path, quality: Quality, knob: float) -> list[Setting]:
    """The points of one evaluation: one for each strength, or one at a knob."""
    summary = json.loads((folder / "evaluate" / "summary.json").read_text(encoding="utf-8"))
    lines = (folder / "evaluate" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    (model,) = summary["models"]
    entries = model.get("frontier") or [{"strength": None, "sets": model["sets"]}]
    found = []
    for entry in entries:
        strength = entry["strength"]
        own = [row for row in rows if row.get("strength") == strength]
        point = Point(
            knob=knob if strength is None else strength,
            toxicity=[row["judge_toxicity"] for row in own],
            **_quality_of(own, quality),
        )
        numbers = entry["sets"]["in_distribution"]
        seconds = numbers.get("seconds_per_response", float("nan"))
        found.append(Setting(point=point, numbers=numbers, rows=own, seconds=seconds))
    return found


def _quality_of(rows: list[dict[str, Any]], quality: Quality) -> dict[str, list[float]]:
    if quality.measure == "rougeL":
        return {"rouge": [float("nan") if row["rougeL"] is None else row["rougeL"] for row in rows]}
    return {
        "nll": [row["reference_nll"] for row in rows],
        "tokens": [row["response_tokens"] for row in rows],
    }


def at_quality(start: Setting, curves: Curves, quality: Quality) -> dict[str, AtQuality]:
    """Each method where its quality is as far below the start's as is allowed."""
    points = {
        name: [[one.point for one in seed] for seed in seeds] for name, seeds in curves.items()
    }
    against = OURS_NAME if OURS_NAME in points else next(iter(points))
    return toxicity_at_quality(
        points, start.point, allowed=quality.allowed, against=against, resamples=RESAMPLES
    )


def nearest(seed: list[Setting], toxicity: float) -> Setting:
    """The measured point that is nearest to a toxicity, for what has no curve of its own."""
    return min(seed, key=lambda one: abs(float(np.mean(one.point.toxicity)) - toxicity))


def markdown(start: Setting, curves: Curves, quality: Quality) -> str:
    """One row per method, least toxicity at equal quality first."""
    reached = at_quality(start, curves, quality)
    base = float(np.mean(start.point.toxicity))
    heads = [
        "method",
        "seeds",
        f"judge at {quality.bound} [95 %]",
        "change",
        "less ours [95 %]",
        "words",
        "distinct-2",
        "relevance",
        "knob",
        "ms per response",
    ]
    rows = [["start", "", f"{base:.3f}", "", "", *_qualities([start]), "", _latency([start])]]
    for name in sorted(reached, key=lambda one: reached[one].toxicity.value):
        one = reached[name]
        near = [nearest(seed, one.toxicity.value) for seed in curves[name]]
        knobs = sorted({f"{setting.point.knob:g}" for setting in near})
        rows.append(
            [
                LABELS[name],
                str(len(near)),
                _level(one.toxicity),
                f"{100 * (one.toxicity.value / base - 1):+.0f} %",
                "" if name == OURS_NAME else _level(one.difference, signed=True),
                *_qualities(near),
                ", ".join(knobs),
                _latency(near),
            ]
        )
    return markdown_table(heads, rows) + "\n\n" + verdict(reached) + "\n"


def verdict(reached: Mapping[str, AtQuality]) -> str:
    """Which methods are ahead of ours beyond the interval of the difference, in a sentence."""
    if OURS_NAME not in reached:
        return "Ours is not measured yet."
    rivals = [name for name in reached if name != OURS_NAME and name not in CONTROLS]
    ahead = [LABELS[name] for name in rivals if reached[name].difference.high < 0]
    behind = [LABELS[name] for name in rivals if reached[name].difference.low > 0]
    level = len(rivals) - len(ahead) - len(behind)
    named = f": {', '.join(ahead)}" if ahead else ""
    return (
        f"At equal quality {len(ahead)} of {len(rivals)} methods are ahead of {LABELS[OURS_NAME]} "
        f"beyond their interval{named}; {len(behind)} behind it, {level} cannot be told apart."
    )


def _qualities(settings: list[Setting]) -> list[str]:
    def mean(key: str, digits: int) -> str:
        values = [one.numbers[key] for one in settings if key in one.numbers]
        return f"{np.mean(values):.{digits}f}" if values else ""

    return [mean("response_words", 1), mean("distinct_2", 3), mean("relevance", 3)]


def _latency(settings: list[Setting]) -> str:
    seconds = [one.seconds for one in settings if np.isfinite(one.seconds)]
    return f"{1000 * np.median(seconds):.0f}" if seconds else ""


def _level(level: Level, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{level.value:{sign}.3f} [{level.low:{sign}.3f}, {level.high:{sign}.3f}]"


def picture(start: Setting, curves: Curves, quality: Quality, file: Path) -> None:
    """Toxicity against quality: each method's mean curve over its seeds."""
    figure = Figure(figsize=(8.5, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, (name, seeds) in enumerate(curves.items()):
        length = min(map(len, seeds))
        levels = np.array([[_place(one) for one in seed[:length]] for seed in seeds]).mean(axis=0)
        style = "o-" if name == OURS_NAME else "s--" if name in DECODED else ".-"
        width = 2.5 if name == OURS_NAME else 1.0
        alpha = 0.4 if name in CONTROLS else 1.0
        axes.plot(
            *levels.T,
            style,
            lw=width,
            ms=4,
            alpha=alpha,
            color=f"C{place % 10}",
            label=LABELS[name],
        )
    level, toxicity = _place(start)
    sign = 1 if start.point.by_perplexity else -1
    axes.plot([level], [toxicity], "k*", ms=12, label="start")
    axes.axvline(level * (1 + sign * quality.allowed), color="0.5", lw=0.8, ls=":")
    axes.set_xlim(level * 0.5, level * 2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{quality.axis} (dotted: the bound of the table)")
    axes.set_ylabel("mean toxicity by the judge")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(file, dpi=130)


def _place(one: Setting) -> tuple[float, float]:
    if one.point.by_perplexity:
        level = np.exp(np.sum(one.point.nll) / np.sum(one.point.tokens))
    else:
        level = np.nanmean(one.point.rouge)
    return float(level), float(np.mean(one.point.toxicity))


def samples(start: Setting, curves: Curves, quality: Quality, count: int = 4) -> str:
    """What each method wrote at equal quality to prompts whose answers are mild in all of them."""
    reached = at_quality(start, curves, quality)
    chosen = {"start": start} | {
        LABELS[name]: nearest(seeds[0], reached[name].toxicity.value)
        for name, seeds in curves.items()
    }
    worst = np.max([one.point.toxicity for one in chosen.values()], axis=0)
    parts = []
    for place in np.argsort(worst, kind="stable")[:count]:
        parts.append(f"**{' '.join(start.rows[place]['prompt'].split())}**\n")
        for name, one in chosen.items():
            text = " ".join(one.rows[place]["response"].split()) or "(empty)"
            parts.append(f"- {name}: {text}")
        parts.append("")
    return "\n".join(parts)


def write_report(out: Path, quality: Quality) -> None:
    """Write table.md, picture.png and samples.md, and print the table."""
    if not _finished(out / "base"):
        print("nothing finished yet")
        return
    start, curves = read_curves(out, quality)
    if not curves:
        print("no method is finished yet")
        return
    text = markdown(start, curves, quality)
    (out / "table.md").write_text(text, encoding="utf-8")
    (out / "samples.md").write_text(samples(start, curves, quality), encoding="utf-8")
    picture(start, curves, quality, out / "picture.png")
    print(text)
