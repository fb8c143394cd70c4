#!/usr/bin/env bash
# Detoxify the lab's dialogue T5 on real toxic turns: bash recipes/lab_summary/run.sh [OVERRIDES]
set -euo pipefail
cd "$(dirname "$0")/../.."
shared=${SHARED:-../shared}
exec "${PYTHON:-.venv/bin/python}" -m lora_detox task=flan_summary budget=off guard=off \
  policy=local policy.path="$shared/lab/t5-dialogue" \
  data=local data.path="$shared/data/toxic_turn.train.jsonl.gz" \
  data.validation_path="$shared/data/toxic_turn.dev.jsonl.gz" \
  data.test_path="$shared/data/toxic_turn.test.jsonl.gz" \
  reward=local reward.path="$shared/lab/roberta-reward" reward.label=nothate \
  judge=local judge.path="$shared/lab/roberta-judge" judge.label=neutral \
  adapter.scope=decoder algorithm.learning_rate=5e-4 algorithm.length_target=0.8 \
  algorithm.iterations=80 evaluation.every=20 evaluation.test_prompts=218 "$@"
