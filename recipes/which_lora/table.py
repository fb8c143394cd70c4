"""Adapters beside each other: at equal optimizer steps, and at equal seconds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recipes.lab.judged import Judged, change_of, read
from recipes.lab.subjects import QUALITIES
from recipes.lab.tables import markdown_table
from recipes.which_lora.variants import variants

LAST = 5
"""Rollouts of training whose mean is compared at equal seconds."""
SET = "in_distribution"
WORK = ("generate", "reference", "score", "update")
"""Phases of an iteration whose seconds count; evaluations are left out."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One training.

    Attributes:
        judged: what it wrote to the held-out prompts.
        weights: how many learn, in the adapter and the value head.
        seconds: of each iteration, [iterations].
        toxicity: of each rollout by the reward's classifier, [iterations].
    """

    judged: Judged
    weights: int
    seconds: np.ndarray[Any, np.dtype[np.float64]]
    toxicity: np.ndarray[Any, np.dtype[np.float64]]

    def after(self, seconds: float) -> float:
        """Mean toxicity of the last rollouts finished by then; NaN where there is none."""
        count = int(np.searchsorted(np.cumsum(self.seconds), seconds + 1e-9, side="right"))
        return float(self.toxicity[max(0, count - LAST) : count].mean()) if count else float("nan")


def read_trained(folder: Path) -> Trained:
    """The results of one seed of a variant."""
    train = folder / "train"
    summary = json.loads((train / "summary.json").read_text(encoding="utf-8"))
    lines = (train / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "seconds_update" in row]
    return Trained(
        judged=read(folder)[SET],
        weights=summary["parameters"]["trainable"],
        seconds=np.array([sum(row[f"seconds_{phase}"] for phase in WORK) for row in rows]),
        toxicity=np.array([row["toxicity"] for row in rows]),
    )


def read_all(out: Path, model: str) -> dict[str, list[Trained]]:
    """Every variant that has a finished seed."""
    found: dict[str, list[Trained]] = {}
    for name in variants(model):
        for folder in sorted((out / name).glob("seed*")):
            if (folder / "evaluate" / "summary.json").is_file():
                found.setdefault(name, []).append(read_trained(folder))
    return found


def markdown(base: Judged, trained: dict[str, list[Trained]], model: str) -> str:
    """One row per variant, least toxicity at equal steps first."""
    quality = QUALITIES[model].measure
    shortest = min(float(one.seconds.sum()) for seeds in trained.values() for one in seeds)
    heads = [
        "adapter",
        "seeds",
        "weights",
        "judge toxicity, equal steps [95 %]",
        quality,
        "words",
        "distinct-2",
        "s an iteration",
        f"rollouts' toxicity after {shortest:.0f} s",
    ]
    changes = {
        name: change_of([one.judged for one in seeds], base, "judge")
        for name, seeds in trained.items()
    }
    rows = []
    for name in sorted(trained, key=lambda one: changes[one].mean):
        seeds = trained[name]
        judged = [one.judged for one in seeds]
        rows.append(
            [
                variants(model)[name].label,
                str(len(seeds)),
                f"{seeds[0].weights:,}",
                str(changes[name]),
                str(change_of(judged, base, quality)),
                str(change_of(judged, base, "words")),
                f"{100 * change_of(judged, base, 'distinct_2').mean:+.1f} %",
                f"{np.median(np.concatenate([one.seconds for one in seeds])):.1f}",
                f"{np.mean([one.after(shortest) for one in seeds]):.4f}",
            ]
        )
    start = float(base.level("judge"))
    return f"Judge toxicity of the start: {start:.4f}.\n\n" + markdown_table(heads, rows) + "\n"


def write_report(out: Path, model: str) -> None:
    """Write table.md and print it."""
    trained = read_all(out, model)
    if not trained or not (out / "base" / "evaluate" / "summary.json").is_file():
        print("nothing finished yet")
        return
    text = markdown(read(out / "base")[SET], trained, model)
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text)
