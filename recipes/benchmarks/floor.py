# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""How fast could an iteration be? Its multiplications, at the rate of this machine's best product.

    python -m recipes.benchmarks.floor [recipes/benchmarks/workloads/NAME.json ...]

Counts the floating point operations of one iteration of our side (matrix products only, as torch
counts them), measures what a large product of each dtype reaches with all threads, and divides. No
program that does the same mathematics on this machine can be faster than that floor. Beside it
stand the seconds that results.json measured for us and for the peer, where it has the workload, and
the ratio that the floor allows.
"""

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from recipes.benchmarks.counting import Counter
from recipes.benchmarks.iteration import build_policy, measure

HERE = Path(__file__).resolve().parent
SIZE, REPEATS = 2048, 12


def best_rate(dtype: torch.dtype) -> float:
    """Most operations per second of a large square product."""
    left, right = torch.randn(2, SIZE, SIZE).to(dtype)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(seconds)


def operations(work: dict[str, Any], *, frozen: bool) -> int:
    """Of one iteration; the same in every dtype."""
    policy = build_policy(work, dtype=torch.bfloat16, frozen=frozen)
    with Counter([]) as counter:
        measure(work, policy, 0)
    return counter.counts.flops


def main() -> None:
    """One line per workload and variant."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", type=Path)
    given = parser.parse_args()
    files = given.workloads or sorted((HERE / "workloads").glob("*.json"))
    measured = json.loads((HERE / "results.json").read_text())
    rates = {name: best_rate(getattr(torch, name)) for name in ("float32", "bfloat16")}
    print({name: f"{rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items()})
    for file in files:
        work = json.loads(file.read_text())
        sides, size = measured.get(work["name"], {}), work["rollout_batch_size"]
        for frozen in (False, True):
            count = operations(work, frozen=frozen)
            for dtype, rate in rates.items():
                variant = dtype + (" frozen" if frozen else "")
                floor = count / rate
                line = f"{work['name']}, {variant}: {count / 1e12:.2f} TFLOP, floor {floor:.1f} s"
                if variant in sides:
                    line += f", ours {size / sides[variant]['samples_per_second']:.1f} s"
                if "peer" in sides:
                    peer = size / sides["peer"]["samples_per_second"]
                    line += f", peer {peer:.1f} s: at most {peer / floor:.1f}x"
                print(line)


if __name__ == "__main__":
    main()
