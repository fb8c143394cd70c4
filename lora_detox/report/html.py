"""report.html and report.md: what a run did, what it cost and how to tell.

The page is one file without links out, and its one script is its own. Texts are escaped by jinja2;
those of samples are data that the script shows as text. A content policy forbids every request.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_detox.report.contents import Contents, contents_of
from lora_detox.report.fairness import NOTE
from lora_detox.report.glossary import terms
from lora_detox.report.jsonl import write_text_atomic
from lora_detox.report.plots import Plot
from lora_detox.report.samples import before_and_after
from lora_detox.report.templates import template
from lora_detox.report.training_plots import score_histograms, training_plots
from lora_detox.report.wording import MetricWording

Row = Mapping[str, Any]


def write_report(
    path: Path,
    *,
    summary: Mapping[str, Any],
    history: Sequence[Row],
    samples: Sequence[Row],
    settings_yaml: str,
    metrics: Mapping[str, MetricWording],
) -> None:
    """Write report.html, and report.md beside it.

    Args:
        path: of the page; its folder is the run directory.
        summary: the `summary.json` dict; `scorers` ({"reward": id, "judge": id}) is shown where
            it is there, and so is every other part.
        history: rows of `metrics.jsonl`, with `evaluation` as from `summarise` where there was one.
        samples: rows of `samples.jsonl`.
        settings_yaml: the resolved settings.
        metrics: how each metric is shown (`metrics.names.METRICS`).
    """
    contents = contents_of(summary, history, metrics, path.parent)
    histograms = score_histograms(samples)
    plots = training_plots(history, contents.marks)
    table = before_and_after(samples)
    shown = {
        "verdict": ("Verdict", True),
        "change": ("Before and after", contents.findings.rows),
        "bounds": ("Bounds", contents.bounds),
        "groups": ("By group", contents.by_group),
        "scores": ("Scores", histograms),
        "curves": ("How it went", plots),
        "samples": ("Samples", table),
        "commands": ("Commands", True),
        "cost": ("Time and memory", contents.time or contents.memory_facts),
        "run": ("The run", True),
        "words": ("Words", True),
    }
    page = template("report.html.j2").render(
        summary=summary,
        contents=contents,
        sections=[(key, name) for key, (name, part) in shown.items() if part],
        group_note=NOTE,
        histograms=histograms,
        plots=plots,
        samples=table,
        terms=terms(_labels(contents, plots)),
        settings_yaml=settings_yaml,
    )
    write_text_atomic(path, page)
    text = template("report.md.j2").render(summary=summary, contents=contents, group_note=NOTE)
    write_text_atomic(path.with_suffix(".md"), text)


def _labels(contents: Contents, plots: Sequence[Plot]) -> list[str]:
    """What stands on the page and may need a word of explanation."""
    rows = contents.findings.rows
    tables = [*contents.bounds, *contents.by_group]
    return [
        *(label for row in rows for label in (row.key, row.name)),
        *(column for one in tables for column in one.columns),
        *(plot.title for plot in plots),
        *("95 % interval", "Verdict", "Adapter", "Iteration", "Rollout", "Reference"),
    ]
