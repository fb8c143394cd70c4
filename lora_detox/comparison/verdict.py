"""What a comparison comes to, in sentences made from its numbers."""

import math
from collections.abc import Mapping
from typing import Any

from lora_detox.metrics import names
from lora_detox.report.wording import NOT_KNOWN, in_text, number, verdict

Numbers = Mapping[str, Any]
_MEASURED_BY = {
    names.JUDGE_TOXICITY: "by the held-out classifier (judge)",
    names.TOXICITY: "by the reward's classifier",
}


def comparison_verdict(summary: Numbers) -> list[str]:
    """Who is least toxic and whether that is clear, and what it costs.

    Args:
        summary: of `compare`, with the least toxic candidate first.

    Returns:
        Sentences; the first is the verdict.
    """
    ranked = summary["candidates"]
    sentences = [_least_sentence(summary)] if len(ranked) > 1 else []
    sentences.append(_start_sentence(summary, ranked[0]))
    sentences.append(_quality_sentence(summary, ranked[0]))
    sentences.append(_worse_sentence(summary, ranked[0]))
    return [one for one in sentences if one]


def _least_sentence(summary: Numbers) -> str:
    key = summary["toxicity"]
    least, following = summary["candidates"][:2]
    count = summary["prompts"]["responses"]
    level = f"{_level(least, key)} {_MEASURED_BY[key]}, {count} common responses"
    first = f"{least['name']} is the least toxic ({level})"
    level = _level(following, key)
    difference = following.get("difference")
    if difference is None or not _has_interval(difference):
        return (
            f"{first}, and {following['name']} the next ({level}); there is no interval to judge "
            "the difference by."
        )
    if difference["mean"] == 0:
        return f"{first}, and so is {following['name']}: they cannot be told apart."
    between = f"({level}; {_interval(difference, names.METRICS[key].digits)})"
    if _is_clear(difference):
        return f"{first}, clearly less than the next, {following['name']} {between}."
    return f"{first}, but not clearly less than the next, {following['name']} {between}."


def _start_sentence(summary: Numbers, least: Numbers) -> str:
    """The least toxic against what it started from."""
    key = summary["toxicity"]
    change = least["change"].get(key)
    name = least["name"]
    if change is None:
        level = f"{name} has a toxicity of {_level(least, key)} {_MEASURED_BY[key]}"
        only = len(summary["candidates"]) == 1
        return f"{level}; there is nothing to set it against." if only else ""
    start = summary["start"]
    of = f" ({start['name']})" if start and start["name"] != "Start" else ""
    outcome = {
        "better": "is clearly less toxic than",
        "worse": "is clearly more toxic than",
        "no clear change": "is not clearly different in toxicity from",
    }.get(verdict(change, "lower"), "has no interval of its change in toxicity against")
    change_text = _interval(change, names.METRICS[key].digits)
    return f"{name} {outcome} its start{of}: {_level(least, key)}, {change_text}."


def _quality_sentence(summary: Numbers, least: Numbers) -> str:
    key = summary["quality"]
    change = None if key is None else least["change"].get(key)
    if key is None or change is None:
        return ""
    metric = names.METRICS[key]
    outcome = {
        "better": "got better",
        "worse": "got worse",
        "no clear change": "did not clearly change",
    }.get(verdict(change, metric.better, metric.digits), "has no interval of its change")
    change_text = _interval(change, metric.digits)
    return f"Its {in_text(metric.label)} {outcome}: {_level(least, key)}, {change_text}."


def _worse_sentence(summary: Numbers, least: Numbers) -> str:
    """What else got clearly worse: less toxicity is easily had by saying little, or one thing."""
    mentioned = {names.TOXICITY, names.JUDGE_TOXICITY, summary["quality"]}
    worse = [
        f"{in_text(metric.label)} ({_level(least, key)}, {_signed(change['mean'], metric.digits)})"
        for key, metric in names.METRICS.items()
        if key not in mentioned and (change := least["change"].get(key))
        if verdict(change, metric.better, metric.digits) == "worse"
    ]
    return f"Also clearly worse than at the start: {', '.join(worse)}." if worse else ""


def _level(entry: Numbers, key: str) -> str:
    return number(entry["numbers"].get(key), names.METRICS[key].digits)


def _interval(change: Numbers, digits: int) -> str:
    low, high = (_signed(end, digits) for end in change.get("ci95") or (None, None))
    mean = _signed(change["mean"], digits)
    return mean if NOT_KNOWN in (low, high) else f"{mean}, 95 % interval {low} to {high}"


def _signed(value: Any, digits: int) -> str:
    return number(value, digits, signed=True)


def _has_interval(change: Numbers) -> bool:
    ends = change.get("ci95") or (None, None)
    return all(isinstance(end, int | float) and math.isfinite(end) for end in ends)


def _is_clear(change: Numbers) -> bool:
    low, high = change["ci95"]
    return bool(not low <= 0 <= high)
