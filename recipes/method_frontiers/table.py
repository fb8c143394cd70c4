"""Each method's frontier, its toxicity at equal quality, and what it costs: table and picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lora_detox.metrics import names
from lora_detox.metrics.bootstrap import FloatArray
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
from recipes.method_frontiers.latency import Timed, milliseconds, timed_in
from recipes.method_frontiers.methods import (
    ADAPTERS,
    CONTROLS,
    DECODED,
    LABELS,
    OURS,
    OURS_NAME,
)

RESAMPLES = 1000
AXES = {
    "perplexity": ("perplexity under the start", 0.3, 1.5),
    "rougeL": ("ROUGE-L of the references", 0.7, 1.3),
    names.RELEVANCE: ("relevance to the prompt", 0.55, 1.4),
    names.RESPONSE_WORDS: ("words per response", 0.75, 1.25),
}
"""Each panel of the picture: its label, and where it ends, as parts of the start's level."""


class Family(NamedTuple):
    """Methods of one colour in the picture."""

    names: tuple[str, ...]
    colours: str
    style: str


FAMILIES = (
    Family(OURS, "Blues", "-"),
    Family(ADAPTERS, "Oranges", "-"),
    Family(tuple(DECODED), "Greens", "--"),
    Family(CONTROLS, "Greys", ":"),
)


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


def markdown(start: Setting, curves: Curves, quality: Quality, timed: Timed) -> str:
    """One row per method, least toxicity inside every bound first.

    Args:
        start: what every curve begins with.
        curves: of the methods.
        quality: the bounds.
        timed: milliseconds of a response; empty leaves them out.
    """
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
    figures = [*_qualities([start.means]), "", milliseconds(timed, BASE, [0])]
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
                milliseconds(timed, name, knobs),
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


def _level(level: Level, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{level.value:{sign}.3f} [{level.low:{sign}.3f}, {level.high:{sign}.3f}]"


def picture(start: Setting, curves: Curves, quality: Quality, file: Path) -> None:
    """Toxicity against each bounded measure: the mean curve of each method over its seeds."""
    bounds = {quality.measure: 1 - quality.allowed, **quality.kept}
    if start.point.by_perplexity:
        bounds[quality.measure] = 1 + quality.allowed
    wide = len(bounds) > 2
    figure = Figure(figsize=(4.2 * len(bounds), 5.8 if wide else 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(1, len(bounds), sharey=True))
    base = float(np.mean(start.point.toxicity))
    for axes, (measure, bound) in zip(panels, bounds.items(), strict=True):
        level = _measured(start, measure)
        for name, seeds in curves.items():
            means = mean_curve(seeds, measure)
            axes.plot(*means.T, label=LABELS[name], **_line(name))
        axes.plot([level], [base], "k*", ms=13, label="start", zorder=5)
        outside = (level * bound, level * (3 if bound > 1 else -1))
        axes.axvspan(*outside, color="0.92", lw=0, zorder=0)
        label, low, high = AXES[measure]
        axes.set_xlim(level * low, level * high)
        axes.set_xlabel(label)
        axes.grid(alpha=0.25)
    panels[0].set_ylim(0, 1.3 * base)
    panels[0].set_ylabel("mean toxicity by the judge")
    figure.suptitle("From weak to strong; grey is outside the bound of the table", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    style = {"fontsize": 8, "ncols": 4 if wide else 2, "frameon": False}
    figure.legend(handles, labels, loc="outside lower center", **style)
    figure.savefig(file, dpi=110)


def mean_curve(seeds: list[list[Setting]], measure: str) -> FloatArray:
    """Measure and toxicity of each setting that all seeds have, mean over seeds [settings, 2]."""
    curves = [{one.point.knob: one for one in seed} for seed in seeds]
    knobs = [knob for knob in curves[0] if all(knob in curve for curve in curves)]
    levels = [
        [
            (_measured(curve[knob], measure), float(np.mean(curve[knob].point.toxicity)))
            for knob in knobs
        ]
        for curve in curves
    ]
    return np.asarray(np.mean(levels, axis=0))


def _measured(one: Setting, measure: str) -> float:
    """Perplexity, mean ROUGE-L or mean of what is kept, of the responses of a setting."""
    if measure == "perplexity":
        return float(np.exp(np.sum(one.point.nll) / np.sum(one.point.tokens)))
    values = one.point.rouge if measure == "rougeL" else one.point.kept[measure]
    return float(np.nanmean(values))


def _line(name: str) -> dict[str, Any]:
    """Colour by family and marker within it; ours is thick."""
    family = next(one for one in FAMILIES if name in one.names)
    place = family.names.index(name)
    shade = 0.9 - 0.55 * place / max(len(family.names) - 1, 1)
    return {
        "color": colormaps[family.colours](shade),
        "ls": family.style,
        "marker": "osD^vP"[place % 6],
        "ms": 7 if name == OURS_NAME else 4,
        "lw": 3 if name == OURS_NAME else 1.2,
        "zorder": 4 if name == OURS_NAME else 3,
    }


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
    text = markdown(start, curves, quality, timed_in(out))
    (out / "table.md").write_text(text, encoding="utf-8")
    (out / "samples.md").write_text(samples(start, curves, quality), encoding="utf-8")
    picture(start, curves, quality, out / "picture.png")
    print(text)
