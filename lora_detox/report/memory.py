"""The tables of stage=plan: what needs which memory and time, and what to change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lora_detox.visible import readable, visible

MIB = 2**20
MINUTE, HOUR = 60, 3600


def print_memory(plan: Mapping[str, Any], written: Path, console: Console) -> None:
    """Print a plan.

    Args:
        plan: the dict of plan.json.
        written: where that is.
        console: where to.
    """
    console.print(parts_table(plan))
    others = ", ".join(
        f"{phase} {size(sum(plan['stays'].values()) + sum(parts.values()))}"
        for phase, parts in plan["phases"].items()
        if phase != plan["peak_phase"]
    )
    lines = [f"other phases: {others}", *plan["assumptions"], _verdict(plan)]
    for line in lines:
        console.print(readable(line, console), soft_wrap=True)
    if plan["advice"]:
        console.print(advice_table(plan))
    if plan.get("seconds"):
        console.print(seconds_table(plan["seconds"]))
    for line in time_lines(plan):
        console.print(readable(line, console), soft_wrap=True)
    console.print(readable(f"plan     {written}", console), soft_wrap=True)


def parts_table(plan: Mapping[str, Any]) -> Table:
    """Bytes by part at the peak, and their sum."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("part")
    table.add_column("MiB", justify="right", no_wrap=True)
    for name, held in plan["stays"].items():
        table.add_row(Text(name), f"{held / MIB:,.1f}")
    for name, held in plan["phases"][plan["peak_phase"]].items():
        table.add_row(Text(f"{plan['peak_phase']}: {name}"), f"{held / MIB:,.1f}")
    table.add_section()
    table.add_row("predicted peak", f"{plan['total_bytes'] / MIB:,.1f}")
    return table


def advice_table(plan: Mapping[str, Any]) -> Table:
    """What to change, cheapest first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="What to change, cheapest first")
    table.add_column("overrides", overflow="fold")
    table.add_column("costs", overflow="fold")
    table.add_column("peak", justify="right", no_wrap=True)
    table.add_column("fits", no_wrap=True)
    for one in plan["advice"]:
        table.add_row(
            Text(visible(" ".join(one["overrides"]))),
            one["cost"],
            size(one["total"]),
            "yes" if one["fits"] else "no",
        )
    return table


def seconds_table(seconds: Mapping[str, Any]) -> Table:
    """Seconds of an iteration by phase, and their sum."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("phase of an iteration")
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("of it", justify="right", no_wrap=True)
    for name, spent in sorted(seconds["phases"].items(), key=lambda item: -item[1]):
        table.add_row(name, f"{spent:,.2f}", f"{spent / seconds['iteration']:.0%}")
    table.add_section()
    table.add_row("predicted iteration", f"{seconds['iteration']:,.2f}", "")
    return table


def time_lines(plan: Mapping[str, Any]) -> list[str]:
    """How long the run takes and what lowers that, or why it is not known."""
    seconds = plan.get("seconds")
    if not seconds:
        return [plan["no_seconds"]] if plan.get("no_seconds") else []
    way = seconds["faster"]
    return [
        *seconds["assumptions"],
        f"{seconds['iterations']} iterations take about "
        f"{duration(seconds['iterations'] * seconds['iteration'])}, evaluations about "
        f"{duration(seconds['evaluations'])}: {duration(seconds['run'])} in all, loading left out.",
        f"Largest cost: {seconds['largest']}. {way['override']} brings an iteration to about "
        f"{way['iteration']:.2f} s ({way['cost']}).",
    ]


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    if seconds >= 2 * HOUR:
        return f"{seconds / HOUR:.1f} hours"
    return f"{seconds / MINUTE:.0f} minutes" if seconds >= 2 * MINUTE else f"{seconds:.0f} s"


def size(held: float) -> str:
    """Bytes as a person reads them."""
    return f"{held / 2**30:.2f} GiB" if held >= 2**30 else f"{held / MIB:.0f} MiB"


def _verdict(plan: Mapping[str, Any]) -> str:
    total, available = plan["total_bytes"], plan["available_bytes"]
    where = "GPU" if plan["device"] == "cuda" else "machine"
    verdict = "fits" if plan["fits"] else "does not fit"
    return f"{size(total)} of {size(available)} on this {where}: it {verdict}."
