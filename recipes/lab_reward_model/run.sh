#!/usr/bin/env bash
# Fine-tune the lab's reward classifier on Jigsaw comments: bash recipes/lab_reward_model/run.sh [OVERRIDES]
source "$(dirname "$0")/../lab/checkout.sh"
exec "$python" -m lora_detox stage=reward_model hydra.run.dir="$out" \
  reward_model.path="$shared/lab/roberta-reward" 'reward_model.labels=[nothate,hate]' \
  data=local data.path="$shared/data/jigsaw_balanced.test.jsonl.gz" \
  data.fields.prompt=text data.fields.toxicity=label \
  reward_model.max_steps=250 reward_model.max_tokens=64 reward_model.learning_rate=2e-4 \
  "reward_model.test_sets.hatecheck=$shared/data/hatecheck.test.jsonl.gz" \
  "reward_model.test_sets.sentence_templates=$shared/data/sentence_templates_en.jsonl.gz" "$@"
