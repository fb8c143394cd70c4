# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Does a run that was killed again and again end as if nothing had happened?

    .venv/bin/python -m recipes.benchmarks.kills [--kills 20] [--out runs/kills]

For each family in fp32 and bf16 a run of the miniature is killed (SIGKILL) so many times, every
second time while a checkpoint is being written, and resumed after each. At its end the adapter, the
value head, samples, metrics and summary are compared with those of a run that nobody disturbed, bit
by bit. Gradients are accumulated, the budget, the collapse guard and the average of weights are on.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from lora_detox import api
from lora_detox.report.jsonl import write_json_atomic
from recipes.lab.tables import markdown_table

ITERATIONS = 30
FAMILIES = {"encoder-decoder": "flan_summary", "decoder-only": "gptj_continuation"}
DTYPES = ("float32", "bfloat16")
OPTIONS = [
    f"algorithm.iterations={ITERATIONS}",
    "algorithm.rollout_batch_size=8",
    "algorithm.minibatch_size=4",
    "algorithm.microbatch_size=2",
    "algorithm.ppo_epochs=2",
    "algorithm.schedule=linear",
    "algorithm.average=0.8",
    "adapter.dropout=0.1",
    "budget.words=[1.0,1.0]",
    "evaluation.every=3",
    "evaluation.validation_prompts=8",
    "evaluation.test_prompts=8",
    "checkpoint.every=1",
    "checkpoint.keep=3",
    "threads=1",
]
KEPT = ("before", "after", "change", "ref_kl", "parameters", "stopped", "budget", "guard")
WRITING, ANYWHERE = "while a checkpoint is written", "anywhere"


def main() -> None:
    """Kill, resume, compare; print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each family and dtype")
    parser.add_argument("--out", default="runs/kills", help="emptied first")
    given = parser.parse_args()
    out = Path(given.out)
    shutil.rmtree(out, ignore_errors=True)
    rows = []
    for family, task in FAMILIES.items():
        for dtype in DTYPES:
            row = {"family": family, "dtype": dtype}
            options = [f"task={task}", f"policy.dtype={dtype}", *OPTIONS]
            rows.append(row | killed_and_resumed(options, out / f"{task}_{dtype}", given.kills))
            print(json.dumps(rows[-1]), flush=True)
    write_json_atomic(out / "kills.json", {"iterations": ITERATIONS, "rows": rows})
    print(table(rows))
    sys.exit(0 if all(not row["differs"] for row in rows) else 1)


def table(rows: list[dict[str, Any]]) -> str:
    """One line for each family and dtype."""
    heads = ["family", "dtype", "kills", WRITING, "torn checkpoints left", "runs", "differs"]
    cells = [
        [
            row["family"],
            row["dtype"],
            str(row["kills"]),
            str(row["while_writing"]),
            str(row["torn"]),
            str(row["runs"]),
            ", ".join(row["differs"]) or "nothing",
        ]
        for row in rows
    ]
    return markdown_table(heads, cells)


def killed_and_resumed(options: list[str], folder: Path, kills: int) -> dict[str, Any]:
    """Kill runs of one kind until there were so many kills, and let the last one end.

    Args:
        options: overrides of the run.
        folder: of the runs.
        kills: how many.

    Returns:
        Counts, and the parts of a result that differ from the undisturbed run's.
    """
    folder.mkdir(parents=True)
    begin = time.monotonic()
    _run(options, folder / "whole")
    iteration_seconds = (time.monotonic() - begin) / ITERATIONS
    whole = result_of(folder / "whole")
    draws, moments, torn, runs = random.Random(0), list[str](), 0, 0
    differs: set[str] = set()
    while len(moments) < kills:
        runs += 1
        run_dir = folder / f"killed{runs}"
        while len(moments) < kills and not _is_whole(run_dir):
            moment = (WRITING, ANYWHERE)[len(moments) % 2]
            wait = draws.uniform(0, 0.003 if moment is WRITING else 2 * iteration_seconds)
            if _begin_and_kill(options, run_dir, moment, wait):
                moments.append(moment)
                torn += bool(list(run_dir.glob("checkpoints/.part-*")))
        if not _is_whole(run_dir):
            _run([*options, "resume=true"], run_dir)
        resumed = result_of(run_dir)
        differs |= {part for part, value in whole.items() if resumed[part] != value}
    return {
        "kills": len(moments),
        "while_writing": moments.count(WRITING),
        "torn": torn,
        "runs": runs,
        "differs": sorted(differs),
        "seconds": round(time.monotonic() - begin, 1),
    }


def result_of(run_dir: Path) -> dict[str, Any]:
    """Everything of a finished run that time has no part in."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    summary = json.loads((run_dir / "summary.json").read_text())
    head = run_dir / "value_head.safetensors"
    return {
        "adapter": (run_dir / "adapter" / "adapter_model.safetensors").read_bytes(),
        "value head": head.read_bytes() if head.is_file() else None,
        "samples": (run_dir / "samples.jsonl").read_bytes(),
        "metrics": [
            {key: value for key, value in json.loads(line).items() if "seconds" not in key}
            for line in lines
        ],
        "summary": {key: _without_seconds(summary[key]) for key in KEPT},
    }


def _without_seconds(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_seconds(one) for key, one in value.items() if "seconds" not in key}


def _is_whole(run_dir: Path) -> bool:
    return (run_dir / "summary.json").exists()


def _begin_and_kill(options: list[str], run_dir: Path, moment: str, wait: float) -> bool:
    """Begin a run or go on with it, and kill it some time after its next checkpoint.

    Returns:
        Whether it was alive when it was killed.
    """
    had = set(run_dir.glob("checkpoints/iteration_*"))
    process = multiprocessing.get_context("fork").Process(
        target=_run, args=([*options, "resume=true"] if had else options, run_dir)
    )
    process.start()
    while process.is_alive() and set(run_dir.glob("checkpoints/iteration_*")) <= had:
        time.sleep(0.005)
    if moment is WRITING:
        while process.is_alive() and not list(run_dir.glob("checkpoints/.part-*")):
            pass  # it is there for some milliseconds
    time.sleep(wait)
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive and not _is_whole(run_dir)


def _run(options: list[str], run_dir: Path) -> None:
    """A run in a process of its own where it is called by one, without its output."""
    log = os.open(run_dir.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    kept = [os.dup(stream) for stream in (1, 2)]
    try:
        for stream in (1, 2):
            os.dup2(log, stream)
        api.run(options, run_dir)
    finally:
        for stream, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
        os.close(log)


if __name__ == "__main__":
    main()
