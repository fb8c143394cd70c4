#!/usr/bin/env bash
# A summarizer's adapter by SFT on DialogSum, then RL from it: bash recipes/lab_sft_then_rl/run.sh
source "$(dirname "$0")/../lab/checkout.sh"
lab=("${summary[@]}" data.test_path="$shared/data/toxic_turn.test.jsonl.gz"
  adapter.rank=32 'adapter.targets=[all-linear]' evaluation.test_prompts=218 "$@")

"$python" -m lora_detox stage=sft "${lab[@]}" hydra.run.dir="$out/sft" \
  data.path="$shared/data/dialogsum.train.jsonl.gz" data.max_query_tokens=128 \
  data.validation_path="$shared/data/dialogsum.dev.jsonl.gz" \
  sft.max_steps=200 sft.learning_rate=2e-3 sft.batch_size=8 sft.max_response_tokens=48
"$python" -m lora_detox stage=detox "${lab[@]}" budget=off guard=off hydra.run.dir="$out/rl" \
  policy.adapter="$out/sft/adapter" \
  data.path="$shared/data/toxic_turn.train.jsonl.gz" \
  data.validation_path="$shared/data/toxic_turn.dev.jsonl.gz" \
  algorithm.iterations=25 algorithm.rollout_batch_size=16 algorithm.learning_rate=5e-4 \
  'budget.words=[1.0,null]' evaluation.every=25
"$python" -m lora_detox stage=evaluate "${lab[@]}" hydra.run.dir="$out/table" \
  data.path="$shared/data/toxic_turn.train.jsonl.gz" \
  "evaluation.models=['$shared/lab/t5-dialogue','$out/sft','$out/rl']"
