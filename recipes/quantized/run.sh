#!/usr/bin/env bash
# Both tasks on int8 and nf4 backbones, then one table: bash recipes/quantized/run.sh [OVERRIDES]
source "$(dirname "$0")/../lab/checkout.sh"
"$python" -m lora_detox --multirun task=flan_summary,gptj_continuation quantization=int8,nf4 budget=off guard=off \
  hydra.sweep.dir="$out" "$@"
"$python" -m recipes.lab.sweep_table "$out"
