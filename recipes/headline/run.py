# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Both tasks with five seeds inside their quality budgets, judged on sets that no training saw.

    .venv/bin/python -m recipes.headline.run [--task continuation] [--seeds 0,1,2,3,4]
        [--members 1] [--jobs 2] [--out DIR] [--models DIR] [--shared DIR] [--retry]
        [--report]

Finished runs are skipped, so the command can be stopped and given again. `--report` only makes the
table, the picture and the samples from what is there. A `TASK/results.json` in `--out` counts as
the runs that it holds.
"""

import argparse
import os
import sys
from pathlib import Path

from recipes.headline.goals import TASKS, Task
from recipes.lab.goal_table import write_report
from recipes.lab.options import queue_parser, require_shared
from recipes.lab.overrides import evaluated
from recipes.lab.process import ROOT
from recipes.lab.real import MODELS, with_classifiers
from recipes.lab.run_queue import Run, Step, execute_all, going_on
from recipes.lab.store import stored_runs

MOST_MEMBERS = 4  # whose seeds are apart


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = queue_parser(__doc__, "runs/headline")
    parser.set_defaults(seeds="0,1,2,3,4", jobs=2)
    models = os.environ.get("MODELS", MODELS)
    parser.add_argument("--models", default=models, help="folder of recipes/real_classifiers")
    parser.add_argument("--task", choices=sorted(TASKS), help="one of the two")
    parser.add_argument(
        "--members",
        type=int,
        choices=range(1, MOST_MEMBERS + 1),
        default=1,
        help="runs, of which the average of those inside the budget is the result",
    )
    return parser.parse_args()


def set_places(given: argparse.Namespace) -> None:
    """Make the folders of a command line absolute, and tell run.sh, which goes to the top."""
    given.shared = str(Path(given.shared).resolve())
    given.models = str(Path(given.models).resolve())
    os.environ |= {"SHARED": given.shared, "MODELS": given.models, "PYTHON": sys.executable}


def sizes_of(given: argparse.Namespace) -> dict[str, int]:
    """What has to be the same for two runs to stand in one table."""
    return {"members": given.members}


def step(task: Task, folder: Path, overrides: list[str]) -> Step:
    """The single run's own script with further overrides; goes on where one was stopped."""
    script = ROOT / "recipes" / task.recipe / "run.sh"
    options = ["threads=1", f"hydra.run.dir={folder}", *overrides, *going_on(folder)]
    return Step(command=["bash", str(script), *options], done=folder / "summary.json")


def evaluation(task: Task, shared: str, folder: Path, adapter: Path | None) -> Step:
    """Judge the base, or an adapter on it, on every set of the task."""
    overrides = [
        "stage=evaluate",
        *task.judging(shared),
        evaluated(f"{shared}/{task.base}", adapter, folder.name),
    ]
    return step(task, folder / "evaluate", overrides)


def training(task: Task, own: Path, seed: int, members: int) -> list[Step]:
    """One run into `train/`; or several with seeds of their own, and their average there."""
    every = "checkpoint.every=20"
    if members == 1:
        return [step(task, own / "train", [every, f"seed={seed}"])]
    folders = [own / f"member{number}" for number in range(members)]
    steps = [
        step(task, folder, [every, f"seed={MOST_MEMBERS * seed + number}", *task.member])
        for number, folder in enumerate(folders)
    ]
    listed = ",".join(map(str, folders))
    average = ["stage=soup", f"soup=[{listed}]", f"seed={seed}", *task.mean]
    return [*steps, step(task, own / "train", average)]


def runs(given: argparse.Namespace, out: Path, name: str) -> list[Run]:
    """The base and every seed of a task."""
    task, folder = TASKS[name], out / name
    base = evaluation(task, given.shared, folder / "base", None)
    every = [Run(name=f"{name} base", folder=folder / "base", steps=[base])]
    for seed in map(int, given.seeds.split(",")):
        own = folder / f"seed{seed}"
        judge = evaluation(task, given.shared, own, own / "train" / "adapter")
        steps = [*training(task, own, seed, given.members), judge]
        every.append(Run(name=f"{name} seed {seed}", folder=own, steps=steps))
    stored = stored_runs(folder, sizes_of(given))
    return [run for run in every if run.folder.name not in stored]


def main() -> int:
    """Do what is left to do, then report; 1 where something failed."""
    status = 0
    given = arguments()
    set_places(given)
    out = Path(given.out).resolve()
    tasks = [given.task] if given.task else list(TASKS)
    if not given.report:
        require_shared(given.shared)
        if "summary" in tasks:
            with_classifiers(given.models, given.shared)
        waiting = [run for name in tasks for run in runs(given, out, name)]
        status = execute_all(waiting, jobs=given.jobs, retry=given.retry)
    for name in tasks:
        write_report(out / name, TASKS[name].goals, sizes_of(given))
    return status


if __name__ == "__main__":
    sys.exit(main())
