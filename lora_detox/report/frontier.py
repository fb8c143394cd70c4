"""Toxicity against quality: a curve per model, with labelled points and bars of intervals."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lora_detox.report.plots import COLOURS, INK, Plot, figure_svg, legend, styled_figure
from lora_detox.report.wording import NOT_KNOWN, number
from lora_detox.visible import visible

Span = tuple[float, float, float]
"""A number, and the ends of its interval; these may be NaN."""
_COLOURS = (*COLOURS, "#d1477a", "#8a8a1f", "#5f7fa8", "#9c6644")
_ROOM = 16
"""Characters of a point's label for which the picture is made smaller, at most."""
_LONGEST = 44
"""Characters of a label in the legend."""
_SAME_PLACE = 6.0
"""Points whose labels would stand on each other: within so many points of the picture."""
MOST_NAMED = len(_COLOURS)
"""Curves that a legend names."""


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """One setting of a method.

    Attributes:
        label: beside the point, may be empty.
        x: quality.
        y: toxicity.
    """

    label: str
    x: Span
    y: Span


@dataclass(frozen=True, kw_only=True)
class FrontierCurve:
    """The settings of one method, in their order.

    Attributes:
        label: in the legend.
        points: of it.
        colour: None takes the next one.
        joined: by lines.
    """

    label: str
    points: Sequence[FrontierPoint]
    colour: str | None = None
    joined: bool = True


STRENGTHS = "Numbers beside the points are strengths of the adapter; bars are 95 % intervals."


def frontier_plot(
    title: str,
    curves: Sequence[FrontierCurve],
    labels: tuple[str, str],
    note: str = STRENGTHS,
    digits: tuple[int, int] = (3, 3),
) -> Plot:
    """Draw curves of toxicity against quality.

    Args:
        title: heading; each picture of a page needs its own.
        curves: one per model or method; a legend of more than `MOST_NAMED` is left out.
        labels: of the axes, quality and toxicity.
        note: what labels and bars are.
        digits: after the point, of the numbers behind the picture.

    Returns:
        The picture with its numbers.
    """
    figure, (axes,) = styled_figure(1, (5.4, 3.6))
    for place, curve in enumerate(curves):
        colour = curve.colour or _COLOURS[place % len(_COLOURS)]
        xs, ys = ([getattr(point, axis)[0] for point in curve.points] for axis in "xy")
        axes.errorbar(
            xs,
            ys,
            xerr=_bars([point.x for point in curve.points]),
            yerr=_bars([point.y for point in curve.points]),
            color=colour,
            ecolor=(colour, 0.45),
            elinewidth=1.0,
            marker="o",
            ms=4,
            linestyle="-" if curve.joined else "none",
            label=_plain(_short(curve.label)),
        )
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_ylim(bottom=0)
    if 1 < len(curves) <= MOST_NAMED:
        legend(axes)
    _label(axes, [point for curve in curves for point in curve.points])
    return Plot(
        title=title,
        note=note,
        svg=figure_svg(figure, title),
        columns=("", *labels),
        points=[row for curve in curves for row in _rows(curve, digits)],
    )


def _label(axes: Any, points: Iterable[FrontierPoint]) -> None:
    """Write labels beside their points; points in one place share one."""
    places: list[tuple[tuple[float, float], Any, list[str]]] = []
    for point in points:
        at = point.x[0], point.y[0]
        drawn = axes.transData.transform(at) * 72 / axes.figure.dpi
        for _, there, known in places:
            if math.dist(drawn, there) <= _SAME_PLACE:
                known.append(point.label)
                break
        else:
            places.append((at, drawn, [point.label]))
    for at, _, known in places:
        text = ", ".join(dict.fromkeys(filter(None, known)))
        label = axes.annotate(
            _plain(_short(text)),
            at,
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=9,
            color=INK,
        )
        label.set_in_layout(len(text) <= _ROOM)


def _rows(curve: FrontierCurve, digits: tuple[int, int]) -> list[tuple[float, list[str]]]:
    """The numbers of a curve, as a table behind the picture has them."""
    rows = []
    for point in curve.points:
        several = len(curve.points) > 1 and point.label
        name = f"{curve.label}, {point.label}" if several else curve.label
        cells = [_span_text(*one) for one in zip((point.x, point.y), digits, strict=True)]
        rows.append((point.x[0], [name, *cells]))
    return rows


def _span_text(span: Span, digits: int) -> str:
    value, low, high = (number(one, digits) for one in span)
    return value if NOT_KNOWN in (low, high) else f"{value} [{low}, {high}]"


def _short(label: str) -> str:
    """A label that leaves room for the picture."""
    return label if len(label) <= _LONGEST else label[: _LONGEST - 4] + " ..."


def _plain(label: str) -> str:
    """A label that Matplotlib takes as it is: no formula, nothing that a legend leaves out."""
    return visible(label).lstrip("_").replace("$", r"\$")


def _bars(spans: Sequence[Span]) -> list[list[float]]:
    """Lengths below and above each number; none where the interval is not known."""
    lower = [max(0.0, value - low) if math.isfinite(low) else 0.0 for value, low, _ in spans]
    upper = [max(0.0, high - value) if math.isfinite(high) else 0.0 for value, _, high in spans]
    return [lower, upper]
