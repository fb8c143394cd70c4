# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Which LoRA for reinforcement learning? python -m recipes.which_lora.run.

    .venv/bin/python -m recipes.which_lora.run [--model smollm2 | t5_summary] [--seeds 0,1,2]
        [--only query_value,dora] [--iterations 12] [--batch 32] [--out DIR] [--models DIR]
        [--retry] [--report]

The same training with other adapters: equal optimizer steps by the held-out prompts, equal seconds
by the rollouts of training. Finished runs are skipped, a stopped one goes on from its checkpoint;
the `results.json` in the folder of the results counts as the runs that it holds.
"""

import argparse
import sys
from pathlib import Path

from recipes.lab.options import comparison_parser
from recipes.lab.overrides import UNAUDITED, evaluated, training
from recipes.lab.real import MODELS, stage_step, with_classifiers
from recipes.lab.run_queue import Run, Step, execute_all
from recipes.lab.store import stored_runs
from recipes.lab.subjects import SUBJECTS, Subject
from recipes.which_lora.table import write_report
from recipes.which_lora.variants import MISS, RANK, variants

TRAINING = [
    "algorithm=ppo",
    "algorithm.ppo_epochs=2",
    "algorithm.learning_rate=5e-4",
    "algorithm.schedule=linear",
    "algorithm.expert.prefix_credit_every=2",
    "algorithm.kl.charge=k3_loss",
    "algorithm.kl.control=fixed",
    "algorithm.kl.coef=0.05",
    "budget.ship=end",
    "evaluation.every=12",  # nothing is chosen by it: the end is judged
    *UNAUDITED,
]
"""Beside the subject's budget and the sizes."""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line; `words` in its place."""
    parser = comparison_parser(__doc__ or "", "runs/which_lora")
    parser.set_defaults(iterations=12, batch=32, prompts=355)
    parser.add_argument("--model", choices=sorted(SUBJECTS), default="smollm2")
    parser.add_argument("--models", default=MODELS, help="folder of recipes/real_classifiers")
    parser.add_argument("--only", help="variants, by comma")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    given = parser.parse_args(words)
    given.shared = str(Path(given.shared).resolve())
    given.out = Path(given.out).resolve() / given.model
    return given


def sizes_of(given: argparse.Namespace) -> dict[str, int]:
    """What has to be the same for two runs to stand in one table."""
    return {name: getattr(given, name) for name in ("iterations", "batch", "prompts")}


def runs(given: argparse.Namespace, subject: Subject) -> list[Run]:
    """The base, then every variant with every seed; what is stored already is left out."""
    known = variants(given.model)
    names = given.only.split(",") if given.only else list(known)
    if unknown := sorted(set(names) - set(known)):
        sys.exit(f"--only: got {', '.join(unknown)}; want some of {', '.join(known)}")
    base = given.out / "base"
    queue = [Run(name="base", folder=base, steps=[judged(given, subject, base, None)])]
    for seed in map(int, given.seeds.split(",")):
        for name in names:
            folder = given.out / name / f"seed{seed}"
            steps = trained(given, subject, folder, known[name].overrides, seed)
            steps.append(judged(given, subject, folder, folder / "train" / "adapter"))
            queue.append(Run(name=f"{name} seed {seed}", folder=folder, steps=steps))
    stored = stored_runs(given.out, sizes_of(given))
    return [run for run in queue if run.folder.relative_to(given.out).as_posix() not in stored]


def trained(
    given: argparse.Namespace, subject: Subject, folder: Path, adapter: list[str], seed: int
) -> list[Step]:
    """One training; MiSS begins with a stored adapter, which says itself what it is."""
    overrides = [*training(given.iterations, given.batch, seed), *TRAINING, *subject.budget]
    if folder.parent.name != MISS:
        return [stage_step(given, subject.task, folder / "train", [*overrides, *adapter])]
    start = folder / "start"
    task = [one for one in subject.task if not one.startswith("adapter.")]
    train = stage_step(given, task, folder / "train", [*overrides, f"policy.adapter={start}"])
    return [fresh(given, subject, start, seed), train]


def fresh(given: argparse.Namespace, subject: Subject, folder: Path, seed: int) -> Step:
    """The untrained MiSS adapter."""
    scope = "decoder" if given.model == "t5_summary" else "all"
    command = [sys.executable, "-m", "recipes.lab.fresh_adapter", MISS, subject.policy]
    command += [str(folder), "--rank", str(RANK), "--scope", scope, "--seed", str(seed)]
    return Step(command=command, done=folder / "adapter_config.json")


def judged(given: argparse.Namespace, subject: Subject, folder: Path, adapter: Path | None) -> Step:
    """Answer the held-out prompts with the base, or an adapter on it."""
    overrides = [
        "stage=evaluate",
        f"evaluation.prompts={given.prompts}",
        *UNAUDITED,
        evaluated(subject.policy, adapter, folder.parent.name if adapter else "base"),
    ]
    return stage_step(given, subject.task, folder / "evaluate", overrides)


def main() -> int:
    """Do what is left to do, then report; 1 where something failed."""
    status = 0
    given = arguments()
    if not given.report:
        models = with_classifiers(given.models, given.shared)
        subject = SUBJECTS[given.model](models, given.shared)
        status = execute_all(runs(given, subject), jobs=given.jobs, retry=given.retry)
    write_report(given.out, given.model, sizes_of(given))
    return status


if __name__ == "__main__":
    sys.exit(main())
