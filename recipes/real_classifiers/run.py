# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Train a reward and a judge on MiniLM: python -m recipes.real_classifiers.run."""

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_detox.report.jsonl import write_text_atomic
from recipes.lab.options import queue_parser
from recipes.lab.real import MODELS, RealModels, real_models
from recipes.lab.run_queue import Run, Step, execute_all, going_on
from recipes.real_classifiers.table import write_report

LABELS = {"reward": "[nothate,hate]", "judge": "[neutral,toxic]"}
"""Named differently, and the judge's toxic label comes first (reward_model.civil_index)."""
WINDOW = 25
"""Words of a WikiText window."""
EVERY_TEMPLATE = 8
"""Of the identity templates one in so many is scored: 9,570 sentences."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = queue_parser(__doc__ or "", MODELS)
    parser.set_defaults(jobs=2)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument(
        "overrides", nargs="*", help="of both trainings, as in reward_model.dtype=float32"
    )
    return parser.parse_args()


def main() -> int:
    """Do what is left to do, then report; 1 where something failed."""
    status = 0
    given = arguments()
    shared = str(Path(given.shared).resolve())
    models = RealModels(home=Path(given.out).resolve())
    if not given.report:
        real_models(given.out, shared)
        sets = test_sets(models, Path(shared) / "data")
        runs = [training(models, half, given, sets) for half in LABELS]
        status = execute_all(runs, jobs=given.jobs, retry=given.retry)
    write_report(models)
    return status


def training(
    models: RealModels, half: str, given: argparse.Namespace, sets: dict[str, Path]
) -> Run:
    """One classifier: every layer learns, the embeddings stay."""
    folder = models.classifier(half).parent
    overrides = [
        "stage=reward_model",
        f"reward_model.path={models.encoder}",
        f"reward_model.labels={LABELS[half]}",
        f"reward_model.civil_index={int(half == 'judge')}",
        f"reward_model.epochs={given.epochs}",
        "reward_model.frozen_layers=0",
        "reward_model.dtype=auto",
        "reward_model.group_by_length=true",
        "reward_model.batch_size=32",
        "reward_model.learning_rate=1e-4",
        "reward_model.warmup_steps=100",
        "reward_model.log_every=50",
        "data=local",
        f"data.path={models.labelled(half)}",
        "data.fields.prompt=text",
        "data.fields.toxicity=label",
        "data.split_fractions=[0.94,0.01,0.05]",
        *(f"reward_model.test_sets.{name}={file}" for name, file in sets.items()),
        f"seed={int(half == 'judge')}",
        "threads=1",
        *given.overrides,
    ]
    command = [sys.executable, "-m", "lora_detox", *overrides, f"hydra.run.dir={folder}"]
    command += going_on(folder)
    return Run(
        name=half, folder=folder, steps=[Step(command=command, done=folder / "summary.json")]
    )


def test_sets(models: RealModels, data: Path) -> dict[str, Path]:
    """What neither half has: comments, forum posts, tweets, identity audits, and WikiText."""
    sets = {
        name: data / f"{file}.jsonl.gz"
        for name, file in {
            "jigsaw": "jigsaw_balanced.test",
            "stormfront": "stormfront.test",
            "tweets": "tweeteval_offensive.test",
            "hatecheck": "hatecheck.test",
        }.items()
    }
    own = {
        "identity_templates": list(rows(data / "sentence_templates_en.jsonl.gz"))[::EVERY_TEMPLATE],
        "wikitext": [
            {"text": window, "label": 0}
            for one in rows(data / "wikitext2_raw.test.jsonl.gz")
            for window in windows(one["text"])
        ],
    }
    for name, wanted in own.items():
        sets[name] = models.home / "test_sets" / f"{name}.jsonl"
        if not sets[name].is_file():
            sets[name].parent.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in wanted)
            write_text_atomic(sets[name], text)
    return sets


def rows(file: Path) -> Iterator[dict[str, Any]]:
    """Rows of a corpus."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def windows(text: str) -> Iterator[str]:
    """Whole windows of WINDOW words of an article's paragraphs."""
    for paragraph in text.splitlines():
        words = [] if paragraph.lstrip().startswith("=") else paragraph.split()
        for start in range(0, len(words) - WINDOW + 1, WINDOW):
            yield " ".join(words[start : start + WINDOW])


if __name__ == "__main__":
    sys.exit(main())
