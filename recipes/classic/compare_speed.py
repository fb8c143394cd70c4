# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Seconds of the same old program on TRL 0.11.4 and on lora_detox.classic, run in turn.

    bash ../shared/peers/setup_trl_classic.sh VENV
    python -m recipes.classic.compare_speed --peer-python VENV/bin/python \
        --program ../shared/peers/trl_classic_step.py ../shared/peers/workloads/*.json

The program's text is the peer's; for our side its `trl` import is replaced, and a T5 built from a
configuration gets its own output matrix, which Transformers 4 gives it anyway. The peer also runs
with ACCELERATE_MIXED_PRECISION=bf16, and our side with `no`: without the variable it keeps frozen
weights in bf16 where the CPU has it. `--clock cpu` counts processor time of one thread instead of
wall time, for machines that are not idle.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RUNS = (("trl", None), ("classic", None), ("trl", "bf16"), ("classic", "no"))
"""Side and what ACCELERATE_MIXED_PRECISION says."""

UNTIED = """
import torch.nn as _nn
import transformers as _transformers


class _Untied(_transformers.T5ForConditionalGeneration):
    def __init__(self, config):
        super().__init__(config)
        self.lm_head = _nn.Linear(config.d_model, config.vocab_size, bias=False)


_transformers.T5ForConditionalGeneration = _Untied
"""


def our_text(text: str) -> str:
    """The peer's program on the classic interface."""
    changed = text.replace("from trl import", "from lora_detox.classic import")
    if changed == text:
        raise SystemExit("the program has no `from trl import` line")
    marker = "import torch\n"
    return changed.replace(marker, marker + UNTIED, 1)


def run(python: str, program: Path, workload: Path, threads: int, precision: str | None) -> dict:
    """One run of a program; its last line is JSON."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    environment.pop("ACCELERATE_MIXED_PRECISION", None)
    if precision is not None:
        environment["ACCELERATE_MIXED_PRECISION"] = precision
    result = subprocess.run(
        [python, "-W", "ignore", str(program), str(workload)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise SystemExit(result.stderr[-2000:])
    return json.loads(result.stdout.strip().splitlines()[-1])


def median(runs: list[dict], key: str) -> float:
    """Median of a figure over the runs of one side."""
    return statistics.median(run[key] for run in runs)


def compare(args: argparse.Namespace, workload: Path, folder: Path) -> dict:
    """Both sides on one workload, in turn."""
    text = Path(args.program).read_text()
    if args.clock == "cpu":
        text = text.replace("perf_counter", "process_time")
    work = json.loads(workload.read_text())
    if args.iterations:
        work["iterations"] = args.iterations
    job = folder / workload.name
    job.write_text(json.dumps(work))
    sides = {"trl": (args.peer_python, text), "classic": (sys.executable, our_text(text))}
    runs: dict[str, list[dict]] = {}
    for name, (_, own) in sides.items():
        (folder / f"run_{name}.py").write_text(own)
    for _ in range(args.rounds):
        for name, precision in RUNS[:2] if args.unchanged else RUNS:
            label = name if precision is None else f"{name} {precision}"
            python = sides[name][0]
            done = run(python, folder / f"run_{name}.py", job, args.threads, precision)
            runs.setdefault(label, []).append(done)
    result: dict = {"workload": work["name"], "clock": args.clock, "threads": args.threads}
    for key in ("generate", "step", "peak_rss_mb"):
        result[key] = {label: round(median(of_side, key), 2) for label, of_side in runs.items()}
    total = {label: result["generate"][label] + result["step"][label] for label in runs}
    result["times_faster_than_trl"] = {
        label: round(total["trl"] / seconds, 2) for label, seconds in total.items()
    }
    return result


def main() -> None:
    """Print one JSON line per workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="python of the TRL 0.11.4 environment")
    parser.add_argument("--program", required=True, help="the peer's trl_classic_step.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=0, help="0 for the workload's own number")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--unchanged", action="store_true", help="without the variable only")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("workloads", nargs="+", type=Path)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5 and args.clock == "wall":
        print(f"the machine is busy (load {load:.1f}): wall times mean little", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        for workload in args.workloads:
            print(json.dumps(compare(args, workload, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
