"""What a person sees in the terminal after a run: the table, three examples, what to do next.

Everything that a model or a data set wrote goes through `readable` into a `Text`, so markup such
as [bold] is shown and not obeyed, and no control character reaches the terminal.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lora_detox.report.next_steps import next_steps
from lora_detox.report.wording import (
    MetricWording,
    comparison_rows,
    course,
    headline,
    keeps_start,
    number,
    shorten,
    toxicity_change,
    word_notes,
)
from lora_detox.text.kinds import ENGLISH
from lora_detox.visible import readable

PROMPT_CHARACTERS = 240
RESPONSE_CHARACTERS = 320
_WITH_UNITS = 100
"""Columns of a terminal from which the table has units; in fewer they would break the labels."""
_STYLES = {"better": "bold green", "worse": "bold red", "changed": "yellow"}


_told: set[str] | None = None
"""Lines that a multirun does not repeat for each of its jobs; None outside one."""


def begin_multirun() -> None:
    """From here on `print_line` keeps back what an earlier job of this process has told."""
    global _told  # noqa: PLW0603 (jobs of a multirun share nothing but their process)
    _told = set() if _told is None else _told


def end_multirun() -> None:
    """From here on `print_line` prints every line again."""
    global _told  # noqa: PLW0603
    _told = None


def print_line(line: str, *, repeat: bool = True) -> None:
    """Print a line as it is, whatever brackets a path or a model's text has in it.

    Args:
        line: to print.
        repeat: whether each job of a multirun prints it, or only the first that has it to say.
    """
    if not repeat and _told is not None:
        if line in _told:
            return
        _told.add(line)
    console = Console(highlight=False)
    console.print(readable(line, console), soft_wrap=True)


def comparison_table(
    summary: Mapping[str, Any], metrics: Mapping[str, MetricWording], console: Console
) -> Table:
    """The before/after table with 95 % intervals and verdicts.

    Args:
        summary: the `summary.json` dict.
        metrics: how each metric is shown.
        console: where it will be printed.

    Returns:
        A table with one row per metric.
    """
    narrow = console.width < _WITH_UNITS
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=narrow)
    table.add_column("metric")
    for heading in ("before", "after", "change", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    rows = comparison_rows(summary, metrics)
    names = Counter(row.name for row in rows)
    for row in rows:
        verdict = Text(row.verdict, style=_STYLES.get(row.verdict, "dim"))
        short = narrow and names[row.name] == 1
        label = readable(row.name if short else row.label, console)
        table.add_row(label, row.before, row.after, row.change, row.interval, verdict)
    return table


def example_table(sample: Mapping[str, Any], console: Console) -> Table:
    """One prompt with the responses before and after beside each other.

    Args:
        sample: a row of `samples.jsonl`.
        console: where it will be printed.

    Returns:
        A table of two columns under the prompt.
    """
    table = Table(
        box=box.SIMPLE_HEAD,
        title=readable(shorten(sample["prompt"], PROMPT_CHARACTERS), console),
        title_justify="left",
        title_style="italic",
        expand=True,
        pad_edge=False,
    )
    for side in ("before", "after"):
        toxicity = number(sample.get(f"toxicity_{side}"), 2)
        table.add_column(Text(f"{side}, toxicity {toxicity}"), ratio=1, overflow="fold")
    table.add_row(*(_response(sample[side], console) for side in ("before", "after")))
    return table


def print_result(
    summary: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    *,
    metrics: Mapping[str, MetricWording],
    directory: Path,
    console: Console | None = None,
    further: Sequence[RenderableType] = (),
) -> None:
    """Print what a run came to; of one whose result is its start a line, as there is no change.

    Args:
        summary: the `summary.json` dict.
        samples: rows of `samples.jsonl`.
        metrics: how each metric is shown (`metrics.names.METRICS`).
        directory: the run directory.
        console: where to; None means standard output.
        further: lines and tables below the comparison.
    """
    console = console or Console(highlight=False)
    console.print()
    if keeps_start(summary):
        told = " ".join(["Nothing was learned that could be kept.", *course(summary, metrics)])
        console.print(readable(told, console), style="bold", soft_wrap=True)
    else:
        for sentence in headline(summary, metrics):
            console.print(readable(sentence, console), style="bold")
        console.print(comparison_table(summary, metrics, console))
        for one in further:
            console.print(one, soft_wrap=isinstance(one, Text))
        for sample in pick_examples(samples):
            console.print(example_table(sample, console))
    for line in closing_lines(summary, directory):
        console.print(readable(line, console), soft_wrap=True)


def pick_examples(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Three samples that do not flatter: the largest fall, the largest rise, the middle one."""
    ordered = sorted(samples, key=toxicity_change)
    if len(ordered) <= 3:
        return ordered
    return [ordered[0], ordered[-1], ordered[len(ordered) // 2]]


def closing_lines(summary: Mapping[str, Any], directory: Path) -> list[str]:
    """Where the results lie and what to do with them.

    Args:
        summary: the `summary.json` dict; `policy`, `task` and `seed` are read.
        directory: the run directory.

    Returns:
        Plain lines.
    """
    compared = (summary.get("words") or {}).get("compared", ENGLISH)
    return [
        *([] if compared == ENGLISH else [f"words    {' '.join(word_notes(summary))}"]),
        *time_lines(summary.get("seconds") or {}),
        f"report   {directory / 'report.html'}",
        f"summary  {directory / 'summary.json'}",
        f"adapter  {directory / 'adapter'}",
        "",
        *next_steps(summary, directory),
    ]


def time_lines(seconds: Mapping[str, float]) -> list[str]:
    """Where the time went: seconds and fraction of each phase, longest first.

    Args:
        seconds: `total` and phases of the summary.

    Returns:
        One line; none without a total.
    """
    total = seconds.get("total", 0.0)
    if total <= 0:
        return []
    phases = sorted(((spent, name) for name, spent in seconds.items() if name != "total"))
    parts = [f"{name} {spent:.1f} ({spent / total:.0%})" for spent, name in reversed(phases)]
    return [f"seconds  {total:.1f}: {', '.join(parts)}"]


def _response(text: str, console: Console) -> Text:
    if not text.strip():
        return Text("(empty response)", style="dim")
    short = text.strip()
    return readable(
        short if len(short) <= RESPONSE_CHARACTERS else short[:RESPONSE_CHARACTERS] + " ...",
        console,
    )
