# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Our classifier scorer against the Transformers pipeline, in turn; ratios of medians.

    python -m recipes.benchmarks.scoring [--model base|lab|FOLDER] [--texts 1024] [--rounds 3]

`base` is a RoBERTa of base size with random weights, `lab` is ../shared/lab/roberta-reward. Texts
have 5 to 400 tokens (242 with `lab`, which reads 256 at once), spread evenly: real comments from
../shared/data cut to length where they are here, else random words. The pipeline runs at its
default (batch_size=1) and at batch_size=32. The same scores are checked: largest difference of the
civil probability. CPU time stands beside wall time, as a shared machine disturbs the latter.
Results go to scoring.json, by model.
"""

import argparse
import gzip
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    RobertaConfig,
    RobertaForSequenceClassification,
    pipeline,
)

from lora_detox.embedded import embedded_path
from lora_detox.scores import ClassifierScorer
from recipes.lab.process import ROOT

HERE = Path(__file__).resolve().parent
SHARED = ROOT.parent / "shared"
SHORTEST, LONGEST = 5, 400
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""How far the civil probability may be from the pipeline's, by dtype."""


def model_folder(name: str, temporary: Path) -> Path:
    """The classifier to score with; `base` is written with random weights."""
    if name == "lab":
        return SHARED / "lab" / "roberta-reward"
    if name != "base":
        return Path(name)
    lab = SHARED / "lab" / "roberta-reward"
    words = lab if lab.is_dir() else Path(embedded_path("reward"))
    tokenizer = AutoTokenizer.from_pretrained(words)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=50265,
        max_position_embeddings=514,
        pad_token_id=tokenizer.pad_token_id,
        id2label={0: "nothate", 1: "hate"},
        label2id={"nothate": 0, "hate": 1},
    )
    RobertaForSequenceClassification(config).save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    return temporary


def texts_of(folder: Path, count: int) -> list[str]:
    """Texts whose lengths in tokens spread evenly from SHORTEST to LONGEST, in random order."""
    tokenizer, draw = AutoTokenizer.from_pretrained(folder), random.Random(0)
    source = SHARED / "data" / "jigsaw_balanced.test.jsonl.gz"
    if source.is_file():
        with gzip.open(source, "rt") as stream:
            words = " ".join(json.loads(line)["text"] for line in stream)
    else:
        words = " ".join(draw.choice(["you", "are", "a", "good", "idiot"]) for _ in range(400_000))
    room = int(AutoConfig.from_pretrained(folder).max_position_embeddings) - 16
    longest = min(LONGEST, room)  # what the model can read at once: the pipeline cuts off the rest
    ids = tokenizer(words[:3_000_000], add_special_tokens=False)["input_ids"]
    texts, place = [], 0
    for index in range(count):
        length = SHORTEST + (longest - SHORTEST) * index // max(1, count - 1)
        place = place if place + length < len(ids) else 0
        texts.append(tokenizer.decode(ids[place : place + length]))
        place += length
    draw.shuffle(texts)
    return texts


def sides(folder: Path) -> dict[str, Callable[[list[str]], list[float]]]:
    """Name -> probabilities of the civil label."""
    scorers: dict[str, Callable[[list[str]], list[float]]] = {}
    # The lab's weights are stored in fp16, which the pipeline would take, and slowly on a CPU.
    classify: Any = pipeline(
        "text-classification", model=str(folder), device="cpu", dtype=torch.float32, top_k=None
    )
    longest = int(classify.model.config.max_position_embeddings) - 2
    civil = ClassifierScorer(str(folder), device="cpu").head
    label = civil.id2label[civil.civil_index or 0]

    def by_pipeline(texts: list[str], **options: Any) -> list[float]:
        results = classify(texts, truncation=True, max_length=longest, **options)
        return [next(r["score"] for r in row if r["label"] == label) for row in results]

    scorers["pipeline, default"] = by_pipeline
    scorers["pipeline, batch_size=32"] = lambda texts: by_pipeline(texts, batch_size=32)
    for dtype in ("float32", "bfloat16"):
        scorer = ClassifierScorer(str(folder), device="cpu", dtype=dtype)

        def ours(texts: list[str], scorer: ClassifierScorer = scorer) -> list[float]:
            toxicity = scorer.score([""] * len(texts), texts).toxicity
            return [1 - value for value in toxicity.tolist()]

        scorers[f"ours, {dtype}"] = ours
    return scorers


def measure(folder: Path, texts: list[str], rounds: int) -> dict[str, Any]:
    """Seconds of each side in turn, ratios to the default pipeline, and whether scores agree."""
    wall: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    scores: dict[str, list[float]] = {}
    both = sides(folder)
    for side in both.values():
        side(texts[:8])
    for _ in range(rounds):
        for name, side in both.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            scores[name] = side(texts)
            wall.setdefault(name, []).append(time.perf_counter() - begin)
            cpu.setdefault(name, []).append(time.process_time() - begin_cpu)
    default, rows = "pipeline, default", {}
    for name in both:
        ratios = [a / b for a, b in zip(wall[default], wall[name], strict=True)]
        pairs = list(zip(scores[default], scores[name], strict=True))
        rows[name] = {
            "seconds": statistics.median(wall[name]),
            "cpu_seconds": statistics.median(cpu[name]),
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
            "cpu_ratio": statistics.median(cpu[default]) / statistics.median(cpu[name]),
            "largest_difference": max(abs(a - b) for a, b in pairs),
            "same_label": sum((a > 0.5) == (b > 0.5) for a, b in pairs) / len(pairs),
        }
    return rows


def main() -> None:
    """Print and keep the table."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="base")
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = model_folder(options.model, Path(temporary))
        rows = measure(folder, texts_of(folder, options.texts), options.rounds)
    print(f"{options.model}: {options.texts} texts, {options.threads} threads")
    for name, row in rows.items():
        low, high = row["ratio_range"]
        print(
            f"  {name:24s} {row['seconds']:7.2f} s, {row['ratio']:.2f}x ({low:.2f} to {high:.2f}), "
            f"CPU {row['cpu_ratio']:.2f}x, differs by {row['largest_difference']:.1e}, "
            f"same label {row['same_label']:.1%}"
        )
        for dtype, tolerance in TOLERANCE.items():
            if name == f"ours, {dtype}" and row["largest_difference"] > tolerance:
                raise SystemExit(f"{name}: scores differ by more than {tolerance}")
    stored = HERE / "scoring.json"
    results = json.loads(stored.read_text()) if stored.is_file() else {}
    settings = {"texts": options.texts, "rounds": options.rounds, "threads": options.threads}
    results[Path(options.model).name] = {**settings, "sides": rows}
    stored.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
