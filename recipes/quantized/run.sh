#!/usr/bin/env bash
# Both tasks on int8 and nf4 backbones, then one table: bash recipes/quantized/run.sh [OVERRIDES]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
out=${OUT:-runs/quantized}
"$python" -m lora_detox --multirun task=flan_summary,gptj_continuation quantization=int8,nf4 budget=off guard=off \
  hydra.sweep.dir="$out" "$@"
"$python" recipes/miniature_seeds/table.py "$out"
