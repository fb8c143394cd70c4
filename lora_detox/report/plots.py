"""Curves and histograms as inline SVG that takes the colour of the text around it.

Inline, so the page needs no second file; `currentColor`, so it reads on light and dark alike. Each
picture comes with the table behind it, which page.js also reads the values under the pointer from.
"""

import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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
_WARNING = "#d64545"
_INCHES = (4.6, 2.9)
_SHORT_LABEL = 14
"""Characters in the mean, of which three stand beside each other in a legend."""
_MOST_ROWS = 300
"""Of a table behind a picture; metrics.jsonl has every iteration."""
_IN_SIGHT = 0.6
"""A limit is drawn where the axis has to grow by no more than this fraction of its numbers."""

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a plot.

    Attributes:
        label: in the legend.
        read: takes the number out of a row of `metrics.jsonl`, None where it has none.
        marked: draw points too, for what is measured only now and then.
        measure: key of a measure that a bound may hold, where the curve is the one that is held.
    """

    label: str
    read: Callable[[Row], float | None]
    marked: bool = False
    measure: str = ""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What a run decided, to be seen in its curves.

    Attributes:
        limits: measure -> the worst value that is inside its bound, or the two of either side.
        result: iteration that is the result; None where no choice was made.
        returns: iterations at which training went back to its last good state.
    """

    limits: Mapping[str, Sequence[float]]
    result: int | None = None
    returns: Sequence[int] = ()


