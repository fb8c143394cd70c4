#!/usr/bin/env bash
# Twenty trials on the miniature and the picture of their front: bash recipes/optuna_pareto/run.sh [OVERRIDES]
# A study that was ended goes on with the same command (OUT=FOLDER names another folder than runs/optuna_pareto).
source "$(dirname "$0")/../lab/checkout.sh"
"$python" -m lora_detox --multirun hydra/sweeper=optuna hydra.sweeper.trials=20 \
  task=gptj_continuation 'adapter.targets=[]' budget=off algorithm.iterations=6 algorithm.step_kl=0.01 threads=1 \
  evaluation.every=2 evaluation.validation_prompts=64 evaluation.test_prompts=64 evaluation.audit_prompts=12 \
  'algorithm.learning_rate=tag(log,interval(3e-4,3e-2))' 'algorithm.kl.coef=tag(log,interval(0.01,1))' \
  'algorithm.ppo_epochs=interval(1,4)' hydra.sweep.dir="$out" "$@"
"$python" -m recipes.optuna_pareto.picture "$out"
