#!/usr/bin/env bash
# Detoxify the lab's GPT-J on RealToxicityPrompts: bash recipes/lab_continuation/run.sh [OVERRIDES]
source "$(dirname "$0")/../lab/checkout.sh"
exec "$python" -m lora_detox "${continuation[@]}" 'data.split_fractions=[0.6,0.2,0.2]' \
  'adapter.targets=[all-linear]' algorithm.iterations=80 \
  algorithm.rollout_batch_size=128 algorithm.minibatch_size=32 algorithm.microbatch_size=16 \
  algorithm.ppo_epochs=2 algorithm.learning_rate=2e-4 algorithm.schedule=linear \
  algorithm.warmup_iterations=5 algorithm.average=0.95 algorithm.expert.prefix_credit_every=2 \
  'budget.words=[1.0,1.0]' algorithm.kl.charge=k3_loss algorithm.kl.control=fixed algorithm.kl.coef=0.05 \
  budget.perplexity=0.05 budget.distinct_2=0.02 budget.controller.margin=1 budget.kl=8 budget.controller.damping=10 \
  evaluation.every=10 evaluation.validation_prompts=400 evaluation.test_prompts=200 "$@"
