#!/usr/bin/env bash
# Both tasks on int8 and nf4 backbones, each adapter merged into the exact base: bash recipes/quantized/run.sh [OVERRIDES]
source "$(dirname "$0")/../lab/checkout.sh"
for weights in int8 nf4; do
  for task in flan_summary gptj_continuation; do
    "$python" -m lora_detox task="$task" quantization="$weights" hydra.run.dir="$out/${weights}_$task" "$@"
    "$python" -m lora_detox stage=export run="$out/${weights}_$task" export.merge=true \
      hydra.run.dir="$out/${weights}_${task}_export" "$@"
  done
done
"$python" -m recipes.lab.sweep_table "$out"
