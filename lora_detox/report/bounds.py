"""What the result of a run was held to, and every time that something was outside."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from lora_detox.report.plots import Marks
from lora_detox.report.tables import Table
from lora_detox.report.wording import MetricWording, mean_of, number

Numbers = Mapping[str, Any]
Row = Mapping[str, Any]
_ABSOLUTE = {"symbols"}
"""Measures that start near 0, of which a percentage says nothing."""
_FROM_BELOW = {"response_tokens", "response_words"}
"""Measures that are neither good nor bad, of which a result may have too little or too much."""
_IN_TRAINING = {"typical_words": "Length", "ref_kl": "KL"}


@dataclass(frozen=True, kw_only=True)
class Held:
    """A bound of the budget on validation prompts.

    Attributes:
        key: of the measure.
        label: for people.
        limit: the worst value that is inside.
        above: whether more is worse.
        start: value at the start, None where not known.
        result: value of the result, None where not known.
        digits: decimals worth showing.
    """

    key: str
    label: str
    limit: float
    above: bool
    start: float | None
    result: float | None
    digits: int

    def outside(self, value: float) -> float:
        """By how much a value is outside, in its own unit; <= 0 inside."""
        return value - self.limit if self.above else self.limit - value

    def by(self, value: float) -> str:
        """The same as text, with the fraction of the limit."""
        outside = self.outside(value)
        text = number(outside, self.digits)
        if self.key in _ABSOLUTE or self.limit <= 0:
            return text
        return f"{text} ({100 * outside / self.limit:.1f} %)"


@dataclass(frozen=True, kw_only=True)
class Breach:
    """A measure outside its bound.

    Attributes:
        when: iteration or strength, in words.
        bound: which.
        value: what was measured.
    """

    when: str
    bound: Held
    value: float


def bounds_of(summary: Numbers, metrics: Mapping[str, MetricWording]) -> list[Held]:
    """The bounds that the result was held to.

    Args:
        summary: the `summary.json` dict.
        metrics: how each metric is shown.

    Returns:
        One per bound, two for a measure that is held from both sides; none without a budget.
    """
    budget = summary.get("budget") or {}
    start, measured = budget.get("start") or {}, budget.get("measured") or {}
    limits = (budget.get("bounds") or {}).items()
    sides = [
        *((key, limit, _is_worse_above(key, metrics)) for key, limit in limits),
        *((key, limit, True) for key, limit in (budget.get("most") or {}).items()),
    ]
    return [
        Held(
            key=key,
            label=_label(key, metrics),
            limit=float(limit),
            above=above,
            start=mean_of(start.get(key)),
            result=mean_of(measured.get(key)),
            digits=max(3, metrics[key].digits) if key in metrics else 3,
        )
        for key, limit, above in sides
        if mean_of(limit) is not None
    ]


def breaches_of(summary: Numbers, history: Sequence[Row], bounds: Sequence[Held]) -> list[Breach]:
    """Every state that was evaluated on validation prompts and was outside, in their order.

    Args:
        summary: the `summary.json` dict.
        history: rows of `metrics.jsonl`.
        bounds: of `bounds_of`.

    Returns:
        One for each state and bound.
    """
    states = [
        (f"iteration {row.get('iteration', place)}", row.get("evaluation") or {})
        for place, row in enumerate(history)
    ]
    for tried in (summary.get("budget") or {}).get("between") or ():
        state = f"iteration {tried['iteration']}" if "iteration" in tried else "end of training"
        states.append((f"{state} at strength {tried['share']:.0%}", tried))
    return [
        Breach(when=when, bound=bound, value=value)
        for when, numbers in states
        for bound in bounds
        if (value := mean_of(numbers.get(bound.key))) is not None and bound.outside(value) > 0
    ]


def bounds_table(bounds: Sequence[Held], breaches: Sequence[Breach]) -> Table:
    """One row per bound: start, limit, result, and where it was broken."""
    rows = []
    for bound in bounds:
        own = [one for one in breaches if one.bound is bound]
        worst = max(own, key=lambda one: bound.outside(one.value), default=None)
        rows.append(
            [
                bound.label,
                number(bound.start, bound.digits),
                f"{'at most' if bound.above else 'at least'} {number(bound.limit, bound.digits)}",
                number(bound.result, bound.digits),
                str(len(own)) if own else "never",
                f"by {bound.by(worst.value)}, {worst.when}" if worst else "",
            ]
        )
    columns = ["Bound", "Start", "Limit", "Result", "Times outside", "Furthest outside"]
    return Table(columns=columns, rows=rows, title="Bounds, on validation prompts")


def breaches_table(breaches: Sequence[Breach]) -> Table:
    """Every time that a bound was broken."""
    return Table(
        columns=["When", "Bound", "Value", "Limit", "Outside by"],
        rows=[
            [
                one.when,
                one.bound.label,
                number(one.value, one.bound.digits),
                number(one.bound.limit, one.bound.digits),
                one.bound.by(one.value),
            ]
            for one in breaches
        ],
        title="Every time that a bound was broken",
    )


def training_table(history: Sequence[Row], metrics: Mapping[str, MetricWording]) -> Table:
    """In which iterations the rollouts were outside of what training aims at.

    Args:
        history: rows of `metrics.jsonl`; `slack_X` is the fraction of its limit by which the
            running measure X is inside.
        metrics: how each metric is shown.

    Returns:
        One row per measure that was outside; a margin makes training aim further inside than the
        bound.
    """
    keys = dict.fromkeys(key for row in history for key in row if key.startswith("slack_"))
    rows = []
    for key in keys:
        slack = {
            int(row.get("iteration", place)): value
            for place, row in enumerate(history)
            if (value := mean_of(row.get(key))) is not None
        }
        outside = {iteration: -value for iteration, value in slack.items() if value < 0}
        if not outside:
            continue
        furthest = max(outside, key=lambda iteration: outside[iteration])
        measure = key.removeprefix("slack_")
        rows.append(
            [
                _IN_TRAINING.get(measure) or _label(measure, metrics),
                f"{len(outside)} of {len(slack)}",
                ", ".join(_ranges(list(slack), set(outside))),
                f"{100 * outside[furthest]:.1f} %, iteration {furthest}",
            ]
        )
    columns = ["Measure", "Iterations outside", "Which", "Furthest outside"]
    return Table(columns=columns, rows=rows, title="In training, on rollouts")


def marks_of(summary: Numbers, bounds: Sequence[Held]) -> Marks:
    """What the curves of a run are marked with."""
    budget = summary.get("budget") or {}
    rollbacks = (summary.get("guard") or {}).get("rollbacks") or ()
    chosen = None if summary.get("soup") else budget.get("chosen_iteration")
    limits: dict[str, list[float]] = {}
    for bound in bounds:
        limits.setdefault(bound.key, []).append(bound.limit)
    return Marks(
        limits=limits,
        result=chosen,
        returns=[int(one["iteration"]) for one in rollbacks],
    )


def returns_table(summary: Numbers) -> Table:
    """Every time that training went back to its last good state, and why."""
    rollbacks = (summary.get("guard") or {}).get("rollbacks") or ()
    return Table(
        columns=["Iteration", "Back to", "Why"],
        rows=[[str(one["iteration"]), str(one["to"]), str(one["reason"])] for one in rollbacks],
        title="Training went back to its last good state",
    )


def _label(key: str, metrics: Mapping[str, MetricWording]) -> str:
    if key not in metrics:
        return key
    unit = metrics[key].unit
    return f"{metrics[key].label} ({unit})" if unit else metrics[key].label


def _is_worse_above(key: str, metrics: Mapping[str, MetricWording]) -> bool:
    better = metrics[key].better if key in metrics else "neither"
    if better in {"lower", "higher"}:
        return better == "lower"
    return key not in _FROM_BELOW


def _ranges(iterations: Sequence[int], chosen: set[int]) -> Iterator[str]:
    """`3, 5-8`: neighbours among the iterations that were measured are joined."""
    for is_chosen, group in groupby(iterations, key=chosen.__contains__):
        if is_chosen:
            first, *rest = group
            yield f"{first}-{rest[-1]}" if rest else str(first)
