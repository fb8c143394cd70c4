"""Every method on the same base, prompts, reward and number of scored samples, and the table.

    .venv/bin/python recipes/method_comparison/run.py [--only ppo,rloo] [--seeds 0,1,2]
        [--iterations 40] [--jobs N] [--peer VENV] [--out DIR] [--shared DIR] [--retry] [--report]

Finished runs are skipped, so the command can be stopped and given again; a run that fails is
listed. `--report` only makes the table and the picture from what is there. A `results.json` in
`--out` (the recipe's own, copied there) counts as the runs that it holds.
"""

import argparse
import json
import sys
from pathlib import Path

from lab import BASE, CIVIL, REWARD, ROOT, judged, judging, lab, training
from queue_of_runs import Run, Step, execute_all
from store import OtherSizesError, stored_runs
from table import write_report

HERE = Path(__file__).resolve().parent
METHODS: dict[str, list[str]] = {
    "ppo": ["algorithm=ppo", "budget=off"],
    "ppo_budget": ["algorithm=ppo", "budget=default"],
    "ppo_credit": [
        "algorithm=ppo",
        "budget=default",
        "algorithm.credit_every=2",
        "algorithm.average=0.9",
        "algorithm.schedule=linear",
    ],
    "rloo": ["algorithm=rloo", "budget=off"],
    "rloo_budget": ["algorithm=rloo", "budget=default"],
    "grpo": ["algorithm=grpo", "budget=off"],
    "grpo_budget": ["algorithm=grpo", "budget=default"],
    "trl_grpo": ["algorithm=trl_grpo"],
    "trl_rloo": ["algorithm=trl_rloo"],
    "trl_dpo": ["algorithm=trl_dpo"],
    "trl_dpo_1e-3": ["algorithm=trl_dpo", "algorithm.learning_rate=1e-3"],
    "best_of_n": ["algorithm=best_of_n"],
}
"""Name -> overrides beside the shared ones; everything else is the default of conf/algorithm."""
PEERS = {"trl_classic_ppo": 1.41e-5, "trl_classic_ppo_3e-4": 3e-4}
"""Name -> learning rate: the default of TRL 0.11.4, and one for LoRA."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="methods, by comma")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16, help="scored samples per iteration")
    parser.add_argument("--prompts", type=int, default=200, help="of each set, for the judge")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--peer", help="environment of TRL 0.11.4 (a folder with bin/python)")
    parser.add_argument("--out", default="runs/method_comparison")
    parser.add_argument("--shared", default="../shared", help="corpora and models")
    parser.add_argument("--retry", action="store_true", help="begin failed runs again")
    parser.add_argument("--report", action="store_true", help="only the table and the picture")
    return parser.parse_args()


def job_step(folder: Path, job: dict[str, object], done: Path) -> Step:
    """A process of ours; what it has to do is written beside its results."""
    folder.mkdir(parents=True, exist_ok=True)
    name = done.stem if done.parent == folder else done.parent.name
    file = folder / f"{name}.job.json"
    text = json.dumps(job, indent=1)
    if done.is_file() and file.is_file() and file.read_text(encoding="utf-8") != text:
        sys.exit(f"{folder} holds a run with other settings; give the same ones, or another --out")
    file.write_text(text, encoding="utf-8")
    return Step(command=[sys.executable, str(HERE / "job.py"), str(file)], done=done)


def prompts_step(given: argparse.Namespace, out: Path, seed: int) -> Step:
    """The training prompts of a seed, written once for every peer."""
    file = out / "prompts" / f"seed{seed}_{given.iterations}x{given.batch}.json"
    overrides = lab(given.shared) + training(given.iterations, given.batch, seed)
    job = {"prompts": str(file), "train": overrides}
    step = job_step(file.parent, job, file)
    return Step(command=step.command, done=file)


def own_run(given: argparse.Namespace, out: Path, method: str, seed: int) -> Run:
    """Train and judge in one process."""
    folder = out / method / f"seed{seed}"
    rules = lab(given.shared)
    job = {
        "folder": str(folder),
        "train": rules + training(given.iterations, given.batch, seed) + METHODS[method],
        "evaluate": rules
        + judging(given.shared, given.prompts)
        + [judged(f"{given.shared}/{BASE}", folder / "train" / "adapter", method)],
    }
    step = job_step(folder, job, folder / "evaluate" / "summary.json")
    return Run(name=f"{method}/seed{seed}", folder=folder, steps=[step])


def peer_command(
    given: argparse.Namespace, prompts: Path, folder: Path, rate: float, seed: int, layers: int = 0
) -> list[str]:
    """TRL 0.11.4's own process."""
    options = {
        "--model": f"{given.shared}/{BASE}",
        "--reward": f"{given.shared}/{REWARD}",
        "--civil": CIVIL,
        "--prompts": str(prompts),
        "--out": str(folder / "train"),
        "--lr": str(rate),
        "--seed": str(seed),
        "--last-layers": str(layers),
    }
    python = str(Path(given.peer) / "bin" / "python")
    return [python, str(HERE / "peer_ppo.py"), *(word for pair in options.items() for word in pair)]


def peer_run(given: argparse.Namespace, out: Path, method: str, seed: int) -> Run:
    """Prompts by us, training by TRL 0.11.4, judging by us."""
    folder, first = out / method / f"seed{seed}", prompts_step(given, out, seed)
    train = Step(
        command=peer_command(given, first.done, folder, PEERS[method], seed),
        done=folder / "train" / "summary.json",
    )
    job = {
        "folder": str(folder),
        "evaluate": lab(given.shared)
        + judging(given.shared, given.prompts)
        + [judged(f"{given.shared}/{BASE}", folder / "train" / "adapter", method)],
    }
    judge = job_step(folder, job, folder / "evaluate" / "summary.json")
    return Run(name=f"{method}/seed{seed}", folder=folder, steps=[first, train, judge])


def base_run(given: argparse.Namespace, out: Path) -> Run:
    """The base alone, which every change is measured from."""
    folder = out / "base"
    job = {
        "folder": str(folder),
        "evaluate": lab(given.shared)
        + judging(given.shared, given.prompts)
        + [judged(f"{given.shared}/{BASE}", None, "base")],
    }
    step = job_step(folder, job, folder / "evaluate" / "summary.json")
    return Run(name="base", folder=folder, steps=[step])


def main() -> None:
    """Do what is left to do, then tell."""
    given = arguments()
    out = Path(given.out).resolve()
    known = {**METHODS, **(PEERS if given.peer else {})}
    names = given.only.split(",") if given.only else list(known)
    if unknown := sorted(set(names) - set(known)):
        sys.exit(f"--only: got {', '.join(unknown)}; want some of {', '.join(known)}")
    sizes = {name: getattr(given, name) for name in ("iterations", "batch", "prompts")}
    there = stored_runs(out, sizes)
    if not given.report:
        runs = [] if "base" in there else [base_run(given, out)]
        for seed in map(int, given.seeds.split(",")):
            for name in names:
                make = own_run if name in METHODS else peer_run
                if f"{name}/seed{seed}" not in there:
                    runs.append(make(given, out, name, seed))
        execute_all(runs, ROOT, jobs=given.jobs, retry=given.retry)
    write_report(out, [*METHODS, *PEERS], sizes)


if __name__ == "__main__":
    try:
        main()
    except OtherSizesError as error:
        sys.exit(str(error))
