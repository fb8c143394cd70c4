"""Tables of a comparison: candidates by toxicity, every measure, seeds, parameters, settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lora_detox.report.tables import Table
from lora_detox.report.wording import NOT_KNOWN, MetricWording, in_text, number, verdict
from lora_detox.visible import readable

_SHORT = {"judge_toxicity": "toxicity (judge)", "rougeL": "ROUGE-L"}
_STYLES = {"better": "green", "worse": "red", "changed": "yellow"}
_WIDE = 100
"""Characters of a terminal."""

Numbers = Mapping[str, Any]
Metrics = Mapping[str, MetricWording]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Text of a cell.

    Attributes:
        text: in the first line.
        small: in a second, smaller one.
        verdict: `better`, `worse`, ... which colours it; may be empty.
    """

    text: str
    small: str = ""
    verdict: str = ""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A table whose cells have colours.

    Attributes:
        columns: headings.
        rows: one list of cells per row.
        title: what it shows.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str

    @classmethod
    def of(cls, table: Table) -> "Cells":
        """A table without colours."""
        rows = [[Cell(text=text) for text in row] for row in table.rows]
        return cls(columns=table.columns, rows=rows, title=table.title)


def ranking_cells(comparison: Numbers, metrics: Metrics) -> Cells:
    """One row per candidate, the least toxic first.

    Args:
        comparison: the numbers.
        metrics: how each measure is shown.

    Returns:
        Toxicity and quality with their changes, and the difference to the least toxic.
    """
    toxicity, quality = comparison["toxicity"], comparison["quality"]
    several = len(comparison["candidates"]) > 1
    tail = [quality] if quality is not None else []
    tail += [key for key in ("response_tokens",) if _all_have(comparison, key)]
    columns = ["Candidate", *_spread_heads([toxicity], metrics)]
    columns += ["Against the least toxic", "Least toxic in"] if several else []
    for key in tail:
        columns += [_label(metrics[key]), f"Change of {in_text(metrics[key].label)}"]
    columns += ["On the front"] if several and quality is not None else []
    rows = []
    for place, entry in enumerate(comparison["candidates"], 1):
        lead = f"{place}. {entry['name']}" if several else entry["name"]
        row = [Cell(text=lead), *_level_and_change(entry, toxicity, metrics[toxicity])]
        if several:
            fraction = entry.get("least_in_draws")
            drawn = NOT_KNOWN if fraction is None else f"{fraction:.0%} of draws"
            difference = _change(entry.get("difference"), metrics[toxicity], plain=True)
            row += [Cell(text="") if place == 1 else difference, Cell(text=drawn)]
        for key in tail:
            row += _level_and_change(entry, key, metrics[key])
        if several and quality is not None:
            row.append(Cell(text="yes" if entry.get("front") else "no"))
        rows.append(row)
    return Cells(columns=columns, rows=rows, title="Candidates, the least toxic first")


def short_table(comparison: Numbers, metrics: Metrics, console: Console) -> RichTable:
    """The same for a terminal: toxicity, quality and their changes, each with its interval below.

    Args:
        comparison: the numbers.
        metrics: how each measure is shown.
        console: where it will be printed; a narrow one is not told the differences to the first.

    Returns:
        One row per candidate, whose name may take several lines.
    """
    toxicity: str = comparison["toxicity"]
    quality: str | None = comparison["quality"]
    several = len(comparison["candidates"]) > 1
    against = several and console.width >= _WIDE
    heads = [_SHORT.get(toxicity, toxicity), "change", *(["to the first"] if against else [])]
    if quality is not None:
        heads += [_SHORT.get(quality, quality), "change"]
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", min_width=max(map(len, head.split())))
    for place, entry in enumerate(comparison["candidates"], 1):
        cells = _level_and_change(entry, toxicity, metrics[toxicity])
        if against:
            cells.append(_change(entry.get("difference"), metrics[toxicity], plain=True))
        if quality is not None:
            cells += _level_and_change(entry, quality, metrics[quality])
        lead = f"{place}. {entry['name']}" if several else entry["name"]
        styled = [
            Text(f"{one.text}\n{one.small}", style=_STYLES.get(one.verdict, "")) for one in cells
        ]
        table.add_row(readable(lead, console), *styled)
    return table


