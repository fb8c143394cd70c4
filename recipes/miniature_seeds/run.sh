#!/usr/bin/env bash
# Both tasks with seeds 1 to 5, then one table: bash recipes/miniature_seeds/run.sh [OVERRIDES]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
out=${OUT:-runs/miniature_seeds}
"$python" -m lora_detox --multirun task=flan_summary,gptj_continuation seed=1,2,3,4,5 budget=off guard=off \
  hydra.sweep.dir="$out" "$@"
"$python" recipes/miniature_seeds/table.py "$out"
