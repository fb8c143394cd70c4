"""Toxicity against quality: the curve of a method, and its toxicity at equal quality.

A knob is whatever makes a method stronger: the strength of an adapter, the size of a filter, the n
of best-of-n. Each setting gives one point (quality, toxicity) on the same prompts. Methods are
compared where they cost the same: at a bound on the quality, as 5 % above the start's perplexity.
Intervals are 95 % percentile intervals over draws of prompts, the same draws for every point.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    """

    knob: float
    toxicity: Sequence[float]
    nll: Sequence[float] = ()
    tokens: Sequence[float] = ()
    rouge: Sequence[float] = ()

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
        toxicity: the least that its curve reaches inside the bound, mean over seeds.
        difference: that less the same of the method it is compared with.
        inside: fraction of draws and seeds in which a point of it is inside at all; else the
            start's toxicity counts, as nothing of the method can be used.
    """

    toxicity: Level
    difference: Level
    inside: float


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
    groups: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, AtQuality]:
    """Compare methods where they cost the same.

    The bound is the start's quality, made worse by a fraction, and is drawn with it. A curve is the
    straight line from each point to the next; it counts where it is inside the bound and is never
    continued beyond its ends. Seeds of a method, where there are several, are drawn above the
    prompts; with three of them that level is coarse.

    Args:
        methods: by name the curves of its seeds, each in the order of its knob.
        start: the model that every method starts from, on the same prompts.
        allowed: fraction by which the quality may be worse than the start's, 0 or more.
        against: name of the method that the others are compared with.
        groups: which prompt each response belongs to; None says each its own.
        resamples: how many are drawn.
        seed: of the draws.

    Returns:
        Each method at the bound; the difference of `against` to itself is 0.

    Raises:
        ValueError: no such method, a method without points, or other prompts or another measure of
            quality than the start's.
    """
    if against not in methods:
        raise ValueError(f"against={against!r} is none of the methods {', '.join(methods)}")
    for name, curves in methods.items():
        _check(name, curves, start)
    counts = _draws(start, groups, resamples, seed)
    base = _levels(start, groups, counts)
    reached = {
        name: np.stack([_least_inside(curve, base, allowed, groups, counts) for curve in curves])
        for name, curves in methods.items()
    }
    rng = np.random.default_rng(seed + 1)
    drawn = {name: _over_seeds(one[:, 0], rng) for name, one in reached.items()}
    return {
        name: AtQuality(
            toxicity=_level(drawn[name]),
            difference=_level(drawn[name] - drawn[against]),
            inside=float(one[:, 1].mean()),
        )
        for name, one in reached.items()
    }


def _check(name: str, curves: Sequence[Sequence[Point]], start: Point) -> None:
    if not curves or not all(curves):
        raise ValueError(f"{name} has no curve, or one without points")
    for point in (one for curve in curves for one in curve):
        if len(point.toxicity) != len(start.toxicity) or point.by_perplexity != start.by_perplexity:
            raise ValueError(
                f"{name} at {point.knob:g} has {len(point.toxicity)} responses, the start "
                f"{len(start.toxicity)}; want the same prompts and the same measure of quality"
            )


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
    toxicity = np.asarray(point.toxicity, dtype=np.float64)
    if point.by_perplexity:
        cost, weight = np.asarray(point.nll), np.asarray(point.tokens)
    else:
        known = np.isfinite(np.asarray(point.rouge, dtype=np.float64))
        cost, weight = np.where(known, point.rouge, 0.0), known
    labels = np.arange(len(toxicity)) if groups is None else np.asarray(groups)
    _, prompt = np.unique(labels, return_inverse=True)
    columns = (toxicity, np.ones_like(toxicity), cost, weight)
    totals = counts @ np.stack([np.bincount(prompt, weights=one) for one in columns], axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quality = totals[:, 2] / totals[:, 3]
        if point.by_perplexity:
            quality = np.exp(quality)
        return totals[:, 0] / totals[:, 1], quality


def _least_inside(
    curve: Sequence[Point],
    base: tuple[FloatArray, FloatArray],
    allowed: float,
    groups: Sequence[int] | None,
    counts: Counts,
) -> FloatArray:
    """Least toxicity of each draw where a curve is inside, and whether it ever is [2, draws]."""
    levels = [_levels(point, groups, counts) for point in curve]
    sign = 1 if curve[0].by_perplexity else -1  # so that less is better
    limit = sign * base[1] * (1 + sign * allowed)
    toxicity = np.stack([one for one, _ in levels])
    excess = np.stack([sign * one for _, one in levels]) - limit
    inside = excess <= 0
    candidates = [np.where(inside, toxicity, np.inf)]
    with np.errstate(divide="ignore", invalid="ignore"):
        way = excess[:-1] / (excess[:-1] - excess[1:])  # to where the segment meets the bound
        crossing = toxicity[:-1] + way * (toxicity[1:] - toxicity[:-1])
    candidates.append(np.where(inside[:-1] != inside[1:], crossing, np.inf))
    least = np.concatenate(candidates).min(axis=0)
    usable = inside.any(axis=0)
    return np.stack([np.where(usable, least, base[0]), usable])


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
