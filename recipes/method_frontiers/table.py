"""Each method's frontier, its toxicity at equal quality, and what it costs: table and picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lora_detox.metrics.frontier import AtQuality, Level, toxicity_at_quality
from recipes.lab.subjects import Quality
from recipes.lab.tables import markdown_table
from recipes.method_frontiers.curves import (
    BASE,
    Curves,
    Setting,
    curves_of,
    keep_runs,
    read_runs,
)
from recipes.method_frontiers.methods import CONTROLS, DECODED, LABELS, OURS_NAME

RESAMPLES = 1000


def at_quality(
    start: Setting, curves: Curves, quality: Quality, *, kept: bool = True
) -> dict[str, AtQuality]:
    """Each method where its quality is as far below the start's as is allowed.

    Args:
        start: what every curve begins with.
        curves: of the methods.
        quality: the bounds.
        kept: also where the further measures are kept, as relevance; else by the first alone.
    """
    points = {
        name: [[one.point for one in seed] for seed in seeds] for name, seeds in curves.items()
    }
    against = OURS_NAME if OURS_NAME in points else next(iter(points))
    return toxicity_at_quality(
        points,
        start.point,
        allowed=quality.allowed,
        against=against,
        kept=quality.kept if kept else None,
        resamples=RESAMPLES,
    )


def between(seed: list[Setting], place: float) -> tuple[float, Mapping[str, float]]:
    """Knob and means at a place of a curve, on the straight line between two measured points."""
    here, there = seed[math.floor(place)], seed[math.ceil(place)]
    part = place % 1

    def mixed(a: float, b: float) -> float:
        return (1 - part) * a + part * b

    shared = here.means.keys() & there.means.keys()
    means = {name: mixed(here.means[name], there.means[name]) for name in shared}
    return mixed(here.point.knob, there.point.knob), means


def markdown(start: Setting, curves: Curves, quality: Quality) -> str:
    """One row per method, least toxicity inside every bound first."""
    reached = at_quality(start, curves, quality)
    alone = at_quality(start, curves, quality, kept=False)
    base = float(np.mean(start.point.toxicity))
    heads = [
        "method",
        "seeds",
        f"judge at {quality.all_bounds} [95 %]",
        "change",
        "less ours [95 %]",
        *([f"at {quality.bound} alone"] if quality.kept else []),
        "words",
        "distinct-2",
        "relevance",
        "knob",
        "ms per response",
    ]
    blank = [""] if quality.kept else []
    figures = [*_qualities([start.means]), "", _latency([start])]
    rows = [["start", "", f"{base:.3f}", "", "", *blank, *figures]]
    for name in sorted(reached, key=lambda one: reached[one].toxicity.value):
        one = reached[name]
        seeds = list(zip(curves[name], one.places, strict=True))
        knobs, means = zip(*[between(*seed) for seed in seeds], strict=True)
        rows.append(
            [
                LABELS[name],
                str(len(seeds)),
                _level(one.toxicity),
                f"{100 * (one.toxicity.value / base - 1):+.0f} %",
                "" if name == OURS_NAME else _level(one.difference, signed=True),
                *([f"{alone[name].toxicity.value:.3f}"] if quality.kept else []),
                *_qualities(means),
                ", ".join(f"{knob:.0f}" if abs(knob) >= 10 else f"{knob:.2g}" for knob in knobs),
                _latency([seed[round(place)] for seed, place in seeds]),
            ]
        )
    said = verdict(reached, quality.all_bounds)
    if quality.kept:
        said += " " + verdict(alone, f"{quality.bound} alone")
    return markdown_table(heads, rows) + "\n\n" + said + "\n"


def verdict(reached: Mapping[str, AtQuality], bounds: str) -> str:
    """Which methods are ahead of ours beyond the interval of the difference, in a sentence."""
    if OURS_NAME not in reached:
        return "Ours is not measured yet."
    rivals = [name for name in reached if name != OURS_NAME and name not in CONTROLS]
    ahead = [LABELS[name] for name in rivals if reached[name].difference.high < 0]
    behind = [LABELS[name] for name in rivals if reached[name].difference.low > 0]
    level = len(rivals) - len(ahead) - len(behind)
    named = f": {', '.join(ahead)}" if ahead else ""
    return (
        f"At {bounds} {len(ahead)} of {len(rivals)} methods are ahead of {LABELS[OURS_NAME]} "
        f"beyond their interval{named}; {len(behind)} behind it, {level} cannot be told apart."
    )


def _qualities(means: Sequence[Mapping[str, float]]) -> list[str]:
    def mean(key: str, digits: int) -> str:
        values = [one[key] for one in means if key in one]
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
    """What each method wrote near equal quality to prompts whose answers are mild in all of them.

    Runs of which only numbers were kept have no texts to show.
    """
    reached = at_quality(start, curves, quality)
    chosen = {"start": start} | {
        LABELS[name]: seeds[0][round(reached[name].places[0])] for name, seeds in curves.items()
    }
    chosen = {name: one for name, one in chosen.items() if one.rows}
    if "start" not in chosen:
        return ""
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
    """Write results.json, table.md, picture.png and samples.md, and print the table."""
    runs = read_runs(out, quality)
    if BASE not in runs:
        print("nothing finished yet")
        return
    keep_runs(out, runs)
    (start,), curves = runs[BASE], curves_of(runs)
    if not curves:
        print("no method is finished yet")
        return
    text = markdown(start, curves, quality)
    (out / "table.md").write_text(text, encoding="utf-8")
    (out / "samples.md").write_text(samples(start, curves, quality), encoding="utf-8")
    picture(start, curves, quality, out / "picture.png")
    print(text)
