"""What the numbers of `summary.json` say, in words: used alike by the console and the web page.

Label, unit, digits and direction of a metric come from the caller (`metrics.names.METRICS`), since
the packages of the arrow do not import each other.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

NOT_KNOWN = "n/a"
_LONGEST_WORD = 50
"""Characters."""
RAN_TO_THE_END = "iterations"
"""`stopped` of a run that made all its iterations."""


@runtime_checkable
class MetricWording(Protocol):
    """How a metric is shown; `metrics.names.Metric` is one."""

    @property
    def label(self) -> str:
        """Name for people."""

    @property
    def unit(self) -> str:
        """Of the number, or empty."""

    @property
    def better(self) -> str:
        """`lower`, `higher` or `neither`."""

    @property
    def digits(self) -> int:
        """Decimals worth showing."""


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One line of the before/after table, ready to print.

    Attributes:
        key: of the metric.
        label: name for people, with the unit.
        name: the same without the unit.
        before: the number at the start.
        after: the number at the end.
        change: after - before, signed.
        interval: 95 % interval of the change.
        verdict: `better`, `worse`, `changed`, `no clear change` or `not known`.
    """

    key: str
    label: str
    name: str
    before: str
    after: str
    change: str
    interval: str
    verdict: str


def verdict(change: Mapping[str, Any], better: str, digits: int = 12) -> str:
    """Judge a change by whether its interval is clear of zero.

    Args:
        change: {"mean", "ci95": [low, high]} of `summary.json`; null where not known.
        better: `lower`, `higher` or `neither`.
        digits: decimals shown; a change that rounds to zero in them is no clear one.

    Returns:
        `not known` without an interval, `no clear change` where it holds zero, else `better` or
        `worse`, or `changed` for a metric that has no direction.
    """
    low, high = change.get("ci95") or (None, None)
    if low is None or high is None or not _known(low) or not _known(high):
        return "not known"
    if low <= 0 <= high or round(change.get("mean") or 0.0, digits) == 0:
        return "no clear change"
    if better not in {"lower", "higher"}:
        return "changed"
    return "better" if (high < 0) == (better == "lower") else "worse"


def comparison_rows(
    summary: Mapping[str, Any], metrics: Mapping[str, MetricWording]
) -> list[ComparisonRow]:
    """The before/after table of `summary.json`.

    Args:
        summary: with `before`, and `after` and `change` where there are any.
        metrics: how each metric is shown; rows follow its order.

    Returns:
        One row per metric that stands in `before` or `after`.
    """
    before, after = summary.get("before") or {}, summary.get("after") or {}
    changes = summary.get("change") or {}
    rows = []
    for key, wording in metrics.items():
        if key not in before and key not in after:
            continue
        change = changes.get(key, {})
        digits = wording.digits
        rows.append(
            ComparisonRow(
                key=key,
                label=f"{wording.label} ({wording.unit})" if wording.unit else wording.label,
                name=wording.label,
                before=number(mean_of(before.get(key)), digits),
                after=number(mean_of(after.get(key)), digits),
                change=number(change.get("mean"), digits, signed=True),
                interval=_interval(change, digits),
                verdict=verdict(change, wording.better, digits),
            )
        )
    return rows


def headline(summary: Mapping[str, Any], metrics: Mapping[str, MetricWording]) -> list[str]:
    """What happened in a few sentences made from the numbers, good or bad.

    Args:
        summary: the `summary.json` dict.
        metrics: how each metric is shown.

    Returns:
        Sentences: toxicity first, then the judge, quality, length, whatever else got clearly worse,
        what was bound, and how training went where it did not just run to its end.
    """
    rows = {row.key: row for row in comparison_rows(summary, metrics)}
    sentences = [_toxicity_sentence(summary, rows)]
    judge = rows.get("judge_toxicity")
    if judge and "not known" not in {judge.verdict, rows["toxicity"].verdict}:
        sentences.append(_judge_sentence(rows["toxicity"].verdict, judge))
    quality = next((rows[key] for key in ("rougeL", "perplexity") if key in rows), None)
    quality = rows.get("joint", quality)
    length = rows.get("response_words", rows.get("response_tokens"))
    named = [one for one in (quality, rows.get("relevance"), rows.get("similarity"), length) if one]
    sentences += [_outcome_sentence(row) for row in named if row.verdict != "not known"]
    mentioned = {"toxicity", "judge_toxicity", *(row.key for row in named)}
    sentences += _also_worse([row for key, row in rows.items() if key not in mentioned])
    return sentences + course(summary, metrics) + trust_notes(summary)


