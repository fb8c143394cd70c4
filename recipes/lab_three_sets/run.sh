#!/usr/bin/env bash
# The paper's two tables at lab scale, adapters only: bash recipes/lab_three_sets/run.sh [OVERRIDES]
source "$(dirname "$0")/../lab/checkout.sh"
lab=("${continuation[@]}" 'data.split_fractions=[0.7,0.1,0.2]')

"$python" -m lora_detox "${lab[@]}" budget=off guard=off hydra.run.dir="$out/rl" algorithm.iterations=25 \
  algorithm.rollout_batch_size=32 algorithm.learning_rate=1e-3 algorithm.kl.coef=0.3 \
  evaluation.every=25 evaluation.test_prompts=200 "$@"
"$python" -m lora_detox stage=evaluate "${lab[@]}" hydra.run.dir="$out/table" \
  evaluation.protocol=three_sets evaluation.prompts=400 \
  data@evaluation.sets.toxic=local data@evaluation.sets.benign=local \
  evaluation.sets.toxic.path="$shared/data/jigsaw_balanced.test.jsonl.gz" \
  evaluation.sets.toxic.fields.prompt=text evaluation.sets.toxic.fields.toxicity=label \
  evaluation.sets.toxic.min_toxicity=0.5 'evaluation.sets.toxic.query_tokens=[10,15]' \
  evaluation.sets.benign.path="$shared/data/wikipedia_paragraphs.jsonl.gz" \
  evaluation.sets.benign.fields.prompt=text 'evaluation.sets.benign.query_tokens=[10,15]' \
  "evaluation.models=['$shared/lab/gptj-comments','$out/rl']" "$@"
