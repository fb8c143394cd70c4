"""What a fairness audit comes to, in a sentence: which groups, and by how much."""

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

from lora_detox.metrics import names
from lora_detox.report.wording import number

_NAMED = 3
"""Most groups that a part of a sentence names."""
Numbers = Mapping[str, Any]
_CHANGES = (
    (names.MENTION, -1, "talked about less after training"),
    (names.TOXICITY, 1, "answered with more toxicity than before (by the reward)"),
    (names.JUDGE_TOXICITY, 1, "answered with more toxicity than before (by the judge)"),
    (names.REFUSED, 1, "refused more often"),
    (names.EMPTY, 1, "answered with nothing more often"),
    (names.SHORT, 1, "answered shortly more often"),
)
"""Measure, the direction that harms, and what is said of a group whose change is clear of zero."""
_GAPS = (
    (names.TOXICITY, 1, "called more toxic by the reward"),
    (names.JUDGE_TOXICITY, 1, "called more toxic by the judge"),
)
"""The same of a group against the others."""


def set_verdict(entry: Numbers) -> str:
    """One sentence on a set of prompts about groups.

    Args:
        entry: from `audit_by_group`, with `data`.

    Returns:
        Which groups are talked about less, or called toxic more, and by how much; else that
        nothing is clear of zero, and what would have been; else that there are too few prompts.
    """
    groups, data = entry["groups"], entry["data"]
    if not groups:
        largest = max(entry["left_out"].values(), default=0)
        return (
            f"Fairness on {data}: too few prompts to tell, as no group has {entry['least']} "
            f"(the largest has {largest})."
        )
    sizes = [group["prompts"] for group in groups.values()]
    few = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    where = f"Fairness on {data} ({_counted(len(groups), 'group')} of {few} prompts)"
    harms = [
        f"{text}: {_listed(clear)}"
        for kind, rules in (("change", _CHANGES), ("gap", _gap_rules(groups)))
        for key, direction, text in rules
        if (clear := _clear(groups, kind, key, direction))
    ]
    silent = _silence(entry)
    if harms:
        return f"{where}: {'; '.join(harms)}.{silent}"
    return f"{where}: no group is clear of zero in the direction that harms{_seen(groups)}.{silent}"


_NO_ANSWER = " No answer speaks of its group, so that no mention can be lost."
_NO_MENTIONS = (
    " Mentions were not measured: no prompt has a word by which its group is known, which a column "
    "`mentions` can name."
)


def scorer_verdict(measured: Mapping[str, Numbers]) -> str:
    """One sentence on whom the scorers wrong.

    Args:
        measured: role -> numbers of `scorer_fairness`.

    Returns:
        Whose civil texts which scorer calls toxic more often than those about others, and by how
        much; else that it is not clear of anybody, or cannot be told.
    """
    parts, gaps, least = [], [], 0
    for role, numbers in measured.items():
        groups, least = numbers.get("groups") or {}, numbers["least"]
        own = {name: group["gap"] for name, group in groups.items()}
        clear = {name: gap for name, gap in own.items() if (gap["interval"][0] or 0) > 0}
        if clear:
            ordered = dict(sorted(clear.items(), key=lambda item: -item[1]["mean"]))
            parts.append(f"the {role} calls civil texts toxic more often about {_listed(ordered)}")
        gaps += [(gap["mean"], name, role) for name, gap in own.items()]
    if parts:
        return f"Scorers: {'; '.join(parts)}, each against the texts about others."
    if not gaps:
        return f"Scorers: too few civil texts to tell, as no two identities have {least} each."
    largest, name, role = max(gaps)
    where = f", {name} by the {role}" if largest > 0 else ""
    return (
        f"Scorers: by {' and '.join(measured)} no group's civil texts are called toxic clearly "
        f"more often than the others' (largest gap {number(largest, 3, signed=True)}{where})."
    )


def _gap_rules(groups: Numbers) -> tuple[tuple[str, int, str], ...]:
    """Gaps say something where there are others."""
    return _GAPS if len(groups) > 1 else ()


def _silence(entry: Numbers) -> str:
    """Why nothing can be said of mentions; empty where something can."""
    sides = [entry["all"][side] for side in ("before", "after") if side in entry["all"]]
    levels = [side.get(names.MENTION) for side in sides]
    if None in levels:
        return _NO_MENTIONS
    return "" if any(levels) else _NO_ANSWER


def _clear(groups: Numbers, kind: str, key: str, direction: int) -> dict[str, Numbers]:
    """Groups whose corrected interval is clear of zero in a direction, the largest first."""
    clear = {}
    for name, group in groups.items():
        one = (group.get(kind) or {}).get(key)
        if one is None:
            continue
        low, high = one["interval"]
        near = low if direction > 0 else high
        if near is not None and direction * near > 0:
            clear[name] = one
    return dict(sorted(clear.items(), key=lambda item: -direction * item[1]["mean"]))


def _listed(clear: Mapping[str, Numbers]) -> str:
    shown = [
        f"{name} ({number(one['mean'], 2, signed=True)}, "
        f"{number(one['interval'][0], 2, signed=True)} to "
        f"{number(one['interval'][1], 2, signed=True)})"
        for name, one in list(clear.items())[:_NAMED]
    ]
    more = len(clear) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _seen(groups: Numbers) -> str:
    """How large a change would have been clear: half the median width of the intervals."""
    parts = []
    for key, text in ((names.MENTION, "mentions"), (names.TOXICITY, "toxicity")):
        for kind in ("change", "gap"):
            widths = [
                (one["interval"][1] - one["interval"][0]) / 2
                for group in groups.values()
                if (one := (group.get(kind) or {}).get(key)) and None not in one["interval"]
            ]
            # A group without any spread says nothing of what could be told.
            widths = [width for width in widths if math.isfinite(width) and width > 0]
            if widths:
                parts.append(f"{number(median(widths), 2)} in {text}")
                break
    return f"; less than about {' or '.join(parts)} cannot be told from chance here" * bool(parts)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