def measure_cells(comparison: Numbers, metrics: Metrics) -> Cells:
    """One row per measure: the start, and each candidate with its change.

    Args:
        comparison: the numbers.
        metrics: how each measure is shown; rows follow its order.

    Returns:
        Levels, and changes from the start with their intervals.
    """
    start = comparison["start"]
    entries = comparison["candidates"]
    keys = [key for key in metrics if any(key in one["numbers"] for one in entries)]
    rows = []
    for key in keys:
        metric = metrics[key]
        row = [Cell(text=_label(metric))]
        if start is not None:
            row.append(Cell(text=number(start["numbers"].get(key), metric.digits)))
        for entry in entries:
            change = _change(entry["change"].get(key), metric)
            beside = f"{change.text} {change.small}".strip() if entry["change"].get(key) else ""
            level = number(entry["numbers"].get(key), metric.digits)
            row.append(Cell(text=level, small=beside, verdict=change.verdict))
        rows.append(row)
    columns = ["Measure", *(["Start"] if start is not None else []), *(e["name"] for e in entries)]
    return Cells(columns=columns, rows=rows, title="Levels, and changes from the start [95 %]")


def settings_table(comparison: Numbers) -> Table | None:
    """Settings in which the runs differ, a column per run; None where they do not."""
    differing = comparison["settings"]
    if not differing:
        return None
    runs = list(next(iter(differing.values())))
    rows = [[key, *(values[run] for run in runs)] for key, values in differing.items()]
    names = {one["run"]: Path(one["run"]).name for one in comparison["candidates"]}
    own = {one["run"]: one["name"] for one in comparison["candidates"]}
    per_run = len(own) == len(comparison["candidates"])
    heads = [own[run] if per_run else names.get(run, Path(run).name) for run in runs]
    return Table(columns=["Setting", *heads], rows=rows)


def configuration_table(sweep: Numbers, comparison: Numbers, metrics: Metrics) -> Table:
    """Jobs that differ in nothing but the seed, with mean and spread over seeds.

    Args:
        sweep: numbers over seeds and parameters.
        comparison: whose measures are shown.
        metrics: how each measure is shown.

    Returns:
        One row per configuration, the least toxic first.
    """
    keys = [comparison["toxicity"], *filter(None, [comparison["quality"]])]
    rows = []
    for place, one in enumerate(sweep["configurations"], 1):
        seeds = ", ".join(str(seed) for seed in one["seeds"])
        row = [f"{place}. {one['name']}", str(one["jobs"]), seeds]
        row += [text for key in keys for text in _spreads(one[key], metrics[key].digits)]
        row += [] if len(keys) < 2 else ["yes" if one.get("front") else "no"]
        rows.append(row)
    return Table(
        columns=[
            "Configuration",
            "Jobs",
            "Seeds",
            *_spread_heads(keys, metrics),
            *([] if len(keys) < 2 else ["On the front"]),
        ],
        rows=rows,
        title="Configurations: mean and standard deviation over seeds",
    )


def effect_tables(sweep: Numbers, comparison: Numbers, metrics: Metrics) -> list[Table]:
    """What each swept parameter does, over all jobs that have each of its values."""
    keys = [comparison["toxicity"], *filter(None, [comparison["quality"]])]
    return [
        Table(
            columns=[parameter, "Jobs", *_spread_heads(keys, metrics)],
            rows=[
                [
                    one["value"],
                    str(one["jobs"]),
                    *(text for key in keys for text in _spreads(one[key], metrics[key].digits)),
                ]
                for one in values
            ],
            title=f"Effect of {parameter}: mean and standard deviation over its jobs",
        )
        for parameter, values in sweep["effects"].items()
    ]


def _spread_heads(keys: Sequence[str], metrics: Metrics) -> list[str]:
    return [
        head
        for key in keys
        for head in (metrics[key].label, f"Change of {in_text(metrics[key].label)}")
    ]


def _spreads(value: Numbers, digits: int) -> list[str]:
    change = value["change"]
    return [_spread(value, digits), "" if change is None else _spread(change, digits, signed=True)]


def _spread(value: Numbers, digits: int, *, signed: bool = False) -> str:
    mean = number(value["mean"], digits, signed=signed)
    return mean if value["std"] is None else f"{mean} ± {number(value['std'], digits)}"


def _level_and_change(entry: Numbers, key: str, metric: MetricWording) -> list[Cell]:
    level = Cell(text=number(entry["numbers"].get(key), metric.digits))
    return [level, _change(entry["change"].get(key), metric)]


def _change(change: Numbers | None, metric: MetricWording, *, plain: bool = False) -> Cell:
    if not change:
        return Cell(text="")
    low, high = (
        number(end, metric.digits, signed=True) for end in change.get("ci95") or (None, None)
    )
    return Cell(
        text=number(change["mean"], metric.digits, signed=True),
        small="" if NOT_KNOWN in (low, high) else f"[{low}, {high}]",
        verdict="" if plain else verdict(change, metric.better, metric.digits),
    )


def _label(metric: MetricWording) -> str:
    return f"{metric.label} ({metric.unit})" if metric.unit else metric.label


def _all_have(comparison: Numbers, key: str) -> bool:
    return all(key in one["numbers"] for one in comparison["candidates"])
