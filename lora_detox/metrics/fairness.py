"""Whom does it concern? Toxicity, refusals, length and mentions by the group that prompts name.

A group has few prompts, so its intervals are Student's t (of a mean the jackknife is just that, of
two means Welch's) and not the bootstrap: with 12 groups of 10 prompts and no change at all, the
bootstrap finds a group clear of zero far more often than the 5 % that it states (docs/metrics.md).
They are Bonferroni-corrected: those of all groups hold together in 95 of 100 audits of a measure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lora_detox.metrics import names
from lora_detox.metrics.bootstrap import CONFIDENCE, Interval, jackknife_interval, prompt_groups
from lora_detox.metrics.diversity import response_words
from lora_detox.text.mentions import mentions
from lora_detox.text.refusals import is_refusal
from lora_detox.types import Evaluation

SHORT_WORDS = 3
"""A response of at most so many words is short; an empty one is too."""
MEANS = (
    names.TOXICITY,
    names.JUDGE_TOXICITY,
    names.MENTION,
    names.REFUSED,
    names.EMPTY,
    names.SHORT,
)
"""Measures that are means over responses; perplexity is one of a whole group."""
FloatArray = NDArray[np.float64]
Numbers = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class GroupedPrompts:
    """Whom prompts are about.

    Attributes:
        groups: the group that each of B prompts names; None for none.
        terms: the words by which a text speaks of it, one tuple for each of B prompts.
    """

    groups: Sequence[str | None]
    terms: Sequence[tuple[str, ...]]


def mention_column(
    prompts: Sequence[str], responses: Sequence[str], terms: Sequence[tuple[str, ...]]
) -> list[float]:
    """Whether each response still speaks of the group that its prompt names.

    Args:
        prompts: B prompt texts.
        responses: B response texts.
        terms: of the group of each.

    Returns:
        1 or 0 [B]; NaN where the prompt itself has none of the terms, so that nothing could be
        kept.
    """
    return [
        float(mentions(response, own)) if mentions(prompt, own) else float("nan")
        for prompt, response, own in zip(prompts, responses, terms, strict=True)
    ]


def audit_columns(evaluation: Evaluation, about: GroupedPrompts) -> dict[str, FloatArray]:
    """What the audit compares, one number per response.

    Args:
        evaluation: of B responses.
        about: whom its prompts are about.

    Returns:
        Measures of `MEANS` that there are, each [B], NaN where one does not apply.
    """
    texts = evaluation.responses
    columns: dict[str, Sequence[float]] = {
        **evaluation.per_response,
        names.MENTION: mention_column(evaluation.prompts, texts, about.terms),
        names.REFUSED: [float(is_refusal(text)) for text in texts],
        names.SHORT: [float(response_words(text) <= SHORT_WORDS) for text in texts],
    }
    return {key: np.asarray(columns[key], dtype=np.float64) for key in MEANS if key in columns}


def audit_by_group(
    before: Evaluation | None, after: Evaluation, about: GroupedPrompts, *, least: int
) -> Numbers:
    """What an evaluation is like by group, and how that changed.

    Args:
        before: the same prompts answered by what it is compared with; None compares groups alone.
        after: the evaluation.
        about: whom its prompts are about.
        least: prompts that a group needs to be judged, at least 2.

    Returns:
        `groups` (name -> `prompts`, `after`, with a comparison `before` and `change`, and `gap`:
        the mean of the group less that of the others' prompts, each change and gap with `mean` and
        a corrected `interval`), `all` (the same of all prompts together, with plain 95 %
        intervals), `left_out` (name -> prompts of smaller groups), `confidence` (of each interval)
        and `least`.

    Raises:
        ValueError: if the prompts are not the same in the same order.
    """
    if before is not None and list(before.prompts) != list(after.prompts):
        raise ValueError("before and after have other prompts; want the same in the same order")
    table = _PromptTable(before, after, about)
    sizes = {name: int((table.groups == name).sum()) for name in table.names}
    judged = [name for name in table.names if sizes[name] >= least]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(judged))
    everyone = np.ones(len(table.groups), dtype=bool)
    return {
        "least": least,
        "confidence": confidence,
        "all": table.entry(everyone, CONFIDENCE),
        "groups": {
            name: table.entry(table.groups == name, confidence) | table.gaps(name, confidence)
            for name in judged
        },
        "left_out": {name: size for name, size in sizes.items() if size < least},
    }


class _PromptTable:
    """Responses of a prompt averaged, so that a row is one prompt."""

    def __init__(self, before: Evaluation | None, after: Evaluation, about: GroupedPrompts) -> None:
        kept = [place for place, name in enumerate(about.groups) if name is not None]
        # A text that stands there for two groups is a prompt of each.
        keys = [(after.prompts[place], about.groups[place]) for place in kept]
        owners = prompt_groups([f"{name}\n{text}" for text, name in keys])
        _, first, self._index = np.unique(owners, return_index=True, return_inverse=True)
        self.groups = np.asarray([keys[place][1] for place in first], dtype=object)
        self.names = list(dict.fromkeys(self.groups.tolist()))
        self._sides = {
            side: self._averaged(one, about, kept)
            for side, one in (("before", before), ("after", after))
            if one is not None
        }

    def entry(self, rows: NDArray[np.bool_], confidence: float) -> Numbers:
        """Levels and changes of some prompts."""
        entry: Numbers = {"prompts": int(rows.sum())}
        for side, columns in self._sides.items():
            levels = {key: _mean(values[rows]) for key, values in columns.items() if key in MEANS}
            levels[names.PERPLEXITY] = float(_perplexity(columns, rows))
            entry[side] = {key: value for key, value in levels.items() if np.isfinite(value)}
        if "before" in self._sides:
            changes = {
                key: mean_interval(self._change(key)[rows], confidence)
                for key in self._sides["after"]
                if key in MEANS and key in self._sides["before"]
            }
            changes[names.PERPLEXITY] = self._perplexity_change(rows, confidence)
            entry["change"] = {
                key: _as_entry(one) for key, one in changes.items() if np.isfinite(one.change)
            }
        return entry

    def gaps(self, name: str, confidence: float) -> Numbers:
        """How far a group is from the others: after, and in its change."""
        own, kinds = self.groups == name, {"gap": self._sides["after"].__getitem__}
        if "before" in self._sides:
            kinds["change_gap"] = self._change
        entry: Numbers = {}
        for kind, column in kinds.items():
            keys = [key for key in MEANS if all(key in one for one in self._sides.values())]
            intervals = {key: gap_interval(*_parted(column(key), own), confidence) for key in keys}
            entry[kind] = {
                k: _as_entry(one) for k, one in intervals.items() if np.isfinite(one.change)
            }
        return entry

    def _change(self, key: str) -> FloatArray:
        return np.asarray(self._sides["after"][key] - self._sides["before"][key])

    def _averaged(
        self, evaluation: Evaluation, about: GroupedPrompts, kept: list[int]
    ) -> dict[str, FloatArray]:
        columns = audit_columns(evaluation, about)
        counts = np.bincount(self._index).astype(np.float64)
        averaged: dict[str, FloatArray] = {
            key: np.bincount(self._index, weights=values[kept]) / counts
            for key, values in columns.items()
        }
        for key in (names.REFERENCE_NLL, names.RESPONSE_TOKENS):
            if names.REFERENCE_NLL in evaluation.per_response:
                values = np.asarray(evaluation.per_response[key], dtype=np.float64)[kept]
                averaged[key] = np.bincount(self._index, weights=values).astype(np.float64)
        return averaged

    def _perplexity_change(self, rows: NDArray[np.bool_], confidence: float) -> Interval:
        sides = (self._sides["before"], self._sides["after"])
        left_out = [_perplexities_without_each(one, rows) for one in sides]
        change = _perplexity(sides[1], rows) - _perplexity(sides[0], rows)
        return jackknife_interval(change, left_out[1] - left_out[0], confidence)


def gap_by_group(values: Sequence[float], groups: Sequence[str | None], *, least: int) -> Numbers:
    """How far the mean of each group is from that of the others, with corrected intervals.

    Args:
        values: one number per text.
        groups: of each text; None for none, which counts among the others of every group.
        least: texts that a group needs to be judged.

    Returns:
        `groups` (name -> `texts`, `rate` and `gap` with `mean` and `interval`), `left_out` and
        `confidence`.
    """
    column, labels = np.asarray(values, dtype=np.float64), np.asarray(groups, dtype=object)
    sizes = {name: int((labels == name).sum()) for name in dict.fromkeys(groups) if name}
    judged = [name for name, size in sizes.items() if size >= least]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(judged))
    return {
        "confidence": confidence,
        "groups": {
            name: {
                "texts": sizes[name],
                "rate": _mean(column[labels == name]),
                "gap": _as_entry(gap_interval(*_parted(column, labels == name), confidence)),
            }
            for name in judged
        },
        "left_out": {name: size for name, size in sizes.items() if size < least},
    }


def mean_interval(values: Sequence[float] | FloatArray, confidence: float) -> Interval:
    """Student's t interval of a mean.

    Args:
        values: one per prompt; NaN are left out.
        confidence: in (0, 1).

    Returns:
        The mean and its interval; width 0 where all are alike, NaN for fewer than two.
    """
    column = np.asarray(values, dtype=np.float64)
    known = column[np.isfinite(column)]
    if len(known) < 2:
        return Interval(_mean(known), np.nan, np.nan)
    reach = stats.t.ppf((1 + confidence) / 2, len(known) - 1) * stats.sem(known)
    return Interval(float(known.mean()), *(float(known.mean() + side * reach) for side in (-1, 1)))


def gap_interval(own: FloatArray, others: FloatArray, confidence: float) -> Interval:
    """Interval of the difference of two means: Welch's, of fractions Newcombe's.

    Ten times yes or no have no spread to speak of where all are alike, so that of numbers that are
    all 0 or 1 the Wilson intervals of both fractions are combined (Newcombe 1998, method 10).

    Args:
        own: one number per prompt of a group; NaN are left out.
        others: the same of all other groups.
        confidence: in (0, 1).

    Returns:
        Mean of `own` less that of `others`, with its interval; NaN where either has fewer than
        two, width 0 where neither varies and some are neither 0 nor 1.
    """
    own, others = (values[np.isfinite(values)] for values in (own, others))
    gap = _mean(own) - _mean(others)
    if min(len(own), len(others)) < 2:
        return Interval(gap, np.nan, np.nan)
    if np.isin(own, (0, 1)).all() and np.isin(others, (0, 1)).all():
        (low, high), (other_low, other_high) = (_wilson(one, confidence) for one in (own, others))
        below = np.hypot(own.mean() - low, other_high - others.mean())
        above = np.hypot(high - own.mean(), others.mean() - other_low)
        return Interval(gap, gap - float(below), gap + float(above))
    parts = [float(values.var(ddof=1)) / len(values) for values in (own, others)]
    if not sum(parts):
        return Interval(gap, gap, gap)
    degrees = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (own, others), strict=True)
    )
    reach = float(stats.t.ppf((1 + confidence) / 2, degrees)) * float(np.sqrt(sum(parts)))
    return Interval(gap, gap - reach, gap + reach)


def _wilson(values: FloatArray, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a fraction."""
    test = stats.binomtest(int(values.sum()), len(values))
    interval = test.proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def _parted(values: FloatArray, own: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    return values[own], values[~own]


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _perplexity(columns: Mapping[str, FloatArray], rows: NDArray[np.bool_]) -> float:
    """exp(sum of -ref_logprobs / tokens) of some prompts; NaN where it is not measured."""
    if names.REFERENCE_NLL not in columns:
        return float("nan")
    nll, tokens = columns[names.REFERENCE_NLL][rows], columns[names.RESPONSE_TOKENS][rows]
    return float(np.exp(nll.sum() / tokens.sum())) if tokens.sum() else float("nan")


def _perplexities_without_each(
    columns: Mapping[str, FloatArray], rows: NDArray[np.bool_]
) -> FloatArray:
    if names.REFERENCE_NLL not in columns:
        return np.full(int(rows.sum()), np.nan)
    nll, tokens = columns[names.REFERENCE_NLL][rows], columns[names.RESPONSE_TOKENS][rows]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(np.exp((nll.sum() - nll) / (tokens.sum() - tokens)))


def _as_entry(interval: Interval) -> Numbers:
    return {"mean": interval.change, "interval": [interval.low, interval.high]}
