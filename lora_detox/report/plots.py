"""Curves and histograms as inline SVG that takes the colour of the text around it.

Inline, so the page needs no second file; `currentColor`, so it reads on light and dark alike.
"""

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lora_detox.report.wording import mean_of
from lora_detox.visible import visible

# Matplotlib cannot draw in `currentColor`; it draws in this and the text is replaced.
INK = "#010203"
# Readable on white and on near-black, and apart for people who do not see red and green.
COLOURS = ("#3b82f6", "#e8710a", "#10a37f", "#b45cd6")

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a plot.

    Attributes:
        label: in the legend.
        read: takes the number out of a row of `metrics.jsonl`, None where it has none.
        marked: draw points too, for what is measured only now and then.
    """

    label: str
    read: Callable[[Row], float | None]
    marked: bool = False


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A finished picture.

    Attributes:
        title: heading, in words.
        note: how to read it.
        svg: safe markup, made here from numbers only.
        columns: headings of the table behind it, the horizontal axis first.
        points: its rows: the place on the horizontal axis, and text cells.
        axis: where in the picture (units of its view box) the axis has which values: left, right,
            value at left, value at right. Empty where no row can be told by its place.
    """

    title: str
    note: str
    svg: str
    columns: Sequence[str] = ()
    points: Sequence[tuple[float, Sequence[str]]] = ()
    axis: Sequence[float] = ()


def _logged(key: str, label: str) -> Curve:
    return Curve(label=label, read=lambda row: mean_of(row.get(key)))


def _evaluated(key: str, label: str) -> Curve:
    return Curve(
        label=label, read=lambda row: mean_of((row.get("evaluation") or {}).get(key)), marked=True
    )


_PLOTS: tuple[tuple[str, str, tuple[Curve, ...]], ...] = (
    ("Score", "Mean score of the rollouts; higher is better.", (_logged("score", "score"),)),
    (
        "Toxicity",
        "Rollouts sample from training prompts, evaluations use held-out prompts. "
        "If the judge does not follow the reward's classifier, that classifier is being fooled.",
        (
            _logged("toxicity", "rollouts"),
            _evaluated("toxicity", "evaluation"),
            _evaluated("judge_toxicity", "evaluation, judge"),
            _evaluated("listed_words", "evaluation, word list"),
        ),
    ),
    (
        "Do the scorers agree?",
        "Rank correlation of reward and judge over the responses of an evaluation, and the judge's "
        "toxicity less the reward's. A gap that widens while the reward falls is a warning.",
        (
            _evaluated("judge_agreement", "rank correlation"),
            _evaluated("judge_gap", "judge less reward"),
        ),
    ),
    (
        "Copies and stock phrases",
        "3-grams copied from the prompt, responses that begin with one of the ten most frequent "
        "openings, and self-BLEU: ways to be civil that say nothing.",
        (
            _evaluated("copied", "copied from the prompt"),
            _evaluated("common_openings", "frequent openings"),
            _evaluated("self_bleu", "self-BLEU"),
        ),
    ),
    (
        "Quality (ROUGE-L)",
        "Overlap with the references; higher is better.",
        (_evaluated("rougeL", "ROUGE-L"),),
    ),
    (
        "Perplexity",
        "Of the responses, under the reference policy; a steep rise means broken text.",
        (_evaluated("perplexity", "perplexity"),),
    ),
    (
        "Relevance to the prompt",
        "Cosine of prompt and response by the encoder; lower is another topic.",
        (_evaluated("relevance", "relevance"),),
    ),
    (
        "J",
        "Civil style x similarity to the prompt x fluency of rewrites; higher is better.",
        (
            _evaluated("joint", "J"),
            _evaluated("judge_joint", "J by the judge"),
            _evaluated("similarity", "similarity"),
            _evaluated("fluency", "fluency"),
        ),
    ),
    (
        "Distance from the reference",
        "Nats. k1 and k3 estimate the same KL; k1 may be negative on a sample, k3 never is.",
        (_logged("ref_kl", "k1"), _logged("ref_kl_k3", "k3")),
    ),
    ("KL coefficient", "Score units that a nat of KL costs.", (_logged("kl_coef", "kl_coef"),)),
    (
        "Budget: what is left",
        "Share of each limit by which the running measure is inside; below 0 it is outside.",
        (
            _logged("slack_perplexity", "perplexity"),
            _logged("slack_rougeL", "ROUGE-L"),
            _logged("slack_distinct_2", "distinct-2"),
            _logged("slack_relevance", "relevance"),
            _logged("slack_similarity", "similarity"),
            _logged("slack_symbols", "digits and markup"),
            _logged("slack_ref_kl", "KL"),
        ),
    ),
    (
        "Budget: multipliers",
        "What each measure is penalised by until it is inside, score units.",
        (
            _logged("multiplier_perplexity", "perplexity"),
            _logged("multiplier_rougeL", "ROUGE-L"),
            _logged("multiplier_distinct_2", "distinct-2"),
            _logged("multiplier_relevance", "relevance"),
            _logged("multiplier_similarity", "similarity"),
            _logged("multiplier_symbols", "digits and markup"),
            _logged("multiplier_typical_words", "length"),
        ),
    ),
    (
        "Response length",
        "Tokens. A policy that learns silence, or never ends, shows here.",
        (_logged("response_tokens", "rollouts"), _evaluated("response_tokens", "evaluation")),
    ),
    ("Loss", "Of supervised fine-tuning, or of TRL's trainer.", (_logged("loss", "loss"),)),
    (
        "Preference pairs",
        "Share in which the policy has moved towards the better response; 0.5 is chance.",
        (_logged("pair_accuracy", "fraction"),),
    ),
    ("Policy loss", "", (_logged("policy_loss", "policy loss"),)),
    ("Value loss", "", (_logged("value_loss", "value loss"),)),
    (
        "Probability ratio",
        "New over old probability of the sampled tokens; it should stay near 1.",
        (_logged("ratio", "ratio"),),
    ),
    (
        "Size of the update",
        "KL of the policy before against after, and the fraction of clipped ratios.",
        (_logged("approx_kl", "KL"), _logged("clip_fraction", "clipped")),
    ),
)
# Drawn from zero, so that a change looks as large as it is.
_FROM_ZERO = {"Toxicity", "Quality (ROUGE-L)", "Perplexity", "Response length", "KL coefficient"}


