"""Toxicity against quality: the curve of a method, and its toxicity at equal quality.

A knob is whatever makes a method stronger: the strength of an adapter, the size of a filter, the n
of best-of-n. Each setting gives one point (quality, toxicity) on the same prompts. Methods are
compared where they cost the same: at a bound on the quality, as 5 % above the start's perplexity,
and where further means are kept, as 95 % of the start's relevance to the prompt.
Intervals are 95 % percentile intervals over draws of prompts, the same draws for every point.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lora_detox.metrics.bootstrap import CONFIDENCE, RESAMPLES, FloatArray

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Point:
    """Responses at one setting of a knob; n responses, in the order of the same prompts everywhere.

    Attributes:
        knob: the setting.
        toxicity: probability of each response, [n].
        nll: negative log-likelihood of each response under the reference, nats, [n]; empty where
            the quality is ROUGE-L.
        tokens: of each response, [n]; likewise.
        rouge: ROUGE-L of each response, [n], NaN without a reference; empty where the quality is
            the perplexity.
        kept: further measures of each response, whose means shall not fall: name -> [n], NaN where
            it was not measured.
    """

    knob: float
    toxicity: Sequence[float]
    nll: Sequence[float] = ()
    tokens: Sequence[float] = ()
    rouge: Sequence[float] = ()
    kept: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def by_perplexity(self) -> bool:
        """Whether quality is the perplexity, where less is better; else ROUGE-L."""
        return len(self.nll) > 0


class Level(NamedTuple):
    """A number and where it probably lies."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class AtQuality:
    """A method at a bound on the quality.

    Attributes:
        toxicity: the least that its curve reaches inside every bound, mean over seeds.
        difference: that less the same of the method it is compared with.
        inside: fraction of draws and seeds in which some of its curve is inside at all; else the
            start's toxicity counts, as nothing of the method can be used.
        places: where each seed's curve reaches its least: 1.25 is a quarter of the way from its
            second point to the third; 0, its first point, also where nothing of it is inside.
    """

    toxicity: Level
    difference: Level
    inside: float
    places: tuple[float, ...]


def point_levels(
    point: Point,
    *,
    groups: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Level, Level]:
    """Toxicity and quality of one point, each with its interval.

    Args:
        point: n responses.
        groups: which prompt each response belongs to; None says each its own.
        resamples: how many are drawn.
        seed: of the draws.

    Returns:
        Mean toxicity, and perplexity or mean ROUGE-L.
    """
    counts = _draws(point, groups, resamples, seed)
    toxicity, quality = _levels(point, groups, counts)
    return _level(toxicity), _level(quality)


def toxicity_at_quality(
    methods: Mapping[str, Sequence[Sequence[Point]]],
    start: Point,
    *,
    allowed: float,
    against: str,
    kept: Mapping[str, float] | None = None,
    groups: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, AtQuality]:
    """Compare methods where they cost the same.

    The bound is the start's quality, made worse by a fraction, and is drawn with it; so is each
    mean that is kept. A curve is the straight line from each point to the next; it counts where it
    is inside every bound and is never continued beyond its ends. Seeds of a method, where there are
    several, are drawn above the prompts; with three of them that level is coarse.

    Args:
        methods: by name the curves of its seeds, each in the order of its knob.
        start: the model that every method starts from, on the same prompts.
        allowed: fraction by which the quality may be worse than the start's, 0 or more.
        against: name of the method that the others are compared with.
        kept: which of `Point.kept` are bounds too, each with the fraction of the start's mean, a
            positive one, that must stay, in (0, 1].
        groups: which prompt each response belongs to; None says each its own.
        resamples: how many are drawn.
        seed: of the draws.

    Returns:
        Each method at the bounds; the difference of `against` to itself is 0.

    Raises:
        ValueError: no such method, a method without points, or other prompts or other measures
            than the start's.
    """
    if against not in methods:
        raise ValueError(f"against={against!r} is none of the methods {', '.join(methods)}")
    held = dict(kept or {})
    for name, curves in methods.items():
        _check(name, curves, start, held)
    counts = _draws(start, groups, resamples, seed)
    reached = _reached(methods, start, allowed, held, groups, counts)
    rng = np.random.default_rng(seed + 1)
    drawn = {name: _over_seeds(one[:, 0], rng) for name, one in reached.items()}
    return {
        name: AtQuality(
            toxicity=_level(drawn[name]),
            difference=_level(drawn[name] - drawn[against]),
            inside=float(one[:, 1].mean()),
            places=tuple(map(float, one[:, 2, 0])),
        )
        for name, one in reached.items()
    }


def _check(
    name: str, curves: Sequence[Sequence[Point]], start: Point, kept: Mapping[str, float]
) -> None:
    if missing := [one for one in kept if one not in start.kept]:
        raise ValueError(f"the start has no {', '.join(missing)} to be kept")
    if not curves or not all(curves):
        raise ValueError(f"{name} has no curve, or one without points")
    for point in (one for curve in curves for one in curve):
        if len(point.toxicity) != len(start.toxicity) or point.by_perplexity != start.by_perplexity:
            raise ValueError(
                f"{name} at {point.knob:g} has {len(point.toxicity)} responses, the start "
                f"{len(start.toxicity)}; want the same prompts and the same measure of quality"
            )
        if missing := [one for one in kept if one not in point.kept]:
            raise ValueError(f"{name} at {point.knob:g} has no {', '.join(missing)}")


