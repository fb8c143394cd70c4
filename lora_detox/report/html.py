"""report.html: one self-contained page that says what a run did, what it cost and how to tell.

No links out; its one script is its own. Texts are escaped by jinja2, those of samples are data that
the script shows as text, and a content policy forbids every request.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_detox.report.fairness import NOTE, fairness_sentences, fairness_tables
from lora_detox.report.glossary import terms
from lora_detox.report.jsonl import write_text_atomic
from lora_detox.report.plots import Plot, toxicity_histogram, training_plots
from lora_detox.report.samples import before_and_after
from lora_detox.report.scorers import scorer_sentences
from lora_detox.report.tables import Table
from lora_detox.report.templates import template
from lora_detox.report.wording import (
    ComparisonRow,
    MetricWording,
    comparison_rows,
    headline,
    mean_of,
    number,
    word_notes,
)

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
    """Write report.html.

    Args:
        path: the file to write.
        summary: the `summary.json` dict; `scorers` ({"reward": id, "judge": id}) is shown where
            it is there, and so is every other part.
        history: rows of `metrics.jsonl`, with `evaluation` as from `summarise` where there was one.
        samples: rows of `samples.jsonl`.
        settings_yaml: the resolved settings.
        metrics: how each metric is shown (`metrics.names.METRICS`).
    """
    plots: list[Plot] = training_plots(history)
    histogram = toxicity_histogram(samples)
    rows = comparison_rows(summary, metrics)
    pictures = ([histogram] if histogram else []) + plots
    by_group = [table.filled() for table in fairness_tables(summary)]
    table = before_and_after(samples)
    parts = {
        "verdict": ("Verdict", True),
        "change": ("Before and after", rows),
        "groups": ("By group", by_group),
        "curves": ("How it went", pictures),
        "samples": ("Samples", table),
        "run": ("The run", True),
        "settings": ("Settings", True),
        "words": ("Words", True),
    }
    page = template("report.html.j2").render(
        summary=summary,
        sections=[(id, name) for id, (name, shown) in parts.items() if shown],
        headline=[
            *headline(summary, metrics),
            *scorer_sentences(summary),
            *fairness_sentences(summary),
        ],
        by_group=by_group,
        by_group_note=NOTE,
        tone=_tone(summary, metrics),
        comparison=comparison_table(rows) if rows else None,
        rows=rows,
        word_notes=word_notes(summary),
        plots=pictures,
        samples=table,
        terms=terms(
            [
                *(label for row in rows for label in (row.key, row.name)),
                *(column for one in by_group for column in one.columns),
                *("95 % interval", "Verdict", "Adapter", "Iteration", "Rollout"),
            ]
        ),
        facts=run_facts(summary),
        settings_yaml=settings_yaml,
    )
    write_text_atomic(path, page)


def comparison_table(rows: Sequence[ComparisonRow]) -> Table:
    """The before/after table as cells."""
    return Table(
        columns=["Metric", "Before", "After", "Change", "95 % interval", "Verdict"],
        rows=[
            [row.label, row.before, row.after, row.change, row.interval, row.verdict]
            for row in rows
        ],
    )


def run_facts(summary: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
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
    memory = mean_of(summary.get("peak_memory_bytes"))
    run = [
        (name, _text(summary.get(name)))
        for name in ("task", "policy", "algorithm", "seed", "iterations", "stopped", "device")
    ]
    run.append(("KL to the reference", _text(mean_of(summary.get("ref_kl")))))
    run.append(("peak memory", "" if memory is None else f"{memory / 2**30:.2f} GiB"))
    groups = [
        ("Run", run),
        ("Scorers", [(name, _text(value)) for name, value in _items(summary, "scorers")]),
        ("Parameters", trained),
        ("Seconds", [(name, number(value, 1)) for name, value in _items(summary, "seconds")]),
        ("Versions", [(name, _text(value)) for name, value in _items(summary, "versions")]),
    ]
    kept = [(heading, [fact for fact in facts if fact[1]]) for heading, facts in groups]
    return [(heading, facts) for heading, facts in kept if facts]


def _tone(summary: Mapping[str, Any], metrics: Mapping[str, MetricWording]) -> str:
    verdicts = {row.key: row.verdict for row in comparison_rows(summary, metrics)}
    verdict = verdicts.get("toxicity", "not known")
    confirmed = verdicts.get("judge_toxicity", verdict) == verdict
    return verdict if verdict == "worse" or (verdict == "better" and confirmed) else "unclear"


def _items(summary: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    return list((summary.get(key) or {}).items())


def _counted(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