def training_plots(history: Sequence[Row]) -> list[Plot]:
    """Every curve that the history has numbers for.

    Args:
        history: rows of `metrics.jsonl`.

    Returns:
        Plots over iterations; a plot without numbers is left out.
    """
    drawn = [
        (title, note, curve_svg(title, curves, history, from_zero=title in _FROM_ZERO))
        for title, note, curves in _PLOTS
    ]
    return [Plot(title=title, note=note, svg=svg) for title, note, svg in drawn if svg]


def toxicity_histogram(samples: Sequence[Row]) -> Plot | None:
    """Toxicity of the responses before and after, as two histograms over [0, 1].

    Args:
        samples: rows of `samples.jsonl`.

    Returns:
        The plot, or None without toxicities.
    """
    before, after = (
        [float(row[key]) for row in samples if mean_of(row.get(key)) is not None]
        for key in ("toxicity_before", "toxicity_after")
    )
    if not before or not after:
        return None
    figure, axes = _empty_figure()
    axes.hist(
        [before, after],
        bins=np.linspace(0, 1, 11).tolist(),
        label=["before", "after"],
        color=[COLOURS[1], COLOURS[0]],
    )
    axes.set_xlabel("toxicity")
    axes.set_ylabel("responses")
    legend(axes)
    return Plot(
        title="Toxicity before and after",
        note="How many responses have which toxicity; a mean can hide a few very toxic ones.",
        svg=figure_svg(figure, "Toxicity before and after"),
    )


def curve_svg(
    title: str, curves: Sequence[Curve], history: Sequence[Row], *, from_zero: bool = False
) -> str:
    """Draw curves over iterations.

    Args:
        title: read out by screen readers; each picture of a page needs its own, because the ids
            in it are made from it.
        curves: what to draw.
        history: rows of `metrics.jsonl`; numbers that are not finite are left out.
        from_zero: draw the vertical axis from zero.

    Returns:
        An <svg> element, or "" if no curve has a number.
    """
    figure, axes = _empty_figure()
    drawn = 0
    for curve, colour in zip(curves, COLOURS, strict=False):
        points = [
            (row.get("iteration", place), value)
            for place, row in enumerate(history)
            if (value := curve.read(row)) is not None
        ]
        if not points:
            continue
        drawn += 1
        marker = "o" if curve.marked or len(points) == 1 else ""
        axes.plot(*zip(*points, strict=True), color=colour, label=curve.label, marker=marker, ms=4)
    if not drawn:
        return ""
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if from_zero and axes.dataLim.y0 > 0:
        axes.set_ylim(0, 1.08 * axes.dataLim.y1)
    if drawn > 1:
        legend(axes)
    return figure_svg(figure, title)


def _empty_figure() -> tuple[Any, Any]:
    figure, (axes,) = styled_figure(1, (4.4, 2.6))
    return figure, axes


def styled_figure(columns: int, inches: tuple[float, float]) -> tuple[Any, list[Any]]:
    """A transparent figure in the style of the reports.

    Args:
        columns: panels beside each other.
        inches: width and height of the whole.

    Returns:
        The figure and the axes of its panels, from left to right.
    """
    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0.0)
    panels = list(figure.subplots(1, columns, squeeze=False)[0])
    for axes in panels:
        axes.patch.set_alpha(0.0)
        axes.tick_params(colors=INK, labelsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        for spine in axes.spines.values():
            spine.set_color(INK)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, panels


def legend(axes: Any) -> None:
    """A legend in the style of the reports."""
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)


def figure_svg(figure: Any, title: str) -> str:
    """A finished figure as inline SVG.

    Args:
        figure: of `styled_figure`.
        title: read out by screen readers; ids are made from it.

    Returns:
        An <svg> element that takes the colour of the text around it.
    """
    buffer = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context(settings):
        figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Element ids repeat from picture to picture; only those that something refers to are needed.
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg).replace(INK, "currentColor")
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", svg, count=1)
    label = html.escape(visible(title))
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
