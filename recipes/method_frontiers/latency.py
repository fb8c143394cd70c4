"""Milliseconds of a response, as recipes.method_frontiers.timing measured them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recipes.method_frontiers.curves import BASE
from recipes.method_frontiers.methods import DECODED, OURS_NAME

LATENCY = "latency.json"
TIMED_RUN = f"{OURS_NAME}/seed0"
"""The adapter that stands for all of them: they have one shape, whatever trained them."""
Timed = Mapping[str, Mapping[float, float]]
"""Way of writing (`base`, `adapter`, or a decoding) -> its knob -> milliseconds of a response."""


def timed_in(out: Path) -> Timed:
    """What `latency.json` of a folder holds; nothing where there is none.

    Args:
        out: folder of the results.
    """
    file = out / LATENCY
    if not file.is_file():
        return {}
    ways = json.loads(file.read_text(encoding="utf-8"))["milliseconds"]
    return {
        way: {float(knob): float(np.median(rounds)) for knob, rounds in knobs.items()}
        for way, knobs in ways.items()
    }


def milliseconds(timed: Timed, method: str, knobs: Sequence[float]) -> str:
    """Of a response, the mean over seeds; between two settings on the line through them.

    Args:
        timed: by way of writing.
        method: `base`, or a method.
        knobs: its setting with each seed; at 0 it is the start.

    Returns:
        A whole number; empty where the way was not timed.
    """
    way = method if method == BASE or method in DECODED else "adapter"
    if way not in timed or BASE not in timed:
        return ""
    if way == "adapter":  # of any strength but 0
        return f"{timed[way][1.0]:.0f}"
    points = {**timed[BASE], **timed[way]}
    xs = sorted(points)
    ys = [points[x] for x in xs]
    return f"{np.mean([np.interp(knob, xs, ys) for knob in knobs]):.0f}"
