# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Where does detox hold that was trained on openings? python -m recipes.transfer.run.

    .venv/bin/python -m recipes.transfer.run [--seeds 0,1,2] [--adapters DIR] [--prompts 300]
        [--only own,chat] [--out DIR] [--models DIR] [--shared DIR] [--retry] [--report]

The adapters of recipes/smollm2_continuation under other sampling, in other tasks, and behind the
chat template. Finished evaluations are skipped.
"""

import argparse
import sys
from pathlib import Path

from recipes.lab.options import queue_parser
from recipes.lab.overrides import UNAUDITED, evaluated
from recipes.lab.real import MODELS, RealModels, continuation, stage_step, with_classifiers
from recipes.lab.run_queue import Run, execute_all
from recipes.transfer.conditions import conditions
from recipes.transfer.table import write_report


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line; `words` in its place."""
    parser = queue_parser(__doc__ or "", "runs/transfer")
    parser.add_argument("--models", default=MODELS, help="folder of recipes/real_classifiers")
    parser.add_argument(
        "--adapters", default="runs/smollm2_continuation", help="folder of the trained seeds"
    )
    parser.add_argument("--prompts", type=int, default=300, help="of each condition")
    parser.add_argument("--only", help="conditions, by comma")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    given = parser.parse_args(words)
    given.shared = str(Path(given.shared).resolve())
    given.out = Path(given.out).resolve()
    return given


def runs(given: argparse.Namespace, models: RealModels) -> list[Run]:
    """The base and every seed under every condition."""
    known = conditions(given.shared)
    names = given.only.split(",") if given.only else list(known)
    if unknown := sorted(set(names) - set(known)):
        sys.exit(f"--only: got {', '.join(unknown)}; want some of {', '.join(known)}")
    adapters: dict[str, Path | None] = {"base": None}
    for seed in given.seeds.split(","):
        adapters[f"seed{seed}"] = Path(given.adapters).resolve() / f"seed{seed}/train/adapter"
    queue = []
    for name in names:
        for model, adapter in adapters.items():
            folder = given.out / name / model
            overrides = [
                "stage=evaluate",
                f"evaluation.prompts={given.prompts}",
                *known[name].overrides,
                *UNAUDITED,
                evaluated(str(models.policy), adapter, model),
            ]
            task = continuation(models, given.shared)
            step = stage_step(given, task, folder / "evaluate", overrides)
            queue.append(Run(name=f"{name} {model}", folder=folder, steps=[step]))
    return queue


def require_adapters(given: argparse.Namespace) -> None:
    """End the program where an adapter is missing."""
    for seed in given.seeds.split(","):
        folder = Path(given.adapters).resolve() / f"seed{seed}/train/adapter"
        if not folder.is_dir():
            sys.exit(
                f"no adapter in {folder}; first run python -m recipes.smollm2_continuation.run, or "
                "say with --adapters and --seeds which ones there are"
            )


def main() -> int:
    """Do what is left to do, then report; 1 where something failed."""
    status = 0
    given = arguments()
    if not given.report:
        models = with_classifiers(given.models, given.shared)
        require_adapters(given)
        queue = runs(given, models)
        status = execute_all(queue, jobs=given.jobs, retry=given.retry)
    write_report(given.out, conditions(given.shared))
    return status


if __name__ == "__main__":
    sys.exit(main())
