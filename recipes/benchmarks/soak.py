# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Does a long run grow? Memory, open files and rows of metrics over thousands of iterations.

    python -m recipes.benchmarks.soak [--iterations 2000] [--task gptj_continuation] [--out FOLDER]

Trains the tiny random model of debug=smoke in a process of its own and reads, a few times a second,
its resident memory and open descriptors out of /proc (Linux alone), and how many rows its
metrics.jsonl has. The slope is that of a straight line through what was read after iteration 200,
where caches and the allocator's heaps have found their size. Evaluations and checkpoints take
place every 50 iterations. Writes soak.json and soak.svg.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from lora_detox.report.plots import styled_figure
from recipes.lab.process import ROOT, environment

HERE = Path(__file__).resolve().parent
SETTLED = 200
"""Iterations that a process takes to find its size."""
GOAL = 1024
"""Bytes per iteration that it may grow by afterwards."""
SECONDS = 0.5
OVERRIDES = [
    "debug=smoke",
    "threads=1",
    "device=cpu",
    "algorithm.learning_rate=1e-6",  # a random model has nothing to learn; it may not diverge
    "budget=off",
    "checkpoint.every=50",
    "evaluation.every=50",
    "evaluation.validation_prompts=8",
    "evaluation.test_prompts=8",
    "evaluation.resamples=20",
    "generation.response_tokens=[4,8]",
    "data.limit=60",
]


def rows_of(file: Path) -> int:
    """Whole lines of a file; 0 where there is none."""
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def reading(process: int, run_dir: Path) -> dict[str, int]:
    """Iteration, resident bytes and open descriptors of a process that trains."""
    status = Path(f"/proc/{process}")
    pages = int((status / "statm").read_text().split()[1])
    return {
        "iteration": max(0, rows_of(run_dir / "metrics.jsonl") - 1),  # the first is of the start
        "resident": pages * os.sysconf("SC_PAGE_SIZE"),
        "descriptors": len(os.listdir(status / "fd")),
    }


def soak(iterations: int, task: str, run_dir: Path) -> list[dict[str, int]]:
    """Train, and read every iteration that is met.

    Args:
        iterations: how many there are.
        task: of the run.
        run_dir: where it is written.

    Returns:
        Readings in order, the first of each iteration.

    Raises:
        SystemExit: the run failed, with what it wrote last.
    """
    overrides = [*OVERRIDES, f"task={task}", f"algorithm.iterations={iterations}"]
    command = [sys.executable, "-m", "lora_detox", *overrides, f"hydra.run.dir={run_dir}"]
    readings: list[dict[str, int]] = []
    with tempfile.TemporaryFile("w+") as written:
        with subprocess.Popen(
            command, cwd=ROOT, env=environment(1), stdout=written, stderr=subprocess.STDOUT
        ) as process:
            while process.poll() is None:
                time.sleep(SECONDS)
                try:
                    now = reading(process.pid, run_dir)
                except (FileNotFoundError, ProcessLookupError, IndexError):
                    break  # it has just ended
                if not readings or now["iteration"] > readings[-1]["iteration"]:
                    readings.append(now)
        if process.returncode:
            written.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{written.read()[-2000:]}")
    return readings


def slope(readings: list[dict[str, int]], name: str) -> float:
    """Least-squares slope of a number over iterations, per iteration; 0 with fewer than two."""
    points = [(one["iteration"], one[name]) for one in readings]
    if len(points) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def summary(readings: list[dict[str, int]], iterations: int, run_dir: Path) -> dict[str, Any]:
    """What came of it; readings of the end, which evaluates and reports, are left out."""
    late = [one for one in readings if min(SETTLED, iterations // 2) <= one["iteration"]]
    late = [one for one in late if one["iteration"] < iterations]
    rows = [json.loads(line)["iteration"] for line in (run_dir / "metrics.jsonl").open()]
    descriptors = {one["descriptors"] for one in late}
    return {
        "iterations": iterations,
        "readings": len(late),
        "bytes_per_iteration": round(slope(late, "resident"), 1),
        "goal": GOAL,
        "descriptors": [min(descriptors, default=0), max(descriptors, default=0)],
        "descriptors_per_iteration": round(slope(late, "descriptors"), 5),
        "rows_complete": rows == list(range(iterations + 1)),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def draw(readings: list[dict[str, int]], result: dict[str, Any], path: Path) -> None:
    """Resident memory over iterations; that of loading is left out."""
    readings = [one for one in readings if one["iteration"] > 0]
    figure, (axes,) = styled_figure(1, (7.0, 3.0))
    x = [one["iteration"] for one in readings]
    resident = [one["resident"] / 2**20 for one in readings]
    axes.plot(x, resident, color="#3b82f6", linewidth=1)
    axes.set_xlabel("iteration")
    axes.set_ylabel("resident memory, MiB")
    title = f"{result['bytes_per_iteration']:,.0f} bytes per iteration after {SETTLED}"
    axes.set_title(title, fontsize=10)
    figure.savefig(path)


def main() -> None:
    """Run, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--task", default="gptj_continuation")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        readings = soak(options.iterations, options.task, run_dir)
        result = summary(readings, options.iterations, run_dir)
    kept = [{name: one[name] for name in ("iteration", "resident")} for one in readings[::4]]
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**result, "curve": kept}, indent=1)
    (options.out / "soak.json").write_text(text + "\n")
    draw(readings, result, options.out / "soak.svg")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
