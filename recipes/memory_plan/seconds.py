# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Predicted against measured seconds of an iteration: python -m recipes.memory_plan.seconds.

Each case runs `stage=plan` and then three iterations of `stage=detox` with the same settings, each
in a fresh process on one thread; the first iteration, in which kernels are prepared, is left out.
Results go to seconds.json beside this file. Nothing else may run meanwhile.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from recipes.lab.process import run_stage
from recipes.memory_plan.run import CASES, overrides_of

STORED = Path(__file__).with_name("seconds.json")
ITERATIONS = 3
LONGER = [f"algorithm.iterations={ITERATIONS}", "algorithm.ppo_epochs=2", "budget=off"]
PHASES = ("generate", "reference", "score", "update")


def measured_seconds(overrides: list[str], folder: Path) -> dict[str, float]:
    """Median seconds of an iteration by phase, the first left out."""
    run_stage(overrides, folder, threads=1)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["iteration"] > 1]
    return {
        phase: statistics.median(row.get(f"seconds_{phase}", 0.0) for row in rows)
        for phase in PHASES
    }


def compare(overrides: list[str], folder: Path) -> dict[str, Any]:
    """Predict, run, and put both beside each other."""
    plan = run_stage(["stage=plan", *overrides], folder / "plan", threads=1)["seconds"]
    measured = measured_seconds(overrides, folder / "run")
    predicted = {phase: plan["phases"][phase] for phase in PHASES}
    whole = sum(measured.values())
    return {
        "measured": measured,
        "predicted": predicted,
        "layers_timed": plan["layers_timed"],
        "error": sum(predicted.values()) / whole - 1,
    }


def main() -> None:
    """All cases, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="parts of the names of the cases to run")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(STORED.read_text()) if STORED.is_file() else {}
    print("| case | measured, s | predicted, s | error | layers timed |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for place, (name, case) in enumerate(CASES.items()):
            if options.only and not any(part in name for part in options.only):
                continue
            overrides = overrides_of(case, Path(temporary))
            if overrides is None:
                print(f"| {name} | its model is not here | | | |")
                continue
            row = compare([*overrides, *LONGER], Path(temporary) / str(place))
            results[name] = row
            sums = (sum(row[kind].values()) for kind in ("measured", "predicted"))
            seconds = " | ".join(f"{one:.2f}" for one in sums)
            print(
                f"| {name} | {seconds} | {row['error']:+.0%} | {row['layers_timed']} |", flush=True
            )
            STORED.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
