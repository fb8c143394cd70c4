"""The verdict of a run at a glance: toxicity, judge, quality, length and fairness."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_detox.report.fairness import harmed_groups
from lora_detox.report.wording import (
    NOT_KNOWN,
    ComparisonRow,
    MetricWording,
    comparison_rows,
    keeps_start,
)

_TILES = (
    ("", "Toxicity", ("toxicity",)),
    ("", "Toxicity by the judge", ("judge_toxicity",)),
    ("Quality: ", "", ("joint", "rougeL", "perplexity")),
    ("Topic: ", "", ("relevance",)),
    ("", "", ("response_words", "response_tokens")),
)
"""What it is about, name of the metric where that is not its label, and the metrics of which the
first that was measured is shown."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One part of the verdict.

    Attributes:
        about: what stands before the metric's name, may be empty.
        name: of the metric.
        number: the change, or what stands in its place.
        sides: before and after, may be empty.
        interval: of the change, may be empty.
        verdict: `better`, `worse`, `changed`, `no clear change` or `not known`.
    """

    about: str
    name: str
    number: str
    sides: str
    interval: str
    verdict: str


def tiles_of(summary: Mapping[str, Any], metrics: Mapping[str, MetricWording]) -> list[Tile]:
    """The parts of the verdict of a run.

    Args:
        summary: the `summary.json` dict.
        metrics: how each metric is shown.

    Returns:
        Those that were measured; none where the result is the start, since nothing changed.
    """
    if keeps_start(summary) or not summary.get("change"):
        return []
    rows = {row.key: row for row in comparison_rows(summary, metrics)}
    tiles = []
    for about, name, keys in _TILES:
        row = next((rows[key] for key in keys if key in rows), None)
        if row is not None:
            tiles.append(_tile(about, name or row.label, row))
    fairness = _fairness_tile(summary)
    return [*tiles, fairness] if fairness else tiles


def tone_of(summary: Mapping[str, Any], metrics: Mapping[str, MetricWording]) -> str:
    """Whether toxicity fell for certain: `better` only where the judge agrees, `worse`, `unclear`.

    Args:
        summary: the `summary.json` dict.
        metrics: how each metric is shown.

    Returns:
        A word that the page colours its verdict by.
    """
    verdicts = {row.key: row.verdict for row in comparison_rows(summary, metrics)}
    verdict = verdicts.get("toxicity", "not known")
    confirmed = verdicts.get("judge_toxicity", verdict) == verdict
    return verdict if verdict == "worse" or (verdict == "better" and confirmed) else "unclear"


def _tile(about: str, name: str, row: ComparisonRow) -> Tile:
    return Tile(
        about=about,
        name=name,
        number=row.change,
        sides=f"{row.before} \u2192 {row.after}",
        interval="" if row.interval == NOT_KNOWN else row.interval,
        verdict=row.verdict,
    )


def _fairness_tile(summary: Mapping[str, Any]) -> Tile | None:
    sets = (summary.get("fairness") or {}).get("sets") or {}
    groups = [group for entry in sets.values() for group in entry["groups"].values()]
    if not sets:
        return None
    harmed = [name for entry in sets.values() for name in harmed_groups(entry)]
    listed = ", ".join(harmed[:3]) + (f" and {len(harmed) - 3} more" if len(harmed) > 3 else "")
    return Tile(
        about="",
        name="Fairness",
        number=f"{len(harmed)} of {len(groups)} worse off" if groups else "n/a",
        sides=(listed or "groups of people") if groups else "too few prompts",
        interval="",
        verdict="worse" if harmed else "no clear change" if groups else "not known",
    )
