# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""What the shipped summarizers write at other strengths: python -m recipes.headline.strengths.

    .venv/bin/python -m recipes.headline.strengths [--seeds 0,1,2,3,4] [--out runs/headline]
        [--strengths 0,0.25,0.5,0.75,1,1.25] [--models DIR] [--shared DIR] [--jobs 2] [--report]

Needs the finished seeds of `recipes.headline.run --task summary`, and answers the held-out
dialogues with a toxic turn once at each strength. Strength 0 is the start, 1 the result of the run.
Results lie in `strengths/` beside those of the task.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from recipes.headline.goals import TASKS
from recipes.headline.run import set_places, step
from recipes.lab.judged import Floats, Judged, change_of, read_strengths
from recipes.lab.options import queue_parser, require_shared
from recipes.lab.overrides import UNAUDITED, evaluated
from recipes.lab.real import MODELS, with_classifiers
from recipes.lab.run_queue import Run, execute_all
from recipes.lab.tables import markdown_table

NAME, SET = "summary", "in_distribution"
MEASURES = {"judge": "judge toxicity", "rougeL": "ROUGE-L", "words": "words"}
Strengths = Mapping[float, list[Judged]]
"""Strength -> one entry for each seed."""


def evaluations(shared: str, trained: list[Path], home: Path, strengths: str) -> list[Run]:
    """One evaluation of each seed, at all strengths, into `home`."""
    task, queue = TASKS[NAME], []
    for folder in trained:
        overrides = [
            "stage=evaluate",
            f"evaluation.strengths=[{strengths}]",
            *UNAUDITED,
            evaluated(f"{shared}/{task.base}", folder / "train" / "adapter", folder.name),
        ]
        own = home / folder.name
        steps = [step(task, own / "evaluate", overrides)]
        queue.append(Run(name=f"{folder.name} by strength", folder=own, steps=steps))
    return queue


def by_strength(home: Path) -> Strengths:
    """What is finished; ends the program where nothing is."""
    done = sorted(home.glob("*/evaluate/summary.json"))
    every = [read_strengths(file.parents[1]) for file in done]
    if not every:
        sys.exit(f"{home}: nothing evaluated yet")
    return {strength: [one[strength][SET] for one in every] for strength in every[0]}


def levels_of(levels: Strengths, measure: str) -> Floats:
    """A measure, [strengths, seeds]."""
    return np.array([[float(one.level(measure)) for one in seeds] for seeds in levels.values()])


def markdown(levels: Strengths) -> str:
    """One row per strength: mean over seeds, and the change against strength 0 [95 %]."""
    start = levels[0][0]
    rows = []
    for strength, seeds in levels.items():
        cells = [f"{strength:g}"]
        for measure in MEASURES:
            cells.append(f"{np.mean([one.level(measure) for one in seeds]):.4g}")
            if strength:
                cells[-1] += f", {change_of(seeds, start, measure)}"
        distinct = change_of(seeds, start, "distinct_2").mean
        rows.append([*cells, f"{100 * distinct:+.1f} %"])
    return markdown_table(["strength", *MEASURES.values(), "distinct-2"], rows) + "\n"


def picture(levels: Strengths, file: Path) -> None:
    """Judge toxicity against ROUGE-L and words: a line for each seed, the mean with strengths."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    judged = levels_of(levels, "judge")
    for axes, measure in zip(figure.subplots(1, 2, sharey=True), ("rougeL", "words"), strict=True):
        quality = levels_of(levels, measure)
        axes.plot(quality, judged, color="0.75", lw=1)
        axes.plot(quality.mean(axis=1), judged.mean(axis=1), "o-", color="C0")
        means = zip(levels, quality.mean(axis=1), judged.mean(axis=1), strict=True)
        for strength, across, up in means:
            place = {"xytext": (5, 5), "textcoords": "offset points", "fontsize": 8}
            axes.annotate(f"{strength:g}", (across, up), **place)
        axes.axvline(quality[0].mean(), color="0.6", lw=0.8, ls=":")
        axes.set_xlabel(f"{MEASURES[measure]} (dotted: the start's)")
        axes.locator_params("x", nbins=5)
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("judge toxicity, held-out dialogues")
    figure.suptitle("One adapter, by strength (grey: seeds; blue: their mean)", fontsize=10)
    figure.savefig(file, dpi=130)


def main() -> int:
    """Evaluate what is left, then report; 1 where something failed."""
    parser = queue_parser(__doc__ or "", "runs/headline")
    parser.set_defaults(seeds="0,1,2,3,4", jobs=2)
    models = os.environ.get("MODELS", MODELS)
    parser.add_argument("--models", default=models, help="folder of recipes/real_classifiers")
    parser.add_argument("--strengths", default="0,0.25,0.5,0.75,1,1.25", help="by comma; with 0")
    given = parser.parse_args()
    if 0 not in map(float, given.strengths.split(",")):
        sys.exit(f"--strengths: got {given.strengths}, without 0, the start; want it among them")
    set_places(given)
    out, status = Path(given.out).resolve(), 0
    trained = [out / NAME / f"seed{seed}" for seed in given.seeds.split(",")]
    home = out / "strengths"
    if missing := [one.name for one in trained if not (one / "train" / "summary.json").is_file()]:
        first = "python -m recipes.headline.run --task summary"
        sys.exit(f"{out / NAME}: {', '.join(missing)} not finished; first: {first}")
    if not given.report:
        require_shared(given.shared)
        with_classifiers(given.models, given.shared)
        queue = evaluations(given.shared, trained, home, given.strengths)
        status = execute_all(queue, jobs=given.jobs, retry=given.retry)
    levels = by_strength(home)
    text = markdown(levels)
    (home / "table.md").write_text(text, encoding="utf-8")
    picture(levels, home / "picture.png")
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
