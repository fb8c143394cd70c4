"""What the trials of a study come to, on the page of its sweep: their front, and a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_detox.comparison.jobs import STUDY, first_line
from lora_detox.comparison.objectives import objective_measures
from lora_detox.errors import DetoxError
from lora_detox.metrics import names
from lora_detox.report.frontier import FrontierCurve, FrontierPoint, frontier_plot
from lora_detox.report.plots import INK, Plot
from lora_detox.report.tables import Table
from lora_detox.report.wording import in_text, number
from lora_detox.settings.stored import stored_json

_STATES = {"complete": "complete", "pruned": "pruned", "fail": "failed", "running": "not ended"}
_NOT_KNOWN = float("nan")
_MOST_LABELS = 30
"""Points that have their number beside them."""

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study for people.

    Attributes:
        sentences: how many trials came to what.
        plots: the picture of the front; none where no trial was measured.
        tables: one row per trial.
    """

    sentences: Sequence[str]
    plots: Sequence[Plot]
    tables: Sequence[Table]


def read_study(sweep: Path) -> Study | None:
    """The study of a sweep.

    Args:
        sweep: its folder.

    Returns:
        What the page shows; None where the sweep is no study, or its file is damaged.
    """
    if not (sweep / STUDY).is_file():
        return None
    try:
        stored = stored_json(sweep / STUDY, "hydra.sweep.dir", "want the file of a study")
        return _study(stored["trials"], str(stored["measured_on"]))
    except (DetoxError, KeyError, TypeError, IndexError):
        return None


def front_picture(rows: Sequence[Row], split: str) -> Plot | None:
    """Toxicity against quality of the trials that came to their end.

    Args:
        rows: trials of study.json.
        split: prompts on which they were measured.

    Returns:
        The picture, those on the front joined; None without a quality.
    """
    measured = [row for row in rows if row["state"] == "complete"]
    if not measured:
        return None
    toxicity, quality = objective_measures(measured[0]["measures"])
    if quality is None:
        return None
    front = sorted(
        (row for row in measured if row["front"]), key=lambda row: float(row["measures"][quality])
    )
    others = [row for row in measured if not row["front"]]
    labelled = len(measured) <= _MOST_LABELS
    curves = [
        FrontierCurve(
            label=label,
            points=[_point(row, quality, toxicity, labelled=labelled) for row in members],
            colour=colour,
            joined=joined,
        )
        for label, members, colour, joined in (
            ("on the front", front, None, True),
            ("another trial is better in both", others, INK, False),
        )
        if members
    ]
    labels = names.METRICS[quality].label, names.METRICS[toxicity].label
    side = "left" if names.METRICS[quality].better == names.Better.LOWER else "right"
    return frontier_plot(
        f"Trials of the study, on {split} prompts: {in_text(labels[1])} against "
        f"{in_text(labels[0])}",
        curves,
        labels,
        f"Numbers are those of the trials. Better is down and to the {side}.",
        (names.METRICS[quality].digits, names.METRICS[toxicity].digits),
    )


def _study(rows: Sequence[Row], split: str) -> Study:
    states = [str(row["state"]) for row in rows]
    counts = [f"{states.count(key)} {word}" for key, word in _STATES.items() if key in states]
    front = [row for row in rows if row["front"]]
    on_front = "; ".join(_in_words(row) for row in front)
    sentences = [f"The study has {len(rows)} trials: {', '.join(counts)}."]
    if front:
        sentences.append(
            f"On {split} prompts, by which the study chose, {len(front)} of them have none beside "
            f"them that is better in both toxicity and quality: {on_front}."
        )
    picture = front_picture(rows, split)
    return Study(
        sentences=sentences,
        plots=[] if picture is None else [picture],
        tables=[_table(rows, split)],
    )


def _in_words(row: Row) -> str:
    return f"trial {row['number']} ({' '.join(map(_short, row['overrides']))})"


def _short(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{key.lstrip('+').rsplit('.', 1)[-1]}={value}"


def _table(rows: Sequence[Row], split: str) -> Table:
    measured = [row["measures"] for row in rows if row["state"] == "complete"]
    toxicity, quality = objective_measures(measured[0]) if measured else ("", None)
    keys = [key for key in (toxicity, quality) if key]
    swept = [override.partition("=")[0].lstrip("+") for override in rows[0]["overrides"]]
    cells = []
    for row in rows:
        values = [override.partition("=")[2] for override in row["overrides"]]
        means = row.get("measures") or {}
        shown = [number(means.get(key), names.METRICS[key].digits) for key in keys]
        state = _STATES.get(row["state"], str(row["state"]))
        why = first_line(str(row.get("error") or ""))
        cells.append(
            [str(row["number"]), state, *values, *shown, "yes" if row["front"] else "", why]
        )
    heads = [f"{names.METRICS[key].label}, {split}" for key in keys]
    return Table(
        columns=["Trial", "Came to", *swept, *heads, "On the front", "Why not"],
        rows=cells,
        title="Trials of the study",
    )


def _point(row: Row, quality: str, toxicity: str, *, labelled: bool) -> FrontierPoint:
    x, y = ((float(row["measures"][key]), _NOT_KNOWN, _NOT_KNOWN) for key in (quality, toxicity))
    return FrontierPoint(label=str(row["number"]) if labelled else "", x=x, y=y)
