"""What is said of a run, once for all: report.html, report.md and the model card draw on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_detox.report import bounds
from lora_detox.report.commands import commands_of
from lora_detox.report.cost import Part, memory_facts, memory_parts, time_parts
from lora_detox.report.fairness import fairness_sentences, fairness_tables
from lora_detox.report.plots import Marks
from lora_detox.report.scorers import scorer_sentences
from lora_detox.report.tables import Table
from lora_detox.report.verdict import Tile, tiles_of, tone_of
from lora_detox.report.wording import (
    ComparisonRow,
    MetricWording,
    comparison_rows,
    course,
    headline,
    keeps_start,
    mean_of,
    smoke_notes,
    trust_notes,
    word_notes,
)

Summary = Mapping[str, Any]
Facts = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What came out.

    Attributes:
        headline: sentences on what changed, toxicity first.
        further: sentences on the scorers and on fairness.
        rows: metrics before and after.
        word_notes: what counted as a word.
    """

    headline: Sequence[str]
    further: Sequence[str]
    rows: Sequence[ComparisonRow]
    word_notes: Sequence[str]

    def table(self) -> Table:
        """The rows as cells."""
        return Table(
            columns=["Metric", "Before", "After", "Change", "95 % interval", "Verdict"],
            rows=[
                [row.label, row.before, row.after, row.change, row.interval, row.verdict]
                for row in self.rows
            ],
        )


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Everything that the pages of a run say, pictures and samples apart.

    Attributes:
        findings: what came out.
        tone: better | worse | unclear.
        tiles: the verdict at a glance.
        marks: limits and decisions, for the curves.
        bounds: tables of the bounds and of every time that one was broken.
        by_group: tables of the fairness audit.
        commands: what a command is for, and the command.
        time: where the seconds went.
        memory: in which phases the peak of memory rose.
        memory_facts: peak, and the weights in it.
        facts: what the run was, in headed lists of name and value.
    """

    findings: Findings
    tone: str
    tiles: Sequence[Tile]
    marks: Marks
    bounds: Sequence[Table]
    by_group: Sequence[Table]
    commands: Sequence[tuple[str, str]]
    time: Sequence[Part]
    memory: Sequence[Part]
    memory_facts: Facts
    facts: Sequence[tuple[str, Facts]]


def findings_of(summary: Summary, metrics: Mapping[str, MetricWording]) -> Findings:
    """What came out of a run.

    Args:
        summary: the `summary.json` dict; what it lacks is left out.
        metrics: how each metric is shown (`metrics.names.METRICS`).

    Returns:
        Sentences and rows; where the result is the start, the sentences say so first.
    """
    sentences = headline(summary, metrics)
    if keeps_start(summary):
        kept = [*course(summary, metrics), *trust_notes(summary)]
        sentences = ["Nothing was learned that could be kept.", *kept]
    sentences[1:1] = smoke_notes(summary)
    return Findings(
        headline=sentences,
        further=[*scorer_sentences(summary), *fairness_sentences(summary)],
        rows=comparison_rows(summary, metrics),
        word_notes=word_notes(summary),
    )


def contents_of(
    summary: Summary,
    history: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, MetricWording],
    directory: Path,
) -> Contents:
    """Everything that is said of a run.

    Args:
        summary: the `summary.json` dict; what it lacks is left out.
        history: rows of `metrics.jsonl`.
        metrics: how each metric is shown.
        directory: the run directory, as commands name it.

    Returns:
        Parts without anything in them are empty.
    """
    held = bounds.bounds_of(summary, metrics)
    breaches = bounds.breaches_of(summary, history, held)
    tables = [
        bounds.bounds_table(held, breaches),
        bounds.breaches_table(breaches),
        bounds.training_table(history, metrics),
        bounds.returns_table(summary),
    ]
    return Contents(
        findings=findings_of(summary, metrics),
        tone=tone_of(summary, metrics),
        tiles=tiles_of(summary, metrics),
        marks=bounds.marks_of(summary, held),
        bounds=[table for table in tables if table.rows],
        by_group=[table.filled() for table in fairness_tables(summary)],
        commands=commands_of(summary, directory),
        time=time_parts(summary),
        memory=memory_parts(summary),
        memory_facts=memory_facts(summary),
        facts=run_facts(summary),
    )


def run_facts(summary: Summary) -> list[tuple[str, Facts]]:
    """What the run was, in headed lists of name and value.

    Args:
        summary: the `summary.json` dict; what it lacks is left out.

    Returns:
        [(heading, [(name, value), ...]), ...] without empty lists.
    """
    parameters = summary.get("parameters") or {}
    trained = [(name, _counted(parameters.get(name))) for name in ("trainable", "total")]
    if parameters.get("trainable") and parameters.get("total"):
        fraction = 100 * parameters["trainable"] / parameters["total"]
        trained.append(("trainable fraction", f"{fraction:.2f} %"))
    if parameters.get("base_unchanged") is not None:
        unchanged = "yes, bit-identical" if parameters["base_unchanged"] else "NO: base changed"
        trained.append(("base weights unchanged", unchanged))
    run = [
        (name, _text(summary.get(name)))
        for name in ("task", "policy", "algorithm", "seed", "iterations", "stopped", "device")
    ]
    run.append(("KL to the reference", _text(mean_of(summary.get("ref_kl")))))
    groups = [
        ("Run", run),
        ("Scorers", [(name, _text(value)) for name, value in _items(summary, "scorers")]),
        ("Parameters", trained),
        ("Versions", [(name, _text(value)) for name, value in _items(summary, "versions")]),
    ]
    kept = [(heading, [fact for fact in facts if fact[1]]) for heading, facts in groups]
    return [(heading, facts) for heading, facts in kept if facts]


def _items(summary: Summary, key: str) -> list[tuple[str, Any]]:
    return list((summary.get(key) or {}).items())


def _counted(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
