#!/usr/bin/env bash
# Two sentiment classifiers and RL towards positive reviews, on IMDB: bash recipes/lab_sentiment/run.sh [OVERRIDES]
source "$(dirname "$0")/../lab/checkout.sh"

for part in reward:val judge:test; do   # the two learn from different reviews
  "$python" -m lora_detox stage=reward_model hydra.run.dir="$out/${part%:*}" reward.probe=false \
    reward_model.path="$shared/lab/roberta-${part%:*}" reward_model.new_head=true \
    'reward_model.labels=[negative,positive]' \
    data=local data.path="$shared/data/imdb.${part#*:}.jsonl.gz" \
    data.fields.prompt=text data.fields.toxicity=sentiment data.fields.references=null \
    reward_model.max_tokens=96 reward_model.max_steps=300 reward_model.learning_rate=3e-4 \
    reward_model.log_every=25 checkpoint.every=0 "$@"
done
"$python" -m lora_detox task=imdb_sentiment hydra.run.dir="$out/rl" \
  policy=local policy.path="$shared/lab/gptj-comments" \
  data=local data.path="$shared/data/imdb.val.jsonl.gz" \
  reward=local reward.path="$out/reward/classifier" reward.label=positive reward.probe=false \
  judge=local judge.path="$out/judge/classifier" judge.label=positive judge.probe=false \
  algorithm.learning_rate=5e-4 algorithm.kl.coef=0.2 'budget.words=[1.0,null]' \
  algorithm.rollout_batch_size=64 algorithm.minibatch_size=32 algorithm.microbatch_size=16 \
  algorithm.iterations=40 evaluation.every=20 evaluation.test_prompts=300 "$@"
