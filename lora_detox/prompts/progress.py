"""How far long reading is: a bar in a terminal, a line now and then anywhere else."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

Item = TypeVar("Item")
_SHOWN_AFTER_SECONDS = 3.0
_LINE_EVERY_SECONDS = 10.0
_CHECKED_EVERY = 256


def with_progress(
    items: Iterable[Item], what: str, total: int | None = None, console: Console | None = None
) -> Iterator[Item]:
    """Hand items on, and show how many there were once it has taken a few seconds.

    Args:
        items: to hand on, in their order.
        what: is done with them, for the line: "reading rows.jsonl".
        total: how many there will be; None where nobody knows.
        console: where to; None means standard output.

    Yields:
        The items.
    """
    console = console or Console(highlight=False)
    bar: Progress | None = None
    begin = time.monotonic()
    due = begin + _SHOWN_AFTER_SECONDS
    try:
        for count, item in enumerate(items):
            if count % _CHECKED_EVERY == 0 and (now := time.monotonic()) >= due:
                if console.is_terminal:
                    bar = bar or _started(console, what, total)
                    bar.update(bar.task_ids[0], completed=count, rows=f"{count:,}")
                    due = now
                else:
                    of = "" if total is None else f" of {total:,}"
                    line = f"{what}: {count:,}{of} rows, {now - begin:.0f} s"
                    console.print(Text(line), soft_wrap=True)
                    due = now + _LINE_EVERY_SECONDS
            yield item
    finally:
        if bar is not None:
            bar.stop()


def _started(console: Console, what: str, total: int | None) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TextColumn("{task.fields[rows]} rows"),
        TimeElapsedColumn(),
    )
    bar = Progress(*columns, console=console, transient=True)
    bar.add_task(what, total=total, rows="0")
    bar.start()
    return bar
