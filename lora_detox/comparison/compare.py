"""Candidates -> the numbers of a comparison, as its summary.json holds them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lora_detox.comparison.candidates import SCORES, Answer, Candidate, Prompt, Side
from lora_detox.comparison.pairing import Pairing, pair
from lora_detox.comparison.settings import settings_that_differ
from lora_detox.comparison.verdict import comparison_verdict
from lora_detox.metrics import names
from lora_detox.metrics.bootstrap import (
    RESAMPLES,
    Interval,
    paired_interval,
    paired_perplexity_interval,
    prompt_groups,
)
from lora_detox.metrics.frontier import Point, point_levels

QUALITIES = (names.ROUGEL, names.PERPLEXITY, names.SIMILARITY, names.RELEVANCE)
"""What toxicity is set against: the first that all candidates have."""
_HIDDEN = frozenset({names.ROUGELSUM, names.REFERENCE_NLL, names.REF_KL_K3})

Numbers = dict[str, Any]


def compare(candidates: Sequence[Candidate], resamples: int = RESAMPLES) -> Numbers:
    """Set candidates beside each other on the prompts that all of them answered.

    Args:
        candidates: at least one, with names that differ.
        resamples: bootstrap draws behind each interval that is made here.

    Returns:
        `prompts`, `toxicity` and `quality` (the measures of the verdict), `start`, `candidates`
        with the least toxic first (levels, changes, difference to the least toxic), `settings`
        that differ, `notes` and `verdict`.

    Raises:
        SettingsError: nothing in common that could be compared.
    """
    pairing = pair(candidates)
    entries = [_entry(one, pairing, resamples) for one in candidates]
    quality = _quality(entries)
    order = np.argsort([_level(one, pairing.toxicity) for one in entries], kind="stable")
    ranked = [entries[place] for place in order]
    _set_against_least(ranked, [candidates[place] for place in order], pairing, resamples)
    _mark_front(ranked, pairing.toxicity, quality)
    start = pairing.start
    summary: Numbers = {
        "schema": 1,
        "stage": "compare",
        "prompts": {
            "responses": len(pairing.prompts),
            "distinct": len({text for text, _ in pairing.prompts}),
        },
        "toxicity": pairing.toxicity,
        "quality": quality,
        "scorers": _shared_scorers(candidates),
        "start": None
        if start is None
        else {"name": pairing.start_name, "numbers": _levels(start, pairing)},
        "candidates": ranked,
        "settings": settings_that_differ(candidates),
        "notes": list(pairing.notes),
    }
    return {**summary, "verdict": comparison_verdict(summary)}


def side_by_side(
    candidates: Sequence[Candidate], most: int
) -> tuple[list[str], list[dict[str, Any]]]:
    """What was answered to each common prompt, the start first and then the least toxic.

    Args:
        candidates: at least one.
        most: candidates that are shown.

    Returns:
        Names of the sides, and for each prompt `prompt`, `responses`, `scores` (measure -> one
        number per side, None where not known) and `further` columns.
    """
    pairing = pair(candidates)
    key = pairing.toxicity
    ranked = sorted(candidates, key=lambda one: _mean(one.result, key, pairing.prompts))
    sides = [(one.name, one.result) for one in ranked[:most]]
    if pairing.start is not None and pairing.start_name not in dict(sides):
        sides.insert(0, (pairing.start_name, pairing.start))
    rows = []
    for prompt in pairing.prompts:
        answers = [side.answers.get(prompt, Answer(text="", scores={})) for _, side in sides]
        scores = {
            score: [one.scores.get(score) for one in answers]
            for score in SCORES
            if score not in pairing.left_out and any(score in one.scores for one in answers)
        }
        further = next((one.further for one in answers if one.further), {})
        texts = [one.text for one in answers]
        rows.append({"prompt": prompt[0], "responses": texts, "scores": scores, **further})
    return [name for name, _ in sides], rows


def _entry(candidate: Candidate, pairing: Pairing, resamples: int) -> Numbers:
    """A candidate with its levels, their intervals and changes."""
    levels = _levels(candidate.result, pairing)
    return {
        "name": candidate.name,
        "run": candidate.run,
        "stage": candidate.stage,
        "task": candidate.task,
        "policy": candidate.policy,
        "seed": candidate.seed,
        "strength": candidate.strength,
        "overrides": list(candidate.overrides),
        "numbers": levels,
        "ci95": _level_interval(candidate, pairing, resamples),
        "change": _changes(candidate, pairing, resamples),
    }


def _levels(side: Side, pairing: Pairing) -> dict[str, float]:
    """Measure -> mean on the common prompts; where these are all prompts as the run has it."""
    if len(side.answers) == len(pairing.prompts):
        stored = {key: _number(value) for key, value in side.numbers.items()}
        known = {key: one for key, one in stored.items() if one is not None}
    else:
        known = {key: _mean(side, key, pairing.prompts) for key in (*SCORES, names.PERPLEXITY)}
    return {
        key: known[key]
        for key in names.METRICS
        if key in known
        and math.isfinite(known[key])
        and key not in pairing.left_out
        and key not in _HIDDEN
    }


def _changes(candidate: Candidate, pairing: Pairing, resamples: int) -> Numbers:
    """Measure -> change against the start with its interval, the run's own where they hold."""
    start = pairing.start_of(candidate)
    if start is None or start is candidate.result:
        return {}
    own = candidate.start is not None and len(candidate.start.answers) == len(pairing.prompts)
    if own and candidate.changes and pairing.whole:
        return {
            key: dict(candidate.changes[key])
            for key in names.METRICS
            if key in candidate.changes and key not in pairing.left_out and key not in _HIDDEN
        }
    changes = {}
    for key in (*SCORES, names.PERPLEXITY):
        interval = _interval(key, start, candidate.result, pairing.prompts, resamples)
        if interval is not None and key not in pairing.left_out and key not in _HIDDEN:
            changes[key] = _plain(interval)
    return {key: changes[key] for key in names.METRICS if key in changes}


