#!/usr/bin/env bash
# Detoxify the lab's GPT-J on RealToxicityPrompts: bash recipes/lab_continuation/run.sh [OVERRIDES]
set -euo pipefail
cd "$(dirname "$0")/../.."
shared=${SHARED:-../shared}
exec "${PYTHON:-.venv/bin/python}" -m lora_detox task=gptj_continuation \
  policy=local policy.path="$shared/lab/gptj-comments" \
  data=local data.path="$shared/data/rtp.val.jsonl.gz" \
  data.min_toxicity=0.3 'data.query_tokens=[10,15]' \
  reward=local reward.path="$shared/lab/roberta-reward" reward.label=nothate \
  judge=local judge.path="$shared/lab/roberta-judge" judge.label=neutral \
  algorithm.learning_rate=5e-4 algorithm.kl_coef=0.2 \
  algorithm.rollout_batch_size=64 algorithm.minibatch_size=32 algorithm.microbatch_size=16 \
  budget.distinct_2=0.02 budget.perplexity=0.05 algorithm.iterations=80 \
  evaluation.every=10 evaluation.validation_prompts=128 evaluation.test_prompts=165 \
  evaluation.samples_per_prompt=2 "$@"
