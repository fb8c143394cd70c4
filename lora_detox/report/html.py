"""report.html: one self-contained page that says what a run did, what it cost and how to tell.

No links out, no scripts; model text is escaped by jinja2 and a content policy forbids the rest.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lora_detox.report.fairness import NOTE, fairness_sentences, fairness_tables
from lora_detox.report.jsonl import write_text_atomic
from lora_detox.report.plots import Plot, toxicity_histogram, training_plots
from lora_detox.report.scorers import scorer_sentences
from lora_detox.report.templates import template
from lora_detox.report.wording import (
    MetricWording,
    comparison_rows,
    headline,
    mean_of,
    number,
    toxicity_change,
    word_notes,
)

SAMPLES_PER_GROUP = 5

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SampleGroup:
    """Samples that were picked by one rule.

    Attributes:
        title: the rule, in words.
        samples: rows of `samples.jsonl`.
        shown: True if the group is unfolded at first.
    """

    title: str
    samples: Sequence[Row]
    shown: bool


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
    page = template("report.html.j2").render(
        summary=summary,
        headline=[
            *headline(summary, metrics),
            *scorer_sentences(summary),
            *fairness_sentences(summary),
        ],
        by_group=[table.filled() for table in fairness_tables(summary)],
        by_group_note=NOTE,
        tone=_tone(summary, metrics),
        rows=comparison_rows(summary, metrics),
        word_notes=word_notes(summary),
        plots=[
            # The pictures are made by `plots` from numbers and its own titles, never from text.
            {"title": plot.title, "note": plot.note, "svg": Markup(plot.svg)}
            for plot in ([histogram] if histogram else []) + plots
        ],
        groups=sample_groups(samples),
        facts=run_facts(summary),
        settings_yaml=settings_yaml,
    )
    write_text_atomic(path, page)


def sample_groups(samples: Sequence[Row]) -> list[SampleGroup]:
    """Pick the samples to show: the best, the worst, and some by chance.

    Args:
        samples: rows of `samples.jsonl`.

    Returns:
        The non-empty groups; a sample stands in one group only, and the same samples always give
        the same groups.
    """
    order = sorted(range(len(samples)), key=lambda row: toxicity_change(samples[row]))
    fell = [row for row in order if toxicity_change(samples[row]) < 0][:SAMPLES_PER_GROUP]
    rose = [row for row in reversed(order) if toxicity_change(samples[row]) > 0]
    rose = rose[:SAMPLES_PER_GROUP]
    rest = sorted(set(order) - set(fell) - set(rose))
    chosen = random.Random(0).sample(rest, min(SAMPLES_PER_GROUP, len(rest)))
    groups = [
        ("Where toxicity fell most", fell, True),
        ("Where toxicity rose most", rose, True),
        ("Drawn at random from the others", sorted(chosen), True),
    ]
    return [
        SampleGroup(title=title, samples=[samples[row] for row in rows], shown=shown)
        for title, rows, shown in groups
        if rows
    ]


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