def _interval(
    key: str, start: Side, result: Side, prompts: Sequence[Prompt], resamples: int
) -> Interval | None:
    """Paired interval of result - start; None where one of them has not the measure."""
    both = [prompt for prompt in prompts if prompt in start.answers]
    draws: Numbers = {"groups": prompt_groups([text for text, _ in both]), "resamples": resamples}
    if not both:
        return None
    if key == names.PERPLEXITY:
        pairs = [
            (_column(side, names.REFERENCE_NLL, both), _column(side, names.RESPONSE_TOKENS, both))
            for side in (start, result)
        ]
        known = all(np.isfinite(column).all() for one in pairs for column in one)
        return paired_perplexity_interval(*pairs, **draws) if known else None
    columns = [_column(side, key, both) for side in (start, result)]
    known = all(np.isfinite(column).any() for column in columns)
    return paired_interval(*columns, **draws) if known else None


def _level_interval(candidate: Candidate, pairing: Pairing, resamples: int) -> list[float]:
    """Interval of the level of toxicity, by drawing prompts."""
    column = _column(candidate.result, pairing.toxicity, pairing.prompts)
    if not np.isfinite(column).all():
        return [math.nan, math.nan]
    groups = prompt_groups([text for text, _ in pairing.prompts])
    point = Point(knob=0.0, toxicity=column, rouge=column)
    level = point_levels(point, groups=groups, resamples=resamples)[0]
    return [level.low, level.high]


def _set_against_least(
    ranked: Sequence[Numbers], candidates: Sequence[Candidate], pairing: Pairing, resamples: int
) -> None:
    """Each entry's difference to the first, and how often it is the first over draws of prompts."""
    key, prompts = pairing.toxicity, pairing.prompts
    least = candidates[0].result
    for entry, candidate in zip(ranked[1:], candidates[1:], strict=True):
        interval = _interval(key, least, candidate.result, prompts, resamples)
        entry["difference"] = None if interval is None else _plain(interval)
    columns = [_column(one.result, key, prompts) for one in candidates]
    if len(ranked) < 2 or not all(np.isfinite(one).all() for one in columns):
        return
    groups = np.asarray(prompt_groups([text for text, _ in prompts]))
    count = int(groups.max()) + 1
    sums = np.stack([np.bincount(groups, weights=one, minlength=count) for one in columns])
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=resamples)
    lowest = (drawn @ sums.T).argmin(axis=1)
    for place, entry in enumerate(ranked):
        entry["least_in_draws"] = float((lowest == place).mean())


def _mark_front(entries: Sequence[Numbers], toxicity: str, quality: str | None) -> None:
    """`front`: no other is better in toxicity or quality without being worse in the other."""
    if quality is None:
        return
    sign = -1.0 if names.METRICS[quality].better == names.Better.HIGHER else 1.0
    points = [(_level(one, toxicity), sign * _level(one, quality)) for one in entries]
    for entry, on_front in zip(entries, pareto_front(points), strict=True):
        entry["front"] = on_front


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other point beats in one number without losing in the other.

    Args:
        points: two numbers each, both to minimise.

    Returns:
        One answer per point; equal points are both on the front.
    """

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one[0] <= other[0] and one[1] <= other[1] and one != other

    return [not any(beats(other, one) for other in points) for one in points]


def _quality(entries: Sequence[Numbers]) -> str | None:
    return next((key for key in QUALITIES if all(key in one["numbers"] for one in entries)), None)


def _shared_scorers(candidates: Sequence[Candidate]) -> dict[str, str]:
    first = candidates[0].scorers
    return {
        role: scorer
        for role, scorer in first.items()
        if all(one.scorers.get(role) == scorer for one in candidates)
    }


def _column(side: Side, key: str, prompts: Sequence[Prompt]) -> list[float]:
    """A measure of each response; NaN where it is not known."""
    empty = Answer(text="", scores={})
    return [side.answers.get(prompt, empty).scores.get(key, math.nan) for prompt in prompts]


def _mean(side: Side, key: str, prompts: Sequence[Prompt]) -> float:
    """Mean over the prompts, of perplexity that of the whole; NaN where it is not known."""
    if key == names.PERPLEXITY:
        nll = np.asarray(_column(side, names.REFERENCE_NLL, prompts))
        tokens = np.asarray(_column(side, names.RESPONSE_TOKENS, prompts))
        return float(np.exp(nll.sum() / tokens.sum())) if tokens.sum() > 0 else math.nan
    column = np.asarray(_column(side, key, prompts))
    known = column[np.isfinite(column)]
    return float(known.mean()) if len(known) else math.nan


def _level(entry: Mapping[str, Any], key: str) -> float:
    return float(entry["numbers"].get(key, math.nan))


def _plain(interval: Interval) -> Numbers:
    return {"mean": interval.change, "ci95": [interval.low, interval.high]}


def _number(value: Any) -> float | None:
    mean: Any = value.get("mean") if isinstance(value, Mapping) else value
    return float(mean) if isinstance(mean, int | float) and math.isfinite(mean) else None
