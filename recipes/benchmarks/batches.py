# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Samples per second against responses of an iteration: python -m recipes.benchmarks.batches.

    python -m recipes.benchmarks.batches --peer DIR [--batches 64,128,512] [--peer-most 128]

The workloads with one PPO epoch and minibatches of 16 on both sides, which take turns; DIR is a
virtual environment with TRL 0.11.4 (peer_step.py). One iteration is counted after one that warms
up. Both sides use all threads of the machine; let it be idle otherwise. Results go to batches.json.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from recipes.benchmarks.run import HERE, VARIANTS
from recipes.lab.process import printed_json
from recipes.lab.tables import markdown_table

STORED = HERE / "batches.json"
MINIBATCH = 16


def sized(name: str, batch: int, folder: Path) -> str:
    """A copy of a workload file with so many responses an iteration, in a folder."""
    work = json.loads((HERE / "workloads" / f"{name}.json").read_text(encoding="utf-8"))
    work |= {"rollout_batch_size": batch, "minibatch_size": MINIBATCH, "ppo_epochs": 1}
    copy = folder / f"{name}.json"
    copy.write_text(json.dumps(work), encoding="utf-8")
    return str(copy)


def ours(workload: str, variant: str) -> dict[str, Any]:
    """One process of our side, with no bound on the tokens of a pass."""
    command = [sys.executable, "-m", "recipes.benchmarks.iteration", workload]
    return printed_json([*command, "--iterations", "1", *VARIANTS[variant]])


def peer(workload: str, environment: Path) -> dict[str, Any]:
    """One process of TRL 0.11.4."""
    command = [str(environment / "bin" / "python"), str(HERE / "peer_step.py"), workload]
    return printed_json([*command, "--iterations", "1"])


def table(results: dict[str, dict[str, Any]]) -> str:
    """One row per workload and batch."""
    rows = []
    for key, sides in results.items():
        name, batch = key.split("/")
        theirs = sides.get("TRL 0.11.4")
        for side, run in sides.items():
            speed = run["samples_per_second"]
            ratio = f"{speed / theirs['samples_per_second']:.2f}x" if theirs else ""
            rows.append([name, batch, side, f"{speed:.2f}", ratio, f"{run['peak_rss_mb']:.0f}"])
    return markdown_table(["workload", "batch", "side", "samples/s", "peer", "MB"], rows)


def main() -> None:
    """Every batch that is not in batches.json yet, then the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", default="64,128,512")
    parser.add_argument("--workloads", default="gptj_12_layers,flan_t5_base,smollm2_135m")
    parser.add_argument("--variants", default="float32 unbounded,bfloat16 unbounded")
    parser.add_argument("--peer", type=Path, help="environment of TRL 0.11.4")
    parser.add_argument("--peer-most", type=int, default=512, help="largest batch of the peer")
    given = parser.parse_args()
    results = json.loads(STORED.read_text()) if STORED.is_file() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for batch in map(int, given.batches.split(",")):
            for name in given.workloads.split(","):
                sides = results.setdefault(f"{name}/{batch}", {})
                workload = sized(name, batch, folder)
                for variant in given.variants.split(","):
                    if variant not in sides:
                        sides[variant] = ours(workload, variant)
                if given.peer and batch <= given.peer_most and "TRL 0.11.4" not in sides:
                    sides["TRL 0.11.4"] = peer(workload, given.peer)
                STORED.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
