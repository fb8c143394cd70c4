#!/usr/bin/env bash
# Train on int8, export merged into the unquantized base, both families: bash recipes/export_merged/run.sh [OVERRIDES]
source "$(dirname "$0")/../lab/checkout.sh"
for task in flan_summary gptj_continuation; do
  "$python" -m lora_detox task="$task" quantization=int8 budget=off guard=off algorithm.iterations=20 evaluation.every=20 \
    hydra.run.dir="$out/$task" "$@"
  "$python" -m lora_detox stage=export run="$out/$task" export.merge=true \
    hydra.run.dir="$out/${task}_export" "$@"
done
