# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Seconds per sample of one PPO iteration against batch, lengths and size, with a floor beside it.

    python -m recipes.benchmarks.curves [--quick] [--dtype bfloat16] [--threads 1]

Four curves start from one point (BASE) and change one thing each. A point is one iteration of the
arrow (iteration.py: generation, reference, one PPO epoch) after one that warms up, on random
weights in GPT-Neo's shapes. The floor is the time of the matrix products that the iteration cannot
do without, at the speed that this machine reaches in one large product. On one thread seconds are
the process's CPU seconds, which other work on the machine does not lengthen much; on more they are
wall seconds. Writes curves.json and curves.svg.
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from lora_detox.report.plots import styled_figure
from recipes.benchmarks.iteration import build_policy, measure

HERE = Path(__file__).resolve().parent
VOCABULARY = 50257
MODELS = {"30M": (384, 6), "60M": (512, 10), "125M": (768, 12), "350M": (1024, 24)}
"""Parameters, embeddings included -> width and layers."""
BASE: dict[str, Any] = {"batch": 8, "prompt": 64, "response": 16, "model": "30M"}
CURVES: dict[str, list[Any]] = {
    "batch": [8, 24, 64],
    "prompt": [64, 192, 512],
    "response": [16, 48, 128],
    "model": ["30M", "125M", "350M"],
}
QUICK: dict[str, list[Any]] = {
    "batch": [8, 16],
    "prompt": [64, 128],
    "response": [16, 32],
    "model": ["30M", "60M"],
}
LABELS = {
    "batch": "rollout batch, samples",
    "prompt": "prompt, tokens",
    "response": "response, tokens",
    "model": "model, million parameters",
}
PPO_EPOCHS = 1


def workload(point: dict[str, Any]) -> dict[str, Any]:
    """A workload of iteration.py at one point."""
    width, layers = MODELS[point["model"]]
    return {
        "name": "curves",
        "family": "gpt_neo",
        "config": {
            "vocab_size": VOCABULARY,
            "hidden_size": width,
            "num_layers": layers,
            "num_heads": width // 64,
            "attention_types": [[["global"], layers]],
            "max_position_embeddings": 1024,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "pad_token_id": 0,
        },
        "adapter": {"rank": 16, "alpha": 32, "targets": ["q_proj", "v_proj"]},
        "query_tokens": [point["prompt"]] * 2,
        "response_tokens": point["response"],
        "rollout_batch_size": point["batch"],
        "minibatch_size": 8,
        "ppo_epochs": PPO_EPOCHS,
        "learning_rate": 1.41e-5,
    }


def floor_flop(point: dict[str, Any]) -> float:
    """Floating-point operations per sample of the matrix products of one iteration.

    A token costs 2 x 12 d^2 per layer and 2 x 2 d per layer and token before it (half of all pairs,
    as attention is causal); a distribution costs 2 d V. Generating reads Q + R tokens once, scoring
    reads them twice (policy and reference), and an epoch twice (forward, and backward to the
    activations only, as the weights are frozen). Distributions are needed at R positions.

    Args:
        point: prompt length Q, response length R and model.

    Returns:
        Operations per sample.
    """
    width, layers = MODELS[point["model"]]
    tokens, response = point["prompt"] + point["response"], point["response"]
    trunk = layers * (2 * 12 * width**2 * tokens + 2 * 2 * width * tokens**2 / 2)
    head = 2 * width * VOCABULARY * response
    return (1 + 2 + 2 * PPO_EPOCHS) * (trunk + head)


def clock() -> float:
    """CPU seconds of this process on one thread, wall seconds on more."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def machine_speed(dtype: torch.dtype) -> float:
    """Operations per second in a product of [2048, 1024] and [1024, 4096]; the best of ten."""
    left, right = torch.randn(2048, 1024, dtype=dtype), torch.randn(4096, 1024, dtype=dtype)
    seconds = []
    for _ in range(11):
        begin = clock()
        torch.nn.functional.linear(left, right)
        seconds.append(clock() - begin)
    return 2 * 2048 * 1024 * 4096 / min(seconds[1:])


def run_point(point: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Measure one point; seconds per sample, by phase and in all."""
    work = workload(point)
    policy = build_policy(work, dtype=dtype, frozen=False)
    phases = {
        name: statistics.median(seconds) / point["batch"]
        for name, seconds in measure(work, policy, 1, clock).items()
    }
    return {**point, "seconds_per_sample": sum(phases.values()), "phases": phases}


def measure_curves(
    values_of: dict[str, list[Any]], dtype: torch.dtype, speed: float
) -> dict[str, list[dict[str, Any]]]:
    """Measure every point once, also where curves cross.

    Args:
        values_of: curve -> its values.
        dtype: of the weights.
        speed: operations per second of the machine, for the floor.

    Returns:
        Curve -> rows of `run_point` with `floor_seconds`.
    """
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, values in values_of.items():
        for value in values:
            point = {**BASE, name: value}
            key = tuple(point.values())
            if key not in known:
                row = run_point(point, dtype)
                known[key] = {**row, "floor_seconds": floor_flop(point) / speed}
            row = known[key]
            curves.setdefault(name, []).append(row)
            print(
                f"{name:9s} {value!s:>5s}  {1000 * row['seconds_per_sample']:8.1f} ms per sample, "
                f"floor {1000 * row['floor_seconds']:7.1f} ms",
                flush=True,
            )
    return curves


def draw(results: dict[str, Any], file: Path) -> None:
    """Four panels, measured and floor, both axes logarithmic."""
    figure, panels = styled_figure(len(CURVES), (14.0, 3.3))
    every = [row for rows in results["curves"].values() for row in rows]
    lowest = 1000 * min(row["floor_seconds"] for row in every)
    highest = 1000 * max(row["seconds_per_sample"] for row in every)
    for axes, (name, rows) in zip(panels, results["curves"].items(), strict=True):
        places = [float(str(row[name]).removesuffix("M")) for row in rows]
        milliseconds = [1000 * row["seconds_per_sample"] for row in rows]
        floors = [1000 * row["floor_seconds"] for row in rows]
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.plot(places, milliseconds, color="#3b82f6", marker="o", ms=4, label="measured")
        axes.plot(places, floors, color="#e8710a", ls="--", marker="o", ms=3, label="floor")
        axes.set_xticks(places, [f"{place:.0f}" for place in places])
        axes.minorticks_off()
        axes.set_xlabel(LABELS[name])
        axes.set_ylim(lowest / 2, 2 * highest)
    panels[0].set_ylabel("milliseconds per sample")
    panels[0].legend(frameon=False, fontsize=9)
    figure.savefig(file, facecolor="white", metadata={"Date": None})


def main() -> None:
    """Measure every point once, draw, keep."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two points per curve")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of curves.json and .svg")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    speed = machine_speed(dtype)
    print(f"{speed / 1e9:.0f} GFLOP/s in a large {options.dtype} product", flush=True)
    curves = measure_curves(QUICK if options.quick else CURVES, dtype, speed)
    results = {
        "dtype": options.dtype,
        "threads": options.threads,
        "seconds": "cpu" if options.threads == 1 else "wall",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gflop_per_second": speed / 1e9,
        "ppo_epochs": PPO_EPOCHS,
        "curves": curves,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "curves.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(results, options.out / "curves.svg")


if __name__ == "__main__":
    main()
