#!/usr/bin/env bash
# Two sentiment classifiers, a language model of reviews, RL, on IMDB: bash recipes/lab_sentiment/run.sh [OVERRIDES]
set -euo pipefail
cd "$(dirname "$0")/../.."
shared=${SHARED:-../shared}
out=${OUT:-runs/lab_sentiment}
python=${PYTHON:-.venv/bin/python}

for part in reward:val judge:test; do   # the two learn from different reviews
  "$python" -m lora_detox stage=reward_model hydra.run.dir="$out/${part%:*}" reward.probe=false \
    reward_model.path="$shared/lab/roberta-${part%:*}" reward_model.new_head=true \
    'reward_model.labels=[negative,positive]' \
    data=local data.path="$shared/data/imdb.${part#*:}.jsonl.gz" \
    data.fields.prompt=text data.fields.toxicity=sentiment data.fields.references=null \
    reward_model.max_tokens=96 reward_model.max_steps=300 reward_model.learning_rate=3e-4 \
    reward_model.log_every=25 "$@"
done

lab=(task=imdb_sentiment policy=local policy.path="$shared/lab/gptj-comments"
  reward=local reward.path="$out/reward/classifier" reward.label=positive reward.probe=false
  judge=local judge.path="$out/judge/classifier" judge.label=positive judge.probe=false
  data=local data.path="$shared/data/imdb.val.jsonl.gz" data.fields.references=null
  adapter.rank=32 'adapter.targets=[all-linear]' 'generation.response_tokens=[16,32]'
  evaluation.test_prompts=200 "$@")
"$python" -m lora_detox stage=sft "${lab[@]}" hydra.run.dir="$out/sft" \
  data.max_query_tokens=64 sft.max_steps=120 sft.learning_rate=2e-3
"$python" -m lora_detox stage=detox "${lab[@]}" hydra.run.dir="$out/rl" \
  policy.adapter="$out/sft/adapter" algorithm.learning_rate=5e-4 algorithm.kl_coef=0.1 \
  algorithm.length_target=1.0 algorithm.rollout_batch_size=64 algorithm.minibatch_size=32 \
  algorithm.microbatch_size=16 algorithm.iterations=30 evaluation.every=30
