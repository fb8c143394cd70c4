"""The fairness audit for readers: its sentences, and tables by group."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType

from lora_detox.report.tables import Table, rich_table
from lora_detox.report.wording import number
from lora_detox.visible import readable

Numbers = Mapping[str, Any]
_MEASURES = (
    ("toxicity", "toxicity"),
    ("judge_toxicity", "toxicity (judge)"),
    ("mention_retention", "still about them"),
    ("refused", "refused"),
    ("empty", "empty"),
    ("short", "short"),
    ("perplexity", "perplexity"),
)
"""Keys of `metrics.names`, and the heads of their columns."""
_HARMS = {
    "toxicity": 1,
    "judge_toxicity": 1,
    "mention_retention": -1,
    "refused": 1,
    "empty": 1,
    "short": 1,
}
"""Measures of an answer to a group, and the direction of a change that harms it."""
_SHOWN = 4
"""Groups in the terminal."""
NOTE = (
    "By group: the mean after training, then the change with its interval; Student's t, corrected "
    "for the number of groups (Bonferroni). Still about them: responses with a word by which the "
    "prompt's group is known, of prompts that have one. Short: three words or fewer. Refusals are "
    "told by English phrases."
)


def fairness_sentences(summary: Numbers) -> list[str]:
    """What the audit came to.

    Args:
        summary: the `summary.json` dict of any stage.

    Returns:
        One sentence for each audited set and model, and one for the scorers; none without an audit.
    """
    fairness = summary.get("fairness") or {}
    verdicts = [fairness["verdict"]] if "verdict" in fairness else []
    for model in fairness.get("models", ()):
        name = model["model"]
        if model["strength"] is not None:
            name += f" at strength {model['strength']:g}"
        verdicts.append(f"{name}: {model['verdict']}")
    return verdicts + ([fairness["scorer_verdict"]] if "scorer_verdict" in fairness else [])


def fairness_tables(summary: Numbers) -> list[Table]:
    """The numbers behind the sentences.

    Args:
        summary: the `summary.json` dict of any stage.

    Returns:
        A table by group for each audited set of each model, and one of the scorers.
    """
    fairness = summary.get("fairness") or {}
    audited = [("", one) for one in [fairness] if "sets" in one]
    audited += [(f"{one['model']}, ", one) for one in fairness.get("models", ())]
    tables = [
        _set_table(f"{name}{entry['data']}", entry)
        for name, model in audited
        for entry in model["sets"].values()
        if entry["groups"]
    ]
    return tables + _scorer_tables(fairness.get("scorers") or {})


def harmed_groups(entry: Numbers) -> list[str]:
    """Groups that are worse off after training.

    Args:
        entry: a set of the audit.

    Returns:
        Names of those with a change that harms whose corrected interval is clear of zero.
    """
    return [
        name
        for name, group in entry["groups"].items()
        if any(
            _is_clear(change, _HARMS[key])
            for key, change in (group.get("change") or {}).items()
            if key in _HARMS
        )
    ]


def _is_clear(change: Numbers, direction: int) -> bool:
    low, high = change["interval"]
    near = low if direction > 0 else high
    return near is not None and direction * near > 0


def fairness_lines(summary: Numbers, console: Console) -> list[RenderableType]:
    """What the terminal shows of the audit of a run.

    Args:
        summary: the `summary.json` dict of a run.
        console: where it will be printed.

    Returns:
        Lines, and a table of the four groups that moved most, with a star where an interval is
        clear of zero; nothing without an audit.
    """
    lines: list[RenderableType] = [readable(one, console) for one in fairness_sentences(summary)]
    for entry in (summary.get("fairness") or {}).get("sets", {}).values():
        if entry["groups"] and "change" in entry["all"]:
            lines.append(rich_table(_short_table(entry), console))
    return lines


def _short_table(entry: Numbers) -> Table:
    keys = [(key, head) for key, head in _MEASURES[:3] if key in entry["all"]["change"]]

    def moved(name: str) -> float:
        changes = entry["groups"][name]["change"]
        return max(abs(float(changes[key]["mean"])) for key, _ in keys if key in changes)

    names = sorted(entry["groups"], key=moved, reverse=True)[:_SHOWN]
    rows = {"all": entry["all"], **{name: entry["groups"][name] for name in names}}
    return Table(
        columns=["change by group", "prompts", *(head for _, head in keys)],
        rows=[
            [name, str(one["prompts"]), *(_marked(one["change"].get(key)) for key, _ in keys)]
            for name, one in rows.items()
        ],
    )


def _marked(change: Numbers | None) -> str:
    """A change, with a star where its interval is clear of zero."""
    if change is None:
        return ""
    low, high = change["interval"]
    known = low is not None and high is not None
    star = "*" if known and (low > 0 or high < 0) else ""
    return number(change["mean"], 2, signed=True) + star


def _set_table(name: str, entry: Numbers) -> Table:
    rows = {"all": entry["all"], **entry["groups"]}
    keys = [(key, head) for key, head in _MEASURES if key in entry["all"]["after"]]
    heads = [one for _, head in keys for one in (head, "change")]
    return Table(
        title=f"By group: {name}",
        columns=["group", "prompts", *heads],
        rows=[
            [group, str(one["prompts"]), *_cells(one, [key for key, _ in keys])]
            for group, one in rows.items()
        ],
    )


def _cells(entry: Numbers, keys: Sequence[str]) -> list[str]:
    cells = []
    for key in keys:
        cells += [number(entry["after"].get(key), 2)]
        cells += [_change((entry.get("change") or {}).get(key))]
    return cells


def _change(change: Numbers | None) -> str:
    if change is None:
        return ""
    low, high = (number(end, 2, signed=True) for end in change["interval"])
    return f"{number(change['mean'], 2, signed=True)} [{low}, {high}]"


def _scorer_tables(scorers: Numbers) -> list[Table]:
    judged = {role: one for role, one in scorers.items() if one.get("groups")}
    if not judged:
        return []
    groups = list(dict.fromkeys(name for one in judged.values() for name in one["groups"]))
    rows = []
    for name in groups:
        own = [one["groups"].get(name) for one in judged.values()]
        texts = next((str(one["texts"]) for one in own if one), "")
        cells = [cell for one in own for cell in _rate_cells(one)]
        rows.append([name, texts, *cells])
    rows.sort(key=lambda row: row[2], reverse=True)
    heads = [head for role in judged for head in (f"called toxic by the {role}", "against others")]
    data = next(iter(judged.values()))["data"]
    return [
        Table(
            title=f"Civil texts that the scorers call toxic: {data}",
            columns=["group", "texts", *heads],
            rows=rows,
        )
    ]


def _rate_cells(group: Numbers | None) -> list[str]:
    if group is None:
        return ["", ""]
    return [number(group["rate"], 3), _change(group["gap"])]
