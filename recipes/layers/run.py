"""Adapters in the last 3, 4, 5 and all 6 layers, learning rates over a decade: which runs converge?

    .venv/bin/python recipes/layers/run.py [--only ours,ours_budget,peer] [--seeds 0,1,2]
        [--iterations 40] [--jobs N] [--peer VENV] [--out DIR] [--shared DIR] [--retry] [--report]

Finished runs are skipped, so the command can be stopped and given again. What "converges" means
stands in README.md and in `verdict.py`.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "method_comparison"))  # the same queue, lab and peer

import run as comparison  # noqa: E402
from lab import BASE, ROOT, judged, judging, lab, training  # noqa: E402
from queue_of_runs import Run, Step, execute_all  # noqa: E402
from verdict import write_report  # noqa: E402

LAYERS = {"last_3": 3, "last_4": 4, "last_5": 5, "all": 0}
RATES = ("3e-4", "1e-3", "3e-3")
OURS: dict[str, list[str]] = {"ours": ["budget=off"], "ours_budget": ["budget=default"]}
"""Side -> overrides beside the shared ones; the other side is `peer`, TRL 0.11.4."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join([*OURS, "peer"]), help="sides, by comma")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rates", default=",".join(RATES), help="learning rates, by comma")
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16, help="scored samples per iteration")
    parser.add_argument("--prompts", type=int, default=200, help="held-out, for the judge")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--peer", help="environment of TRL 0.11.4 (a folder with bin/python)")
    parser.add_argument("--out", default="runs/layers")
    parser.add_argument("--shared", default="../shared", help="corpora and models")
    parser.add_argument("--retry", action="store_true", help="begin failed runs again")
    parser.add_argument("--report", action="store_true", help="only the table")
    return parser.parse_args()


def judge_job(given: argparse.Namespace, folder: Path, adapter: Path | None) -> dict[str, object]:
    """The part of a job that asks the held-out prompts."""
    base = f"{given.shared}/{BASE}"
    rules = lab(given.shared) + judging(given.shared, given.prompts, sets=False)
    return {
        "folder": str(folder),
        "evaluate": [*rules, judged(base, adapter, folder.name)],
    }


def own_run(
    given: argparse.Namespace, out: Path, side: str, scope: str, rate: str, seed: int
) -> Run:
    """Our PPO on one scope."""
    folder = out / side / f"{scope}_lr{rate}_seed{seed}"
    job = judge_job(given, folder, folder / "train" / "adapter")
    job["train"] = [
        *lab(given.shared),
        *training(given.iterations, given.batch, seed),
        f"adapter.scope={scope}",
        f"algorithm.learning_rate={rate}",
        *OURS[side],
    ]
    done = folder / "evaluate" / "summary.json"
    step = comparison.job_step(folder, job, done)
    return Run(name=f"{side} {scope} lr {rate} seed {seed}", folder=folder, steps=[step])


def peer_run(given: argparse.Namespace, out: Path, scope: str, rate: str, seed: int) -> Run:
    """TRL 0.11.4 on the same layers, prompts, reward and number of samples."""
    folder = out / "peer" / f"{scope}_lr{rate}_seed{seed}"
    prompts = comparison.prompts_step(given, out, seed)
    command = comparison.peer_command(given, prompts.done, folder, float(rate), seed, LAYERS[scope])
    train = Step(command=command, done=folder / "train" / "summary.json")
    job = judge_job(given, folder, folder / "train" / "adapter")
    judge = comparison.job_step(folder, job, folder / "evaluate" / "summary.json")
    name = f"peer {scope} lr {rate} seed {seed}"
    return Run(name=name, folder=folder, steps=[prompts, train, judge])


def base_run(given: argparse.Namespace, out: Path) -> Run:
    """The base alone."""
    folder = out / "base"
    job = judge_job(given, folder, None)
    step = comparison.job_step(folder, job, folder / "evaluate" / "summary.json")
    return Run(name="base", folder=folder, steps=[step])


def main() -> None:
    """Do what is left to do, then tell."""
    given = arguments()
    out = Path(given.out).resolve()
    sides = [side for side in given.only.split(",") if side in OURS or given.peer]
    if not given.report:
        runs = [base_run(given, out)]
        for seed in map(int, given.seeds.split(",")):
            for side in sides:
                settings = [(scope, rate) for scope in LAYERS for rate in given.rates.split(",")]
                runs += [
                    own_run(given, out, side, scope, rate, seed)
                    if side in OURS
                    else peer_run(given, out, scope, rate, seed)
                    for scope, rate in settings
                ]
        execute_all(runs, ROOT, jobs=given.jobs, retry=given.retry)
    write_report(out, list(LAYERS))


if __name__ == "__main__":
    main()