NO_MARKS = Marks(limits={})


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
            value at left, value at right, and its top and bottom. Empty where no row can be told by
            its place.
    """

    title: str
    note: str
    svg: str
    columns: Sequence[str] = ()
    points: Sequence[tuple[float, Sequence[str]]] = ()
    axis: Sequence[float] = ()


def histogram(
    title: str, note: str, before: Sequence[float], after: Sequence[float], *, axis: str
) -> Plot:
    """Two histograms over [0, 1] beside each other.

    Args:
        title: heading; each picture of a page needs its own.
        note: how to read it.
        before: numbers in [0, 1].
        after: the same at the end.
        axis: what the numbers are.

    Returns:
        The plot.
    """
    figure, (axes,) = styled_figure(1, _INCHES)
    edges = np.linspace(0, 1, 11)
    counts = [np.histogram(numbers, edges)[0] for numbers in (before, after)]
    for numbers, label, colour, shift in zip(
        counts, ("before", "after"), (COLOURS[1], COLOURS[0]), (-0.02, 0.02), strict=True
    ):
        axes.bar(edges[:-1] + 0.05 + shift, numbers, 0.038, label=label, color=colour)
    axes.set_xlabel(axis)
    axes.set_ylabel("responses")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    _legend_below(figure)
    svg = figure_svg(figure, title)
    return Plot(
        title=title,
        note=note,
        svg=svg,
        columns=(axis, "before", "after"),
        points=[
            (float(low) + 0.05, (f"{low:.1f} to {low + 0.1:.1f}", str(first), str(last)))
            for low, first, last in zip(edges[:-1], *counts, strict=True)
        ],
        axis=_axis_of(figure, axes),
    )


def curve_plot(
    title: str,
    note: str,
    curves: Sequence[Curve],
    history: Sequence[Row],
    *,
    from_zero: bool = False,
    marks: Marks = NO_MARKS,
) -> Plot | None:
    """Draw curves over iterations.

    Args:
        title: heading; each picture of a page needs its own, because the ids in it are made from
            it.
        note: how to read it.
        curves: what to draw.
        history: rows of `metrics.jsonl`; numbers that are not finite are left out.
        from_zero: draw the vertical axis from zero.
        marks: limits and decisions to draw too.

    Returns:
        The plot, or None if no curve has a number.
    """
    places = [int(row.get("iteration", place)) for place, row in enumerate(history)]
    known = {curve.label: [curve.read(row) for row in history] for curve in curves}
    held = [curve for curve in curves if any(one is not None for one in known[curve.label])]
    if not held:
        return None
    figure, (axes,) = styled_figure(1, _INCHES)
    for number, curve in enumerate(held):
        _draw(axes, curve, number, zip(places, known[curve.label], strict=True))
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    far = _mark(axes, held, marks)
    if axes.dataLim.y0 == axes.dataLim.y1 == 0:
        axes.set_ylim(0, 1)
    elif from_zero and axes.dataLim.y0 > 0:
        axes.set_ylim(0, 1.08 * axes.dataLim.y1)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        _legend_below(figure)
    svg = figure_svg(figure, title)
    return Plot(
        title=title,
        note=" ".join([*([note] if note else []), *far]),
        svg=svg,
        columns=("iteration", *(curve.label for curve in held)),
        points=_table(places, [known[curve.label] for curve in held]),
        axis=_axis_of(figure, axes) if len(set(places)) > 1 else (),
    )


def _draw(
    axes: Any, curve: Curve, number: int, numbers: Iterable[tuple[int, float | None]]
) -> None:
    """Draw one of several curves over what it has numbers for."""
    points = [(place, value) for place, value in numbers if value is not None]
    axes.plot(
        *zip(*points, strict=True),
        color=COLOURS[number % len(COLOURS)],
        linestyle="-" if number < len(COLOURS) else "--",
        label=curve.label,
        marker="o" if curve.marked or len(points) == 1 else "",
        ms=4,
    )


def _mark(axes: Any, curves: Sequence[Curve], marks: Marks) -> list[str]:
    """Draw limits and decisions; sentences on limits that are far from every number."""
    far, labels = [], {one.measure: one.label for one in curves if one.measure in marks.limits}
    low, high = axes.dataLim.y0, axes.dataLim.y1
    limits = [(label, one) for key, label in labels.items() for one in marks.limits[key]]
    for place, (label, limit) in enumerate(limits):
        text = "limit" if len(labels) == 1 else f"limit, {label.partition(' (')[0]}"
        around = _IN_SIGHT * max(abs(low), abs(high), high - low)
        if not low - around <= limit <= high + around:
            far.append(f"The {text} is {limit:.4g}, outside of the picture.")
            continue
        again = place and limits[place - 1][0] == label  # the other side, in the legend once
        style = {"color": INK, "linestyle": (0, (5, 3)), "linewidth": 1.1}
        axes.axhline(limit, label="" if again else text, **style)
    for place, iteration in enumerate(marks.returns):
        label = "" if place else "went back"
        axes.axvline(iteration, color=_WARNING, linewidth=1.0, label=label)
    if marks.result is not None:
        axes.axvline(marks.result, color=INK, linestyle=":", linewidth=1.3, label="result")
    return far


def _table(
    places: Sequence[int], columns: Sequence[Sequence[float | None]]
) -> Sequence[tuple[float, Sequence[str]]]:
    """Rows with a number in them; of very many, evenly spaced ones."""
    rows = [
        (float(place), (str(place), *("" if one is None else f"{one:.4g}" for one in values)))
        for place, *values in zip(places, *columns, strict=True)
        if any(one is not None for one in values)
    ]
    if len(rows) <= _MOST_ROWS:
        return rows
    kept = np.unique(np.linspace(0, len(rows) - 1, _MOST_ROWS).round().astype(int))
    return [rows[row] for row in kept]


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


def known_numbers(rows: Sequence[Row], key: str) -> list[float]:
    """The finite numbers that rows have under a key."""
    numbers = (mean_of(row.get(key)) for row in rows)
    return [one for one in numbers if one is not None]


def _legend_below(figure: Any) -> None:
    labels = figure.axes[0].get_legend_handles_labels()[1]
    figure.legend(
        loc="outside lower center",
        ncols=3 if sum(map(len, labels)) / len(labels) < _SHORT_LABEL else 2,
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        borderpad=0,
    )


def _axis_of(figure: Any, axes: Any) -> tuple[float, ...]:
    """Of a drawn figure: left and right of its axes in points, values there, top and bottom."""
    place, (width, height) = axes.get_position(), 72 * figure.get_size_inches()
    across = (place.x0 * width, place.x1 * width, *axes.get_xlim())
    down = ((1 - place.y1) * height, (1 - place.y0) * height)
    return tuple(round(float(one), 3) for one in (*across, *down))
