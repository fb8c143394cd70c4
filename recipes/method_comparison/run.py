# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Every method on the same base, prompts, reward and number of scored samples, and the table.

    .venv/bin/python -m recipes.method_comparison.run [--only ppo,rloo] [--seeds 0,1,2]
        [--iterations 40] [--jobs N] [--peer VENV] [--out DIR] [--shared DIR] [--retry] [--report]

Finished runs are skipped, so the command can be stopped and given again; a run that fails is
listed. `--report` only makes the table and the picture from what is there. A `results.json` in
`--out` (the recipe's own, copied there) counts as the runs that it holds.
"""

import sys

from recipes.lab.bench import lab_bench
from recipes.lab.comparison import Comparison
from recipes.lab.options import comparison_parser
from recipes.lab.run_queue import Run, execute_all
from recipes.lab.store import OtherSizesError, stored_runs
from recipes.method_comparison.table import write_report

METHODS: dict[str, list[str]] = {
    "ppo": ["algorithm=ppo", "budget=off"],
    "ppo_budget": ["algorithm=ppo", "budget=default"],
    "ppo_credit": [
        "algorithm=ppo",
        "budget=default",
        "algorithm.expert.prefix_credit_every=2",
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
PEERS = {"trl_classic_ppo": "1.41e-5", "trl_classic_ppo_3e-4": "3e-4"}
"""Name -> learning rate: the default of TRL 0.11.4, and one for LoRA."""


def run_of(comparison: Comparison, method: str, seed: int) -> Run:
    """One method with one seed."""
    name = f"{method}/seed{seed}"
    if method in METHODS:
        return comparison.own_run(name, METHODS[method], seed)
    return comparison.peer_run(name, PEERS[method], seed)


def main() -> None:
    """Do what is left to do, then report."""
    parser = comparison_parser(__doc__, "runs/method_comparison")
    parser.add_argument("--only", help="methods, by comma")
    given = parser.parse_args()
    comparison = Comparison.of(given, lab_bench(given.shared, sets=True))
    known = {**METHODS, **(PEERS if given.peer else {})}
    methods = given.only.split(",") if given.only else list(known)
    if unknown := sorted(set(methods) - set(known)):
        sys.exit(f"--only: got {', '.join(unknown)}; want some of {', '.join(known)}")
    stored = stored_runs(comparison.out, comparison.sizes)
    if not given.report:
        runs = [] if "base" in stored else [comparison.base_run()]
        runs += [
            run_of(comparison, method, seed)
            for seed in map(int, given.seeds.split(","))
            for method in methods
            if f"{method}/seed{seed}" not in stored
        ]
        execute_all(runs, jobs=given.jobs, retry=given.retry)
    write_report(comparison.out, [*METHODS, *PEERS], comparison.sizes)


if __name__ == "__main__":
    try:
        main()
    except OtherSizesError as error:
        sys.exit(str(error))
