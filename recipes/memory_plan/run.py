# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Predicted against measured peak memory of short runs.

    python -m recipes.memory_plan.run [--only NAME ...] [--again]

Each case runs `stage=plan` and then a short `stage=detox` with the same settings, each in a fresh
process on one thread, and compares the prediction with `peak_memory_bytes` of summary.json (on a
CPU the largest resident set of the process). Results go to results.json beside this file; with
`--again` only the predictions are made anew, and compared with the measurements there.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from recipes.lab.process import ROOT, run_stage
from recipes.lab.random_models import write_model, write_prompts

STORED = Path(__file__).with_name("results.json")
LAB = ROOT.parent / "shared" / "lab"
SHORT_RUN = [
    "adapter.targets=[]",
    "threads=1",
    "algorithm.iterations=1",
    "algorithm.ppo_epochs=1",
    "evaluation.validation_prompts=2",
    "evaluation.test_prompts=8",
    "checkpoint.every=0",
]
MIB = 2**20
T5, GPT, FP32 = "task=flan_summary", "task=gptj_continuation", "policy.dtype=float32"


def rows(rollout: int, micro: int) -> str:
    """Batch sizes."""
    sizes = {"rollout": rollout, "mini": rollout, "micro": micro}
    return " ".join(
        f"algorithm.{name}{'_' if name == 'rollout' else ''}batch_size={size}"
        for name, size in sizes.items()
    )


CASES = {
    "miniature T5, fp32": (None, None, T5),
    "miniature GPT-J, fp32, microbatch 64": (None, None, f"{GPT} {rows(64, 64)}"),
    "lab T5, bf16": ("lab:t5-summary", None, f"{T5} policy.dtype=bfloat16 {rows(32, 32)}"),
    "lab GPT-J, nf4": ("lab:gptj-comments", None, f"{GPT} quantization=nf4 {rows(64, 32)}"),
    "flan-t5-small, fp32, long": ("flan_t5_small", "long", f"{T5} {FP32} {rows(8, 8)}"),
    "flan-t5-small, fp32, long, microbatch 2": (
        "flan_t5_small",
        "long",
        f"{T5} {FP32} {rows(8, 2)}",
    ),
    "flan-t5-small, bf16, decoder scope, long": (
        "flan_t5_small",
        "long",
        f"{T5} policy.dtype=bfloat16 adapter.scope=decoder {rows(8, 8)}",
    ),
    "flan-t5-small, int8, long": ("flan_t5_small", "long", f"{T5} quantization=int8 {rows(8, 8)}"),
    "gpt-neo-125m, fp32, short": ("gpt_neo_125m", "short", f"{GPT} {FP32} {rows(16, 16)}"),
    "gpt-neo-125m, nf4, short": ("gpt_neo_125m", "short", f"{GPT} quantization=nf4 {rows(16, 16)}"),
    "gpt-neo-125m, fp32, last_4, long": (
        "gpt_neo_125m",
        "long",
        f"{GPT} {FP32} adapter.scope=last_4 {rows(8, 4)}",
    ),
    "gpt2-medium, bf16, checkpointing, long": (
        "gpt2_medium",
        "long",
        f"{GPT} policy.dtype=bfloat16 policy.gradient_checkpointing=true {rows(4, 4)}",
    ),
}


def overrides_of(case: tuple[str | None, str | None, str], folder: Path) -> list[str] | None:
    """Overrides of a case; None where its model is not here."""
    model, prompts, text = case
    overrides = [*text.split(), *SHORT_RUN]
    if model is not None and model.startswith("lab:"):
        place = LAB / model.removeprefix("lab:")
        if not place.is_dir():
            return None
        overrides += ["policy=local", f"policy.path={place}"]
    elif model is not None:
        overrides += ["policy=local", f"policy.path={write_model(model, folder)}"]
    if prompts is not None:
        overrides += ["data=local", f"data.path={write_prompts(prompts, folder)}"]
    return overrides


def compare(overrides: list[str], folder: Path, measured: int | None) -> dict[str, Any]:
    """Predict, run unless it is measured already, and put both beside each other; bytes."""
    plan = run_stage(["stage=plan", *overrides], folder / "plan", threads=1)
    if measured is None:
        measured = run_stage(overrides, folder / "run", threads=1)["peak_memory_bytes"]
    predicted, base = plan["total_bytes"], plan["stays"]["libraries"]
    return {
        "measured": measured,
        "predicted": predicted,
        "error": predicted / measured - 1,
        "error_without_libraries": (predicted - base) / max(1, measured - base) - 1,
        "peak_phase": plan["peak_phase"],
    }


def main() -> None:
    """All cases, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="parts of the names of the cases to run")
    parser.add_argument("--again", action="store_true", help="keep what was measured")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(STORED.read_text()) if STORED.is_file() else {}
    print("| case | measured, MiB | predicted, MiB | error | beyond the libraries | peak in |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for place, (name, case) in enumerate(CASES.items()):
            if options.only and not any(part in name for part in options.only):
                continue
            overrides = overrides_of(case, Path(temporary))
            if overrides is None:
                print(f"| {name} | its model is not here | | | | |")
                continue
            measured = results[name]["measured"] if options.again else None
            row = compare(overrides, Path(temporary) / str(place), measured)
            results[name] = row
            print(
                f"| {name} | {row['measured'] / MIB:.0f} | {row['predicted'] / MIB:.0f} "
                f"| {row['error']:+.1%} | {row['error_without_libraries']:+.1%} "
                f"| {row['peak_phase']} |",
                flush=True,
            )
            STORED.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
