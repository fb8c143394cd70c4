# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Positive endings, and the sentiment that a prefix asks for: python -m recipes.sentiment.run.

    .venv/bin/python -m recipes.sentiment.run [--only miniature] [--seeds 0,1,2] [--out DIR]
        [--models DIR] [--shared DIR] [--prompts 400] [--threads 1] [--trial] [--retry] [--report]

The embedded miniature with the defaults of its tasks, then SmolLM2-135M with two classifiers that
are trained first. Finished runs are skipped, a stopped one goes on from its checkpoint; a
`TASK/results.json` in `--out` counts as the runs that it holds.
"""

import argparse
import json
import sys
from pathlib import Path

from recipes.lab.goal_table import write_report
from recipes.lab.options import queue_parser
from recipes.lab.overrides import UNAUDITED, evaluated
from recipes.lab.real import MODELS, RealModels, real_models, stage_step
from recipes.lab.run_queue import Run, Step, execute_all
from recipes.lab.store import stored_runs
from recipes.lab.tables import markdown_table
from recipes.sentiment.examples import LABELS, Example, examples
from recipes.sentiment.reviews import test_sets, write_reviews

TRIAL = [
    "algorithm.iterations=2",
    "algorithm.rollout_batch_size=16",
    "algorithm.minibatch_size=16",
    "algorithm.microbatch_size=16",
    "evaluation.every=1",
    "evaluation.validation_prompts=8",
    "evaluation.test_prompts=8",
    "checkpoint.every=0",
]
"""A training that only shows that it runs."""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line; `words` in its place."""
    parser = queue_parser(__doc__ or "", "runs/sentiment")
    parser.add_argument("--models", default=MODELS, help="folder of the pretrained models")
    parser.add_argument("--only", default="", help="examples whose names begin so")
    parser.add_argument("--prompts", type=int, default=400, help="of each judged set, at most")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--trial", action="store_true", help="every step in its smallest size")
    given = parser.parse_args(words)
    given.shared = str(Path(given.shared).resolve())
    given.out = Path(given.out).resolve()
    return given


def main() -> int:
    """Do what is left to do, then report; 1 where something failed."""
    status = 0
    given = arguments()
    models = RealModels(home=Path(given.models).resolve())
    wanted = chosen(given, models)
    if not given.report:
        if any(one.name.startswith("smollm2") for one in wanted):
            real_models(given.models, given.shared)
            write_reviews(Path(given.shared) / "data", given.out / "labelled")
            trainings = [classifier(given, models, half) for half in LABELS]
            status = execute_all(trainings, jobs=given.jobs, retry=given.retry)
            begun = [supervised(given, one) for one in wanted if one.supervised]
            status = status or execute_all(begun, jobs=given.jobs, retry=given.retry)
        queue = [run for one in wanted for run in runs(given, one)]
        status = status or execute_all(queue, jobs=given.jobs, retry=given.retry)
    write_classifier_table(given.out)
    for one in wanted:
        print(f"\n{one.name}\n")
        write_report(given.out / one.name, one.goals, sizes_of(given))
    return status


def chosen(given: argparse.Namespace, models: RealModels) -> list[Example]:
    """The examples that --only names."""
    known = examples(models, given.shared, given.out)
    wanted = [one for name, one in known.items() if name.startswith(given.only)]
    if not wanted:
        sys.exit(f"--only: got {given.only}; want the beginning of one of {', '.join(known)}")
    return wanted


def classifier(given: argparse.Namespace, models: RealModels, half: str) -> Run:
    """Reward or judge: every layer of MiniLM learns from its half, the embeddings stay."""
    folder = given.out / "classifiers" / half
    sets = test_sets(given.out / "labelled")
    overrides = [
        "stage=reward_model",
        f"reward_model.path={models.encoder}",
        f"reward_model.labels={LABELS[half]}",
        f"reward_model.civil_index={int(half == 'judge')}",
        "reward_model.frozen_layers=0",
        "reward_model.dtype=auto",
        "reward_model.group_by_length=true",
        "reward_model.warmup_steps=50",
        "reward_model.log_every=50",
        "reward.probe=false",
        "data=local",
        f"data.path={given.out}/labelled/{half}.jsonl",
        "data.fields.prompt=text",
        "data.fields.toxicity=negative",
        "data.split_fractions=[0.96,0.01,0.03]",
        f"seed={int(half == 'judge')}",
    ]
    if given.trial:
        overrides += ["reward_model.max_steps=10", "data.limit=2000"]
    else:
        overrides += [f"reward_model.test_sets.{name}={file}" for name, file in sets.items()]
    step = stage_step(given, [], folder, overrides)
    return Run(name=f"classifier {half}", folder=folder, steps=[step])


def runs(given: argparse.Namespace, example: Example) -> list[Run]:
    """The base and every seed."""
    folder = given.out / example.name
    base = [evaluation(given, example, folder / "base", None)]
    queue = [Run(name=f"{example.name} base", folder=folder / "base", steps=base)]
    for seed in map(int, given.seeds.split(",")):
        home = folder / f"seed{seed}"
        steps = [training(given, example, home / "train", seed)]
        steps.append(evaluation(given, example, home, home / "train" / "adapter"))
        queue.append(Run(name=f"{example.name} seed {seed}", folder=home, steps=steps))
    stored = stored_runs(folder, sizes_of(given))
    return [run for run in queue if run.folder.name not in stored]


def sizes_of(given: argparse.Namespace) -> dict[str, int]:
    """What has to be the same for two runs to stand in one table."""
    return {"prompts": given.prompts, "trial": int(given.trial)}


def supervised(given: argparse.Namespace, example: Example) -> Run:
    """Stage=sft of an example, from whose adapter every seed begins."""
    folder = given.out / example.name / "sft"
    overrides = [*example.supervised, *(["sft.max_steps=10"] if given.trial else [])]
    step = stage_step(given, example.task, folder, overrides)
    return Run(name=f"{example.name} SFT", folder=folder, steps=[step])


def training(given: argparse.Namespace, example: Example, folder: Path, seed: int) -> Step:
    """One run, from its newest checkpoint where it was stopped."""
    overrides = [*example.training, f"seed={seed}", *(TRIAL if given.trial else [])]
    if example.supervised:
        overrides.append(f"policy.adapter={given.out / example.name / 'sft' / 'adapter'}")
    return stage_step(given, example.task, folder, overrides)


def evaluation(
    given: argparse.Namespace, example: Example, folder: Path, adapter: Path | None
) -> Step:
    """Judge the base, or an adapter on it."""
    overrides = [
        "stage=evaluate",
        *example.sets,
        f"evaluation.prompts={given.prompts}",
        *UNAUDITED,
        evaluated(example.base, adapter, folder.name),
    ]
    return stage_step(given, example.task, folder / "evaluate", overrides)


def write_classifier_table(out: Path) -> None:
    """Write classifiers.md: accuracy, AUC and calibration on held-out reviews; and print it."""
    rows = []
    for half in LABELS:
        file = out / "classifiers" / half / "summary.json"
        if file.is_file():
            summary = json.loads(file.read_text(encoding="utf-8"))
            rows += [
                [half, name, str(one["n"])]
                + [f"{one[key]:.3f}" for key in ("accuracy", "auc", "calibration_error")]
                for name, one in summary["after"].items()
            ]
    if rows:
        heads = ["classifier", "set", "texts", "accuracy", "AUC", "calibration error"]
        text = markdown_table(heads, rows) + "\n"
        (out / "classifiers.md").write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    sys.exit(main())
