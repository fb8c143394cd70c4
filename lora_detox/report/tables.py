"""A table of results on the console, as Markdown, and as a self-contained page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from lora_detox.report.jsonl import write_text_atomic
from lora_detox.report.plots import Plot
from lora_detox.report.templates import template
from lora_detox.visible import readable, visible


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text; numbers are formatted already.

    Attributes:
        columns: headings.
        rows: one list of cells per row, as long as `columns`.
        title: what stands above it, may be empty.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def filled(self) -> "Table":
        """The same without columns that have no number in any row."""
        kept = [
            place
            for place in range(len(self.columns))
            if any(row[place] not in {"", "n/a"} for row in self.rows)
        ]
        return Table(
            columns=[self.columns[place] for place in kept],
            rows=[[row[place] for place in kept] for row in self.rows],
            title=self.title,
        )

    def markdown(self) -> str:
        """The table as Markdown; a bar in a cell is escaped, a line feed a space."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(map(_markdown_cell, line)) + " |" for line in lines)


def _markdown_cell(text: str) -> str:
    return " ".join(visible(text).replace("|", "\\|").splitlines())


def print_table(
    table: Table, notes: Sequence[str], directory: Path, console: Console | None = None
) -> None:
    """Print a table with its notes; on a narrow terminal each row becomes a block of lines.

    Args:
        table: what to print; columns without any number are left out.
        notes: sentences below it.
        directory: where the results lie.
        console: where to; None means standard output.
    """
    console = console or Console(highlight=False)
    shown = table.filled()
    console.print()
    if _width(shown) <= console.width:
        console.print(rich_table(shown, console))
    else:
        for row in shown.rows:
            console.print(readable(row[0], console), style="bold")
            for column, cell in zip(shown.columns[1:], row[1:], strict=True):
                if cell:
                    console.print(readable(f"  {column:32} {cell}", console), soft_wrap=True)
    for note in notes:
        console.print(readable(note, console), soft_wrap=True)
    console.print(readable(f"report   {directory / 'report.html'}", console), soft_wrap=True)
    console.print(readable(f"summary  {directory / 'summary.json'}", console), soft_wrap=True)


def rich_table(table: Table, console: Console) -> RichTable:
    """A table as the terminal shows it.

    Args:
        table: what to show.
        console: where it will be printed.

    Returns:
        The first column on the left, numbers on the right; where that is too wide for the
        terminal, the words of a heading below each other.
    """
    between = "\n" if _width(table) > console.width else " "
    title = readable(table.title, console) if table.title else None
    printed = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, title=title)
    for place, column in enumerate(table.columns):
        heading = readable(column.replace(" ", between) if place else column, console)
        printed.add_column(heading, justify="left" if place == 0 else "right", no_wrap=True)
    for row in table.rows:
        printed.add_row(*(readable(cell, console) for cell in row))
    return printed


def _width(table: Table) -> int:
    """Characters across, with two between columns."""
    lines = (table.columns, *table.rows)
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.columns))]
    return sum(widths) + 2 * len(widths)


def write_page(
    path: Path,
    *,
    title: str,
    tables: Sequence[Table],
    notes: Sequence[str],
    settings_yaml: str,
    plots: Sequence[Plot] = (),
) -> None:
    """Write tables as one self-contained page; every text is escaped.

    Args:
        path: the file to write.
        title: heading.
        tables: what to show.
        notes: sentences below them.
        settings_yaml: the resolved settings.
        plots: pictures, between the tables and the notes.
    """
    page = template("tables.html.j2").render(
        title=title,
        tables=[table.filled() for table in tables],
        sections=[
            ("tables", "Results"),
            *([("pictures", "Pictures")] if plots else []),
            ("notes", "Notes"),
            ("settings", "Settings"),
        ],
        plots=plots,
        notes=list(notes),
        settings_yaml=settings_yaml,
    )
    write_text_atomic(path, page)