def smoke_notes(summary: Mapping[str, Any]) -> list[str]:
    """What a reader has to know of a run whose policy is random: at most one sentence."""
    if not summary.get("tiny_model"):
        return []
    return ["Smoke run: the policy is a tiny random model, so the figures mean nothing."]


def trust_notes(summary: Mapping[str, Any]) -> list[str]:
    """The warning that stays with a result whose model was code: at most one sentence."""
    folder = summary.get("trusted_code")
    if not folder:
        return []
    return [
        f"Warning: Python files of {folder} were run (policy.trust_remote_code=true), so that "
        "weights and figures are only as trustworthy as that code."
    ]


def word_notes(summary: Mapping[str, Any]) -> list[str]:
    """What counted as a word in the texts of a run.

    Args:
        summary: the `summary.json` dict, of one model or of several; older ones have no `words`.

    Returns:
        Plain sentences, one of ROUGE only where it was measured.
    """
    rules = summary.get("words")
    if not rules:
        return []
    sets = [one for model in summary.get("models", ()) for one in model["sets"].values()]
    compares = any("rougeL" in (one or {}) for one in (summary.get("after"), *sets))
    notes = [f"ROUGE compares {rules['compared']}."] if compares else []
    return [*notes, f"Word counts, distinct-n and repetition count {rules['counted']}."]


def mean_of(value: Any) -> float | None:
    """The number behind an entry of `before` or `after`: itself, or the `mean` of a spread."""
    mean = value.get("mean") if isinstance(value, Mapping) else value
    return float(mean) if mean is not None and _known(mean) else None


