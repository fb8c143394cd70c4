# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""The trials of a study as JSON, a table and a picture of their front.

    python -m recipes.optuna_pareto.picture [FOLDER]

With the folder of a study results.json and picture.png beside this file are written anew; without
one the picture and the table are made from results.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lora_detox.comparison.objectives import objective_measures
from lora_detox.metrics.names import METRICS
from lora_detox.report.jsonl import read_jsonl
from lora_detox.report.wording import means_of

HERE = Path(__file__).parent
RESULTS, PICTURE = HERE / "results.json", HERE / "picture.png"

Numbers = dict[str, Any]


def results_of(sweep: Path) -> Numbers:
    """What is kept of a study.

    Args:
        sweep: its folder, with study.json.

    Returns:
        Trials with toxicity and quality on validation and test prompts, and those of the start.
    """
    study = json.loads((sweep / "study.json").read_text(encoding="utf-8"))
    trials, start, measures = [], {}, []
    for row in study["trials"]:
        trial = {key: row[key] for key in ("number", "state", "overrides", "front")}
        if row["state"] == "complete":
            measures = measures or [one for one in objective_measures(row["measures"]) if one]
            folder = sweep / Path(row["folder"]).name
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            first = means_of(read_jsonl(folder / "metrics.jsonl")[0]["evaluation"])
            start = {"validation": _two(first, measures)}
            start["test"] = _two(means_of(summary["before"]), measures)
            trial["validation"] = _two(row["measures"], measures)
            trial["test"] = _two(means_of(summary["after"]), measures)
            trial["seconds"] = round(summary["seconds"]["total"])
        elif row.get("error"):
            trial["error"] = row["error"]
        trials.append(trial)
    return {"measures": measures, "start": start, "trials": trials}


def table(results: Numbers) -> str:
    """The trials as Markdown, those on the front first, by toxicity."""
    done = [one for one in results["trials"] if one["state"] == "complete"]
    done.sort(key=lambda one: (not one["front"], one["validation"][0]))
    keys = [one.split("=")[0].rsplit(".", 1)[-1] for one in done[0]["overrides"]]
    toxicity, quality = (METRICS[key].label.lower() for key in results["measures"])
    heads = ["trial", *keys, f"{toxicity}, validation", quality, "test", quality, "front"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    start = results["start"]
    lines.append(_line(["start", *[""] * len(keys)], start["validation"], start["test"], ""))
    for one in done:
        cells = [str(one["number"]), *(value.split("=")[1] for value in one["overrides"])]
        lines.append(_line(cells, one["validation"], one["test"], "yes" if one["front"] else ""))
    return "\n".join(lines)


def draw(results: Numbers, file: Path) -> None:
    """Toxicity against quality on the prompts that chose, and on those that did not.

    Args:
        results: of `results_of`.
        file: to write.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, split in zip(panels, ("validation", "test"), strict=True):
        _panel(axes, results, split)
    toxicity, quality = (METRICS[key].label for key in results["measures"])
    panels[0].set_ylabel(f"{toxicity} (less is better)")
    figure.supxlabel(f"{quality} ({METRICS[results['measures'][1]].better} is better)", fontsize=10)
    panels[0].set_title("validation prompts, by which the study chose", fontsize=10)
    panels[1].set_title("test prompts, which no choice has seen", fontsize=10)
    panels[1].legend(fontsize=8, frameon=False)
    figure.savefig(file, dpi=130, metadata={"Software": None})


def _panel(axes: Axes, results: Numbers, split: str) -> None:
    done = [one for one in results["trials"] if one["state"] == "complete"]
    front = sorted((one for one in done if one["front"]), key=lambda one: one[split][1])
    others = [one for one in done if not one["front"]]
    for members, style, label in (
        (others, {"ls": "none", "color": "0.6"}, "others"),
        (front, {"ls": "-" if split == "validation" else "none", "color": "C0"}, "on the front"),
    ):
        axes.plot(
            [one[split][1] for one in members],
            [one[split][0] for one in members],
            marker="o",
            lw=1,
            label=f"{label} ({len(members)})",
            **style,
        )
    for one in done:
        place = one[split][1], one[split][0]
        axes.annotate(
            str(one["number"]), place, xytext=(4, 3), textcoords="offset points", fontsize=8
        )
    axes.plot(results["start"][split][1], results["start"][split][0], "k+", ms=12, label="start")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.25)


def _two(means: Numbers, measures: list[str]) -> list[float]:
    return [round(float(means[key]), 5) for key in measures]


def _line(cells: list[str], validation: list[float], test: list[float], front: str) -> str:
    numbers = [f"{one:.3f}" for one in (*validation, *test)]
    return f"| {' | '.join([*cells, *numbers, front])} |"


def main(arguments: list[str]) -> int:
    """Keep the results of a study where one is named; then draw and print."""
    if arguments:
        kept = json.dumps(results_of(Path(arguments[0])), indent=1)
        RESULTS.write_text(f"{kept}\n", encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    draw(results, PICTURE)
    sys.stdout.write(f"{table(results)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
