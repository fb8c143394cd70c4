"""Figures of an exported strength, where stage=evaluate has measured it."""

from pathlib import Path
from typing import Any

from lora_detox.export.finished_run import FinishedRun
from lora_detox.settings.stored import stored_json, stored_settings

_REMEDY = "remove that evaluation, or make it again"


def figures_at(source: FinishedRun, strength: float) -> dict[str, Any] | None:
    """What an evaluation in a folder of the run says of a strength, on the data of the run.

    Args:
        source: the run, whose folder may hold evaluations, as `RUN/evaluate`.
        strength: of its adapter.

    Returns:
        `before` (strength 0), `after`, `change`, `ref_kl`, `scorers` and `words` as a run's
        summary has them, of the newest such evaluation; None where there is none, and at strength
        1, which the run itself has measured.
    """
    if strength == 1:
        return None
    files = source.folder.glob("*/summary.json")
    for file in sorted(files, key=lambda one: one.stat().st_mtime, reverse=True):
        summary = stored_json(file, "run", _REMEDY)
        if summary.get("stage") != "evaluate" or not _same_data(file.parent, source):
            continue
        for model in summary["models"]:
            if model["adapter"] and Path(model["adapter"]).resolve() == source.adapter.resolve():
                points = {one["strength"]: one["sets"] for one in model.get("frontier", [])}
                if {0.0, strength} <= points.keys():
                    return _as_a_run(summary, points[0.0], points[strength])
    return None


def _same_data(folder: Path, source: FinishedRun) -> bool:
    """Whether an evaluation asked the prompts that the card names."""
    config = stored_settings(folder / "config.yaml", "run", _REMEDY)
    return bool(config["data"]["path"] == source.config["data"]["path"])


def _as_a_run(summary: dict[str, Any], start: Any, end: Any) -> dict[str, Any]:
    before, after = start["in_distribution"], end["in_distribution"]
    return {
        "before": before,
        "after": after,
        "change": after["change"],
        "ref_kl": after["ref_kl"],
        "scorers": summary["scorers"],
        "words": summary["words"],
    }
