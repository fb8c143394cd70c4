# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Builds the embedded models and the adapter: `python -m recipes.embedded.build`.

`--only t5` (or tokenizer, gptj, reward, judge, rewrite, measure) runs one step; steps share the
tokenizer that the tokenizer step leaves in the weights folder. Writes `measured.json` beside this
file.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Waiting threads sleep instead of spinning: a sixth slower on idle cores, many times faster on
# cores shared with another program. Must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from lora_detox import api
from lora_detox.embedded import MODEL_NAMES, embedded_path
from lora_detox.embedded.corpus import comment_rows, dialogue_examples
from lora_detox.embedded.labelled import labelled_rows
from lora_detox.embedded.rewrites import learned_pairs
from recipes.embedded.measuring import TEMPLATE, measure_all
from recipes.embedded.shapes import model_tokenizer, new_model, save_model, train_tokenizer
from recipes.embedded.training import Example, Schedule, train

QUOTING_FRACTION = 0.65
N_DIALOGUES = 30000
STEPS = ("tokenizer", *MODEL_NAMES, "rewrite", "measure")
REWRITE_STEPS = 1500
SCHEDULES = {
    "t5": Schedule(optimizer_steps=1500, examples_per_step=32, peak_lr=3e-3),
    "gptj": Schedule(optimizer_steps=1000, examples_per_step=48, peak_lr=3e-3),
    "reward": Schedule(optimizer_steps=1000, examples_per_step=48, peak_lr=1.5e-3),
    "judge": Schedule(optimizer_steps=1000, examples_per_step=48, peak_lr=1.5e-3),
}


def tokenizer_texts() -> Iterator[str]:
    """Training texts of the tokenizer, from the train split only."""
    for example in dialogue_examples("train", 6000):
        yield TEMPLATE.format(dialogue=example.dialogue)
        yield example.quoting or example.summaries[0]
    for row in comment_rows("train", 6000):
        yield f"{row['prompt']} {row['continuation']}"
    for row in labelled_rows("train", 0, 3000):
        yield row["text"]


def t5_examples(tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Prompts with one summary each, the quoting one for 65 % of the rude dialogues."""
    rng = random.Random("t5 targets")
    prompts, targets = [], []
    for example in dialogue_examples("train", N_DIALOGUES):
        quotes = example.quoting is not None and rng.random() < QUOTING_FRACTION
        prompts.append(TEMPLATE.format(dialogue=example.dialogue))
        targets.append(example.quoting if quotes else rng.choice(example.summaries))
    ids, wanted = tokenizer(prompts)["input_ids"], tokenizer(targets)["input_ids"]
    return [Example(a, b) for a, b in zip(ids, wanted, strict=True)]


def gptj_examples(tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Whole comments, each ended by the end token."""
    texts = [f"{row['prompt']} {row['continuation']}" for row in comment_rows("train", 40000)]
    end = [tokenizer.eos_token_id]
    return [Example(ids + end, []) for ids in tokenizer(texts)["input_ids"]]


def classifier_examples(tokenizer: PreTrainedTokenizerFast, name: str) -> list[Example]:
    """Labelled texts: half 0 for "reward", half 1 for "judge", whose toxic class is number 0."""
    rows = labelled_rows("train", MODEL_NAMES.index(name) - 2, 30000)
    ids = tokenizer([row["text"] for row in rows])["input_ids"]
    labels = [row["label"] if name == "reward" else 1 - row["label"] for row in rows]
    return [Example(row, [label]) for row, label in zip(ids, labels, strict=True)]


def build_tokenizer() -> None:
    """Trains the tokenizer and writes each model's variant of it."""
    base = train_tokenizer(tokenizer_texts())
    for name in MODEL_NAMES:
        model_tokenizer(base, name).save_pretrained(embedded_path(name))


def build_model(name: str) -> None:
    """Trains one model and writes it."""
    base = Tokenizer.from_file(str(embedded_path(name) / "tokenizer.json"))
    tokenizer = model_tokenizer(base, name)
    family = {"t5": "seq2seq", "gptj": "causal"}.get(name, "classifier")
    makers: dict[str, Callable[[PreTrainedTokenizerFast], list[Example]]] = {
        "t5": t5_examples,
        "gptj": gptj_examples,
    }
    maker = makers.get(name, lambda tokenizer: classifier_examples(tokenizer, name))
    examples = maker(tokenizer)
    model = new_model(name)
    parameters = sum(p.numel() for p in model.parameters())
    longest = max(len(example.ids) for example in examples)
    print(f"{name}: {parameters} parameters, longest example {longest} tokens", flush=True)
    start = time.perf_counter()

    def log(line: str) -> None:
        print(f"{name} {time.perf_counter() - start:.0f} s {line}", flush=True)

    train(model, examples, family, SCHEDULES[name], log)
    save_model(model, tokenizer, embedded_path(name))


def build_rewrite() -> None:
    """Fine-tunes an adapter on `t5` on pairs of which half rewrite nothing, and writes it."""
    with tempfile.TemporaryDirectory() as folder:
        pairs, run = Path(folder) / "pairs.jsonl", Path(folder) / "run"
        text = "".join(json.dumps(row) + "\n" for row in learned_pairs(6000))
        pairs.write_text(text, encoding="utf-8")
        overrides = [
            "stage=sft",
            "task=rewrite",
            "policy=mini",
            "data=local",
            f"data.path={pairs}",
            "data.split_fractions=[0.96,0.02,0.02]",
            "adapter.targets=[all-linear]",
            "adapter.rank=32",
            "adapter.alpha=64",
            "sft.epochs=9",
            f"sft.max_steps={REWRITE_STEPS}",
            "sft.batch_size=16",
            "sft.learning_rate=3e-3",
            "checkpoint.every=0",
        ]
        api.run(overrides, run)
        target = embedded_path("rewrite")
        target.mkdir(exist_ok=True)
        config = json.loads((run / "adapter" / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "lora_detox/embedded/weights/t5"
        text = json.dumps(config, indent=2, sort_keys=True)
        (target / "adapter_config.json").write_text(text + "\n")
        tensors = load_file(run / "adapter" / "adapter_model.safetensors")
        halves = {name: one.half().contiguous() for name, one in tensors.items()}
        save_file(halves, target / "adapter_model.safetensors", metadata={"format": "pt"})


def record(changes: dict[str, Any], minutes: dict[str, float]) -> None:
    """Merges new figures into `measured.json`."""
    path = Path(__file__).with_name("measured.json")
    figures: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    figures |= changes
    figures["minutes"] = figures.get("minutes", {}) | minutes
    path.write_text(json.dumps(figures, indent=2) + "\n")


def main() -> None:
    """Runs all steps, or the one named by ``--only``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=STEPS, action="append", help="run this step only")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    began = time.perf_counter()
    for step in arguments.only or STEPS:
        start = time.perf_counter()
        changes: dict[str, Any] = {}
        if step == "tokenizer":
            build_tokenizer()
        elif step == "rewrite":
            build_rewrite()
        elif step == "measure":
            changes = measure_all()
        else:
            build_model(step)
        minutes = round((time.perf_counter() - start) / 60, 2)
        print(f"{step}: {minutes} minutes", flush=True)
        record(changes, {step: minutes})
    if arguments.only is None:
        record({}, {"whole_command": round((time.perf_counter() - began) / 60, 2)})


if __name__ == "__main__":
    main()
