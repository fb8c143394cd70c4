#!/usr/bin/env bash
# Detoxify the lab's summarizer on dialogues with a toxic turn: bash recipes/lab_summary/run.sh [OVERRIDES]
source "$(dirname "$0")/../lab/checkout.sh"
exec "$python" -m lora_detox "${summary[@]}" \
  data.path="$shared/data/toxic_turn.train.jsonl.gz" \
  data.validation_path="$shared/data/toxic_turn.dev.jsonl.gz" \
  data.test_path="$shared/data/toxic_turn.test.jsonl.gz" \
  adapter.scope=decoder 'adapter.targets=[all-linear]' algorithm.iterations=24 \
  algorithm.rollout_batch_size=64 algorithm.minibatch_size=32 algorithm.microbatch_size=16 \
  algorithm.ppo_epochs=2 algorithm.learning_rate=3e-4 algorithm.schedule=linear \
  algorithm.warmup_iterations=5 algorithm.average=0.9 algorithm.expert.prefix_credit_every=3 \
  algorithm.kl.charge=k3_loss algorithm.kl.control=fixed algorithm.kl.coef=0.05 \
  'budget.words=[1.1,1.1]' budget.length=0.97 budget.rouge_l=0.05 budget.distinct_2=0.05 budget.kl=3.3 \
  'budget.fallback=[]' 'budget.extrapolation=[1.25,1.5,1.75]' \
  budget.controller.margin=1 'budget.controller.multipliers={rougeL: 2}' reward.length_debias=true \
  evaluation.every=4 evaluation.validation_prompts=300 evaluation.test_prompts=218 "$@"
