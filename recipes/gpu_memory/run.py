# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Peak memory and samples per second of one PPO iteration of 16 prompts on a GPU, by quantization.

    python -m recipes.gpu_memory.run [--only gpt_j_6b:int8 ...] [--weights FOLDER] [--peer VENV]
    python -m recipes.gpu_memory.run --tiny --device cpu     # the same path, on a CPU

Random weights in the shapes of GPT-J 6B and flan-t5-xl are made on the device in bf16 and saved in
shards once; each case then loads them through the toolkit as a run does (bitsandbytes for int8 and
nf4), in a fresh process: two iterations, of which the second is timed. `--peer` names an
environment of TRL 0.11.4, whose iteration on the same weights (bf16, int8) follows each case.
Without a GPU only the predictions of `stage=plan` are made. Results go to
results.json beside this file (not with --tiny).
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig

from recipes.lab.process import run_stage
from recipes.lab.random_models import SPECIAL, write_prompts, write_tokenizer

HERE = Path(__file__).resolve().parent
GIB = 2**30
PROMPTS = 16
T5 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt_j_6b": {"model_type": "gptj", "vocab_size": 50400, "n_embd": 4096, "n_layer": 28}
    | {"n_head": 16, "rotary_dim": 64, **SPECIAL},
    "flan_t5_xl": {"model_type": "t5", "vocab_size": 32128, "d_model": 2048, "d_kv": 64}
    | {"d_ff": 5120, "num_layers": 24, "num_heads": 32, "pad_token_id": 0, "eos_token_id": 1, **T5},
}
TINY = {
    "gpt_j_6b": {"n_embd": 64, "n_layer": 2, "n_head": 2, "rotary_dim": 16},
    "flan_t5_xl": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
}
TASKS = {"gpt_j_6b": ("gptj_continuation", "short"), "flan_t5_xl": ("flan_summary", "long")}
QUANTIZATIONS = ("none", "int8", "nf4")
PEER_CAN: dict[str, list[str]] = {"none": [], "int8": ["--int8"]}
"""Quantizations that TRL 0.11.4 is measured in, and the options of peer.py for it."""
GOALS = {"gpt_j_6b:int8": 12 * GIB, "gpt_j_6b:nf4": 8 * GIB}
"""Most bytes that a case may take."""


def shape_of(name: str, *, tiny: bool) -> PretrainedConfig:
    """Configuration of a model, or of its small likeness."""
    config: PretrainedConfig = AutoConfig.for_model(**SHAPES[name] | (TINY[name] if tiny else {}))
    return config


def write_weights(name: str, place: Path, device: str, *, tiny: bool) -> None:
    """Random bf16 weights made on the device, saved in shards; nothing where they are there."""
    if any(place.glob("*.safetensors")):
        return
    config = shape_of(name, tiny=tiny)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(0)
    with torch.device(device):
        model = auto.from_config(config, dtype=torch.bfloat16)
        if config.is_encoder_decoder:  # else tied, and it would repeat one token
            model.lm_head = torch.nn.Linear(
                config.d_model, config.vocab_size, bias=False, dtype=torch.bfloat16
            )
    model.save_pretrained(place, max_shard_size="2GB")
    write_tokenizer(config.vocab_size, place)


def overrides(name: str, quantization: str, model: Path, prompts: Path, device: str) -> list[str]:
    """One iteration of 16 prompts, in minibatches of 4; evaluation as small as it goes."""
    return [
        f"task={TASKS[name][0]}",
        "policy=local",
        f"policy.path={model}",
        "policy.gradient_checkpointing=true",
        "adapter.targets=[]",  # query and value, as the peer
        f"quantization={quantization}",
        "data=local",
        f"data.path={prompts}",
        f"algorithm.rollout_batch_size={PROMPTS}",
        "algorithm.minibatch_size=4",
        "algorithm.microbatch_size=4",
        "algorithm.iterations=2",
        "evaluation.validation_prompts=2",
        "evaluation.test_prompts=8",
        "checkpoint.every=0",
        f"device={device}",
    ]


