# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""One run by one process and by two: is it the same, and how fast is it?

    python -m recipes.processes.run [--processes 2] [--out runs/processes] [--set KEY=VALUE ...]

Each case runs `stage=detox` on the embedded miniature twice, on CPUs, one thread for each process:
by `python -m lora_detox`, and by torchrun. The table says by how much any weight of the adapter and
any number of metrics.jsonl differ at most, and how many responses an iteration makes per second.
Finished runs are not run again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

RLOO = "algorithm=rloo algorithm.responses_per_prompt=2 budget=off"
CASES = {
    "GPT-J, PPO, budget": "task=gptj_continuation",
    "T5, PPO, budget": "task=flan_summary",
    "GPT-J, RLOO": f"task=gptj_continuation {RLOO}",
    "T5, RLOO": f"task=flan_summary {RLOO}",
}
SIZE = [
    "adapter.targets=[]",
    "device=cpu",
    "threads=1",
    "algorithm.iterations=4",
    "evaluation.validation_prompts=16",
    "evaluation.test_prompts=16",
    "evaluation.audit=null",
    "budget.controller.start_rollouts=1",
    "checkpoint.every=0",
]
PHASES = ("generate", "reference", "score", "update")


def run_case(overrides: list[str], folder: Path, count: int) -> None:
    """Run a case by so many processes, unless its folder holds the result."""
    if (folder / "summary.json").exists():
        return
    start = [sys.executable, "-m"]
    if count > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(count), "-m"]
    command = [*start, "lora_detox", *overrides, f"hydra.run.dir={folder}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl that an iteration has written."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["iteration"]]


def samples_per_second(folder: Path, responses: int) -> float:
    """Responses over the seconds of the four phases, of all iterations but the first."""
    rows = rows_of(folder)[1:]
    seconds = sum(row[f"seconds_{phase}"] for row in rows for phase in PHASES)
    return responses * len(rows) / seconds


def weight_difference(one: Path, other: Path) -> float:
    """Largest difference of any weight of two adapters."""
    name = "adapter/adapter_model.safetensors"
    left, right = load_file(one / name), load_file(other / name)
    return max(float((left[key] - right[key]).abs().max()) for key in left)


def metric_difference(one: Path, other: Path) -> float:
    """Largest difference of any number of metrics.jsonl but those of a clock."""
    return max(
        abs(value - theirs[key])
        for mine, theirs in zip(rows_of(one), rows_of(other), strict=True)
        for key, value in mine.items()
        if isinstance(value, float) and not key.startswith("seconds")
    )


def responses_of(folder: Path) -> int:
    """Responses of an iteration."""
    lines = (folder / "config.yaml").read_text().splitlines()
    (line,) = (one for one in lines if one.strip().startswith("rollout_batch_size:"))
    return int(line.rpartition(":")[2])


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", default="runs/processes", help="folder of the runs")
    parser.add_argument("--set", nargs="*", default=[], help="further overrides of every run")
    parser.add_argument("--only", nargs="*", default=list(CASES), help="some of the cases")
    options = parser.parse_args()
    many = options.processes
    print(f"| case | weights differ by | metrics differ by | samples/s, 1 | samples/s, {many} |")
    print("|---|---|---|---|---|")
    for name in options.only:
        place = Path(options.out).resolve() / name.replace(", ", "_").lower()
        one, other = place / "1", place / str(many)
        for folder, count in ((one, 1), (other, many)):
            run_case([*CASES[name].split(), *SIZE, *options.set], folder, count)
        speeds = [samples_per_second(folder, responses_of(folder)) for folder in (one, other)]
        print(
            f"| {name} | {weight_difference(one, other):.1e} | {metric_difference(one, other):.1e} "
            f"| {speeds[0]:.1f} | {speeds[1]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
