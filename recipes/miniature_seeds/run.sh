#!/usr/bin/env bash
# Both tasks with seeds 1 to 5, then one table: bash recipes/miniature_seeds/run.sh [OVERRIDES]
source "$(dirname "$0")/../lab/checkout.sh"
"$python" -m lora_detox --multirun task=flan_summary,gptj_continuation seed=1,2,3,4,5 \
  hydra.sweep.dir="$out" "$@"
"$python" -m recipes.lab.sweep_table "$out"
