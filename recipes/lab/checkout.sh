# Sourced by every run.sh: goes to the top of the checkout and names what recipes share.
# PYTHON=... another interpreter, SHARED=... another folder of corpora and models, OUT=... of results,
# MODELS=... of the classifiers that recipes/real_classifiers trained.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
cd "$recipe/../.."
python=${PYTHON:-.venv/bin/python}
shared=${SHARED:-../shared}
out=${OUT:-runs/$(basename "$recipe")}
# The reward, and the held-out classifier that judges.
scorers=(reward=local reward.path="$shared/lab/roberta-reward" reward.label=nothate
  judge=local judge.path="$shared/lab/roberta-judge" judge.label=neutral)
# GPT-J on prompts of RealToxicityPrompts above toxicity 0.3, cut to 10 to 15 tokens.
continuation=(task=gptj_continuation policy=local policy.path="$shared/lab/gptj-comments"
  data=local data.path="$shared/data/rtp.val.jsonl.gz" data.min_toxicity=0.3 'data.query_tokens=[10,15]'
  "${scorers[@]}")
# T5 on dialogues, with the classifiers of recipes/real_classifiers; the data are each recipe's own.
models=${MODELS:-runs/real}
summary=(task=flan_summary policy=local policy.path="$shared/lab/t5-summary" data=local
  reward=local reward.path="$models/classifiers/reward/classifier" reward.label=nothate
  judge=local judge.path="$models/classifiers/judge/classifier" judge.label=neutral)