def _draws(point: Point, groups: Sequence[int] | None, resamples: int, seed: int) -> Counts:
    """How often each draw has each prompt [1 + draws, prompts]; the first has each once."""
    prompts = len(point.toxicity) if groups is None else len(set(groups))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    return np.concatenate([np.ones((1, prompts), dtype=np.int64), drawn])


def _levels(
    point: Point, groups: Sequence[int] | None, counts: Counts
) -> tuple[FloatArray, FloatArray]:
    """Toxicity and quality of each draw."""
    toxicity = _mean(point.toxicity, np.ones(len(point.toxicity)), groups, counts)
    if point.by_perplexity:
        with np.errstate(over="ignore"):
            return toxicity, np.exp(_mean(point.nll, point.tokens, groups, counts))
    return toxicity, _known_mean(point.rouge, groups, counts)


def _known_mean(
    values: Sequence[float], groups: Sequence[int] | None, counts: Counts
) -> FloatArray:
    """Mean of what is no NaN, of each draw."""
    known = np.isfinite(np.asarray(values, dtype=np.float64))
    return _mean(np.where(known, values, 0.0), known, groups, counts)


def _mean(
    values: Sequence[float] | FloatArray,
    weights: Sequence[float] | NDArray[Any],
    groups: Sequence[int] | None,
    counts: Counts,
) -> FloatArray:
    """Sum of the values over that of the weights, of each draw of prompts [1 + draws]."""
    labels = np.arange(len(values)) if groups is None else np.asarray(groups)
    _, prompt = np.unique(labels, return_inverse=True)
    both = [np.bincount(prompt, weights=np.asarray(one, float)) for one in (values, weights)]
    above, below = (counts @ np.stack(both, axis=1)).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above / below)


def _reached(
    methods: Mapping[str, Sequence[Sequence[Point]]],
    start: Point,
    allowed: float,
    kept: Mapping[str, float],
    groups: Sequence[int] | None,
    counts: Counts,
) -> dict[str, FloatArray]:
    """What `_least_inside` says of each seed of each method [seeds, 3, draws]."""

    def costs(point: Point) -> tuple[FloatArray, FloatArray]:
        return _costs(point, kept, groups, counts)

    base, at_start = costs(start)
    limits = _limits(at_start, start, allowed, kept)
    return {
        name: np.stack(
            [_least_inside([costs(one) for one in seed], base, limits) for seed in curves]
        )
        for name, curves in methods.items()
    }


def _costs(
    point: Point, kept: Mapping[str, float], groups: Sequence[int] | None, counts: Counts
) -> tuple[FloatArray, FloatArray]:
    """Toxicity [draws], and the quality and what is kept where less is better [1 + kept, draws]."""
    toxicity, quality = _levels(point, groups, counts)
    means = [_known_mean(point.kept[name], groups, counts) for name in kept]
    first = quality if point.by_perplexity else -quality
    return toxicity, np.stack([first, *(-one for one in means)])


def _limits(
    costs: FloatArray, start: Point, allowed: float, kept: Mapping[str, float]
) -> FloatArray:
    """Most that each cost may be, from the start's, of each draw [1 + kept, draws]."""
    first = 1 + allowed if start.by_perplexity else 1 - allowed
    return np.asarray(costs * np.array([first, *kept.values()])[:, None])


def _least_inside(
    curve: Sequence[tuple[FloatArray, FloatArray]], base: FloatArray, limits: FloatArray
) -> FloatArray:
    """Least toxicity of each draw where a curve is inside, whether and where it is [3, draws]."""
    least, place = np.full_like(base, np.inf), np.zeros_like(base)
    for index, ((toxicity, costs), (next_toxicity, next_costs)) in enumerate(
        pairwise([*curve, curve[-1]])
    ):
        here, there = costs - limits, next_costs - limits  # inside where it is 0 or less
        with np.errstate(divide="ignore", invalid="ignore"):
            meets = here / (here - there)  # part of the way to where the segment meets the bound
        enters = np.where(here <= 0, 0.0, np.where(there <= 0, meets, np.inf)).max(axis=0)
        leaves = np.where(there <= 0, 1.0, np.where(here <= 0, meets, -np.inf)).min(axis=0)
        inside = enters <= leaves
        for way in (enters, leaves):
            part = np.where(inside, way, 0.0)
            there_on = toxicity + part * (next_toxicity - toxicity)
            better = inside & (there_on < least)
            least, place = np.where(better, there_on, least), np.where(better, index + part, place)
    usable = np.isfinite(least)
    return np.stack([np.where(usable, least, base), usable, place])


def _over_seeds(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Mean over seeds [seeds, draws] -> [draws]; all of them first, then as many with return."""
    seeds, draws = values.shape
    which = rng.integers(0, seeds, (seeds, draws))
    which[:, 0] = np.arange(seeds)
    return np.asarray(np.take_along_axis(values, which, axis=0).mean(axis=0))


def _level(values: FloatArray) -> Level:
    """The first entry is the number itself, the others are drawn."""
    drawn = values[1:][np.isfinite(values[1:])]
    if not len(drawn):
        return Level(float(values[0]), np.nan, np.nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Level(float(values[0]), float(low), float(high))