def run_case(case: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Predict, and measure where there is a device for it."""
    name, quantization = case.split(":")
    model = (options.weights or folder).resolve() / name
    shape = shape_of(name, tiny=options.tiny)
    if options.device != "none":
        write_weights(name, model, options.device, tiny=options.tiny)
    elif not (model / "tokenizer.json").is_file():
        shape.save_pretrained(model)
        write_tokenizer(shape.vocab_size, model)
    device = "cpu" if options.device == "none" else options.device
    arguments = overrides(name, quantization, model, write_prompts(TASKS[name][1], folder), device)
    planned = "cuda" if options.device == "none" else device
    plan = ["stage=plan", f"plan.device={planned}", "plan.memory_gib=80"]
    row: dict[str, Any] = {}
    if not options.measure_only:
        predicted = run_stage([*plan, *arguments], folder / f"{name}_{quantization}_plan")
        row["predicted_bytes"] = predicted["total_bytes"]
    if options.device != "none":
        own = folder / f"{name}_{quantization}_run"
        row |= measured_of(run_stage(arguments, own), own)
    if options.peer and quantization in PEER_CAN:
        row["peer"] = peer_of(options.peer, model, quantization, device)
    if case in GOALS:
        row["goal_bytes"] = GOALS[case]
    return row


def peer_of(venv: Path, model: Path, quantization: str, device: str) -> dict[str, Any]:
    """What peer.py prints; or why it failed."""
    command = [str(venv / "bin" / "python"), str(HERE / "peer.py"), str(model), "--device", device]
    command += PEER_CAN[quantization]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def measured_of(summary: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Peak memory, and samples per second over the phases of the second iteration."""
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    names = ("generate", "score", "reference", "update")
    phases = {name: last.get(f"seconds_{name}", 0.0) for name in names}
    seconds = sum(phases.values())
    return {
        "peak_bytes": summary["peak_memory_bytes"],
        "seconds": phases,
        "samples_per_second": PROMPTS / seconds,
    }


def keep(case: str, row: dict[str, Any], device: str) -> None:
    """Add a case to results.json, by device."""
    where = torch.cuda.get_device_name() if device == "cuda" else "predicted only"
    stored = HERE / "results.json"
    record = json.loads(stored.read_text()) if stored.is_file() else {}
    record.setdefault(where, {})[case] = row
    stored.write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    """All cases, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="cases such as gpt_j_6b:int8")
    parser.add_argument("--weights", type=Path, help="keep the random weights here (18 GB)")
    parser.add_argument("--peer", type=Path, help="environment of TRL 0.11.4, with bin/python")
    parser.add_argument("--measure-only", action="store_true", help="no stage=plan")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the path")
    default = "cuda" if torch.cuda.is_available() else "none"
    parser.add_argument("--device", default=default, help="cuda, cpu, or none: predict only")
    options = parser.parse_args()
    cases = options.only or [f"{name}:{kind}" for name in SHAPES for kind in QUANTIZATIONS]
    heads = ["case", "predicted, GiB", "measured, GiB", "samples/s", "goal, GiB"]
    heads += ["TRL 0.11.4, GiB", "its samples/s"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    with tempfile.TemporaryDirectory() as temporary:
        for case in cases:
            row = run_case(case, Path(temporary), options)
            numbers = [row.get("predicted_bytes", 0) / GIB, row.get("peak_bytes", 0) / GIB]
            numbers += [row.get("samples_per_second", 0), row.get("goal_bytes", 0) / GIB]
            peer = row.get("peer", {})
            numbers += [peer.get("peak_bytes", 0) / GIB, peer.get("samples_per_second", 0)]
            cells = [f"{number:.2f}" if number else "" for number in numbers]
            print(f"| {case} | {' | '.join(cells)} |", flush=True)
            if not options.tiny:
                keep(case, row, options.device)


if __name__ == "__main__":
    main()
