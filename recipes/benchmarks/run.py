# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Our iteration, and the peer's where its environment is given, in turn; ratios of medians.

    make bench                          # our side only
    make bench PEER=DIR                 # DIR: virtual environment with TRL 0.11.4
    python -m recipes.benchmarks.run --peer DIR --rounds 3

The peer runs `../shared/peers/trl_classic_step.py` on its own workload file of the same name. Both
sides use all threads of the machine; let it be idle otherwise. Results go to results.json.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

from lora_detox.machine import has_bf16_tiles
from recipes.lab.process import ROOT, printed_json

HERE = Path(__file__).resolve().parent
PEERS = ROOT.parent / "shared" / "peers"
PHASES = ("generate", "reference", "update", "step")
VARIANTS = {
    "float32": [],
    "float32 unbounded": ["--unbounded"],
    "bfloat16": ["--dtype", "bfloat16"],
    "bfloat16 unbounded": ["--dtype", "bfloat16", "--unbounded"],
    "bfloat16 frozen": ["--dtype", "bfloat16", "--frozen"],
    "bfloat16 frozen unbounded": ["--dtype", "bfloat16", "--frozen", "--unbounded"],
}
TWO = " in two processes"
"""At the end of a variant: half of the rows each, with one thread."""
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]


def ours(name: str, variant: str, iterations: int) -> dict[str, Any]:
    """One process of our side."""
    two = variant.endswith(TWO)
    command = [sys.executable, *(TORCHRUN if two else ()), "-m", "recipes.benchmarks.iteration"]
    workload = str(HERE / "workloads" / f"{name}.json")
    options = [*VARIANTS[variant.removesuffix(TWO)], *(["--threads", "1"] if two else [])]
    return printed_json([*command, workload, "--iterations", str(iterations), *options])


def peers(name: str, environment: Path) -> dict[str, Any]:
    """One process of the peer."""
    script, workload = PEERS / "trl_classic_step.py", PEERS / "workloads" / f"{name}.json"
    if not script.is_file():
        raise SystemExit(f"{script} is not here; without it there is no peer to compare with")
    return printed_json([str(environment / "bin" / "python"), str(script), str(workload)])


def compare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All variants of a workload and the peer, in turn, several times."""
    chosen = options.variants.split(",") if options.variants else list(VARIANTS)
    if unknown := {one.removesuffix(TWO) for one in chosen} - set(VARIANTS):
        raise SystemExit(f"--variants: {', '.join(sorted(unknown))}; want some of {list(VARIANTS)}")
    runs: dict[str, list[dict[str, Any]]] = {}
    bound = json.loads((HERE / "workloads" / f"{name}.json").read_text())["microbatch_tokens"]
    for _ in range(options.rounds):
        for variant in chosen:
            if bound is None and "unbounded" in variant:
                continue
            runs.setdefault(variant, []).append(ours(name, variant, options.iterations))
        if options.peer is not None:
            runs.setdefault("peer", []).append(peers(name, options.peer))
    return {label: summary(of_side) for label, of_side in runs.items()}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and range of samples per second, median peak memory."""
    speeds = [run["samples_per_second"] for run in runs]
    return {
        "samples_per_second": statistics.median(speeds),
        "range": [min(speeds), max(speeds)],
        "peak_rss_mb": statistics.median(run["peak_rss_mb"] for run in runs),
        "phases": {name: runs[0][name] for name in PHASES if name in runs[0]},
    }


def main() -> None:
    """Print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=2, help="counted ones in each process")
    parser.add_argument("--workload", choices=("causal_125m", "seq2seq_small"))
    parser.add_argument(
        "--variants", help=f"some of ours, with commas; each may end with '{TWO.strip()}'"
    )
    options = parser.parse_args()
    names = [options.workload] if options.workload else ["causal_125m", "seq2seq_small"]
    results: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "bf16 tiles": has_bf16_tiles(),
        "python": platform.python_version(),
    }
    for name in names:
        results[name] = compare(name, options)
        peer = results[name].get("peer")
        print(f"\n{name}")
        for label, row in results[name].items():
            low, high = row["range"]
            line = (
                f"  {label:25s} {row['samples_per_second']:.3f} samples/s ({low:.3f} to {high:.3f})"
            )
            line += f", {row['peak_rss_mb']:.0f} MB"
            if peer and label != "peer":
                line += (
                    f", {row['samples_per_second'] / peer['samples_per_second']:.2f}x the peer's "
                    f"speed, {row['peak_rss_mb'] / peer['peak_rss_mb']:.2f}x its memory"
                )
            print(line)
    options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
