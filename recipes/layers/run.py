# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Adapters in the last 3, 4, 5 and all 6 layers, learning rates over a decade: which runs converge?

    .venv/bin/python -m recipes.layers.run [--only ours,ours_budget,peer] [--seeds 0,1,2]
        [--iterations 40] [--jobs N] [--peer VENV] [--out DIR] [--shared DIR] [--retry] [--report]

Finished runs are skipped, so the command can be stopped and given again. What "converges" means
stands in README.md and in `verdict.py`.
"""

import sys

from recipes.lab.bench import lab_bench
from recipes.lab.comparison import Comparison
from recipes.lab.options import comparison_parser, require_shared
from recipes.lab.run_queue import Run, execute_all
from recipes.layers.verdict import write_report

LAYERS = {"last_3": 3, "last_4": 4, "last_5": 5, "all": 0}
"""Scope of the adapters -> layers from the end, as peer_ppo.py wants them; 0 is all."""
RATES = ("3e-4", "1e-3", "3e-3")
OURS: dict[str, list[str]] = {"ours": ["budget=off"], "ours_budget": ["budget=default"]}
"""Side -> overrides beside the shared ones; the other side is `peer`, TRL 0.11.4."""


def run_of(comparison: Comparison, side: str, scope: str, rate: str, seed: int) -> Run:
    """One side on one scope with one learning rate and seed."""
    name = f"{side}/{scope}_lr{rate}_seed{seed}"
    if side not in OURS:
        return comparison.peer_run(name, rate, seed, LAYERS[scope])
    own = ["adapter.targets=[]", f"adapter.scope={scope}", f"algorithm.learning_rate={rate}"]
    own += OURS[side]
    return comparison.own_run(name, own, seed)


def main() -> int:
    """Do what is left to do, then report; 1 where something failed."""
    status = 0
    parser = comparison_parser(__doc__, "runs/layers")
    parser.add_argument("--only", default=",".join([*OURS, "peer"]), help="sides, by comma")
    parser.add_argument("--rates", default=",".join(RATES), help="learning rates, by comma")
    given = parser.parse_args()
    comparison = Comparison.of(given, lab_bench(given.shared))
    if not given.report:
        require_shared(given.shared)
        runs = [comparison.base_run()]
        runs += [
            run_of(comparison, side, scope, rate, seed)
            for seed in map(int, given.seeds.split(","))
            for side in given.only.split(",")
            if side in OURS or given.peer
            for scope in LAYERS
            for rate in given.rates.split(",")
        ]
        status = execute_all(runs, jobs=given.jobs, retry=given.retry)
    write_report(comparison.out, list(LAYERS))
    return status


if __name__ == "__main__":
    sys.exit(main())
