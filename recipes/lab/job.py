# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""One job in one process: write prompts, train, evaluate. `python -m recipes.lab.job JOB.json`.

JOB.json holds `folder`, `train` and `evaluate` (overrides), or `prompts`, a file that the prompts
of `train` are written to. What is finished is skipped; training that was interrupted goes on
from its checkpoint, or starts again where the method keeps none.
"""

import json
import resource
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

from lora_detox import api
from lora_detox.builders.data import encode_prompts
from lora_detox.builders.policy import backbone_plan
from lora_detox.builders.rows import load_data
from lora_detox.choices import TrainerKind
from lora_detox.policy.preflight import read_config
from lora_detox.policy.tokenizer import load_tokenizer
from lora_detox.report.jsonl import write_json_atomic


def write_prompts(overrides: list[str], file: Path) -> None:
    """The prompts of each iteration of a run, as texts and ids: what the main path reads."""
    settings = api.compose_settings(overrides, file.with_suffix(".run"))
    plan = backbone_plan(settings, settings.policy.path)
    tokenizer = load_tokenizer(plan, read_config(plan))
    encoded = encode_prompts(settings, load_data(settings), tokenizer, encoder_decoder=False)
    iterations = []
    for iteration in range(settings.algorithm.iterations):
        batch = encoded.train.batch(iteration)
        rows = zip(batch.texts, batch.query_ids, batch.query_mask, strict=True)
        iterations.append([{"text": text, "ids": ids[mask].tolist()} for text, ids, mask in rows])
    write_json_atomic(file, iterations)


def train(overrides: list[str], folder: Path) -> None:
    """Train into a folder; go on where checkpoints allow."""
    if (folder / "summary.json").is_file():
        return
    settings = api.compose_settings(overrides, folder.with_name("nothing"))
    native = settings.algorithm.trainer.kind is TrainerKind.native
    if native and any((folder / "checkpoints").glob("iteration_*")):
        overrides = [*overrides, "resume=true"]
    elif folder.exists():
        set_aside(folder)
    api.run(overrides, folder)


def set_aside(folder: Path) -> None:
    """Keep what an interrupted part left behind under another name; nothing is deleted."""
    names = (folder.with_name(f"{folder.name}.interrupted_{number}") for number in count(1))
    folder.rename(next(name for name in names if not name.exists()))


def main() -> None:
    """Do what the file asks for, and write down what it cost."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if job.get("prompts"):
        write_prompts(job["train"], Path(job["prompts"]))
        return
    folder, start = Path(job["folder"]), time.perf_counter()
    cost = {}
    for part in ("train", "evaluate"):
        if not job.get(part):
            continue
        target = folder / part
        if part == "train":
            train(job[part], target)
        elif not (target / "summary.json").is_file():
            if target.exists():
                set_aside(target)
            api.run(job[part], target)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cost[part] = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
        }
    write_json_atomic(folder / "cost.json", cost)  # from the start of the process, last: whole


if __name__ == "__main__":
    main()