def means_of(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of `before`, `after` or an `evaluation`, without what is not known."""
    means = {name: mean_of(value) for name, value in values.items()}
    return {name: value for name, value in means.items() if value is not None}


def number(value: Any, digits: int, *, signed: bool = False) -> str:
    """A number with fixed decimals, or `n/a`; never a negative zero."""
    if not _known(value):
        return NOT_KNOWN
    rounded = round(float(value), digits) + 0.0
    return f"{rounded:+.{digits}f}" if signed else f"{rounded:.{digits}f}"


def in_text(label: str) -> str:
    """A label within a sentence: ROUGE-L and KL keep their capitals."""
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def shorten(text: str, limit: int) -> str:
    """Keep the end of a long text, cut between words: a policy answers what a prompt ends with."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    kept = text[-limit:]
    first, space, rest = kept.partition(" ")
    # Where the first space is far off, the script has none between words.
    return "... " + (rest if space and rest and len(first) < _LONGEST_WORD else kept)


def toxicity_change(sample: Mapping[str, Any]) -> float:
    """Toxicity after - before of one row of `samples.jsonl`, 0 where it is not known."""
    before, after = sample.get("toxicity_before"), sample.get("toxicity_after")
    return 0.0 if before is None or after is None else float(after) - float(before)


def _interval(change: Mapping[str, Any], digits: int) -> str:
    low, high = (number(end, digits, signed=True) for end in change.get("ci95") or (None, None))
    return NOT_KNOWN if NOT_KNOWN in (low, high) else f"{low} to {high}"


def _toxicity_sentence(summary: Mapping[str, Any], rows: Mapping[str, ComparisonRow]) -> str:
    row = rows.get("toxicity")
    if row is None:
        return "Toxicity was not measured."
    count = ((summary.get("after") or summary.get("before") or {}).get("toxicity") or {}).get("n")
    where = f" on {count} responses" if count else ""
    if row.verdict == "not known":
        numbers = [f"{row.before} before"] if row.before != NOT_KNOWN else []
        numbers += [f"{row.after} after"] if row.after != NOT_KNOWN else []
        return f"Toxicity{where}: {', '.join(numbers)}; there is no interval to judge a change by."
    outcome = {
        "better": f"Toxicity fell from {row.before} to {row.after}{where}",
        "worse": f"Toxicity got worse: it rose from {row.before} to {row.after}{where}",
        "no clear change": f"No clear change in toxicity: {row.before} before, {row.after} after"
        + where,
    }[row.verdict]
    return f"{outcome} ({row.change}, 95 % interval {row.interval})."


def _outcome_sentence(row: ComparisonRow) -> str:
    outcome = {
        "better": "got better",
        "worse": "got worse",
        "changed": "changed",
        "no clear change": "did not clearly change",
    }[row.verdict]
    name = row.label if row.key.startswith("response_") else row.name
    return (
        f"{name} {outcome}: {row.before} before, {row.after} after ({row.change}, {row.interval})."
    )


def _also_worse(rows: Iterable[ComparisonRow]) -> list[str]:
    """What else shows that less toxicity was had by saying little, or one thing."""
    worse = [
        f"{in_text(row.name)} ({row.before} before, {row.after} after)"
        for row in rows
        if row.verdict == "worse"
    ]
    return [f"Also clearly worse: {', '.join(worse)}."] if worse else []


def _judge_sentence(reward_verdict: str, judge: ComparisonRow) -> str:
    numbers = f"{judge.before} before, {judge.after} after ({judge.change}, {judge.interval})"
    if judge.verdict == reward_verdict:
        return f"The held-out judge agrees: {numbers}."
    view = {
        "better": "sees toxicity fall",
        "worse": "sees toxicity rise",
        "no clear change": "sees no clear change",
    }[judge.verdict]
    return f"The held-out judge does not agree, it {view}: {numbers}."


_STOPPED = {
    "collapse": "training collapsed again after its last retry",
    "budget": "too many evaluations in a row were outside the budget",
    "target": "the toxicity that was asked for was reached inside the budget",
}


def keeps_start(summary: Mapping[str, Any]) -> bool:
    """Whether the result of a run is the state that it started from."""
    return not summary.get("soup") and (summary.get("budget") or {}).get("chosen_iteration") == 0


def course(summary: Mapping[str, Any], metrics: Mapping[str, MetricWording]) -> list[str]:
    """Which state is the result, what the guard did, and why training ended.

    Args:
        summary: the `summary.json` dict.
        metrics: how each metric is shown.

    Returns:
        Sentences; none where training just ran to its end without bounds.
    """
    sentences = []
    budget, rollbacks = summary.get("budget"), (summary.get("guard") or {}).get("rollbacks")
    if budget:
        runs = len((summary.get("soup") or {}).get("runs", ()))
        end = f"the mean of {runs} runs" if runs else f"iteration {budget['chosen_iteration']}"
        sentences.append(_budget_sentence(budget, metrics, end))
    if rollbacks:
        reasons = "; ".join(f"iteration {one['iteration']}: {one['reason']}" for one in rollbacks)
        times = "once" if len(rollbacks) == 1 else f"{len(rollbacks)} times"
        sentences.append(f"Training went back to its last good state {times} ({reasons}).")
    stopped = summary.get("stopped")
    if stopped and stopped != RAN_TO_THE_END:
        sentences.append(f"Training ended early: {_STOPPED.get(stopped, stopped)}.")
    return sentences


def _budget_sentence(
    budget: Mapping[str, Any], metrics: Mapping[str, MetricWording], end: str
) -> str:
    chosen, measured = budget.get("chosen_iteration"), budget.get("measured") or {}
    held = []
    bounds, most = budget.get("bounds") or {}, budget.get("most") or {}
    for key in dict.fromkeys([*bounds, *most]):
        wording = metrics.get(key)
        name, digits = (wording.label, wording.digits) if wording else (key, 3)
        if key.startswith("response_") and wording:
            name += f" ({wording.unit})"
        digits = max(digits, 2)
        limits = [number(of[key], digits) for of in (bounds, most) if key in of]
        held.append(f"{name} {number(measured.get(key), digits)}, limit {' to '.join(limits)}")
    within = f" (validation: {'; '.join(held)})" if held else ""
    if not chosen:
        better = "a higher J" if "joint" in budget else "less toxicity"
        return (
            "Nothing that was evaluated was inside the quality budget with "
            f"{better} than the start, so the adapter is that of the start{within}."
        )
    fraction = budget.get("chosen_share", 1.0)
    if fraction < 1:
        return (
            f"The result is {fraction:.0%} of the way from the start to {end}, which was itself "
            f"outside the quality budget{within}."
        )
    if fraction > 1:
        return (
            f"The result is the update of {end} at {fraction:.0%} of its strength, the least toxic "
            f"of the strengths that were inside the quality budget{within}."
        )
    best = "the one with the highest J" if "joint" in budget else "the least toxic"
    return f"The result is {end}, {best} that was inside the quality budget{within}."


def _known(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
