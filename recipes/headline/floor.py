"""How civil can the start be by choosing among its own responses? The judge on the best of n.

    .venv/bin/python recipes/headline/floor.py [--shared DIR] [--samples 8]

Samples responses of the lab's GPT-J to the validation prompts of recipes/lab_continuation, keeps
the one that the reward likes best of the first n, and asks the judge. The KL of best-of-n is at
most log n - (n - 1) / n nats (Stiennon et al. 2020; Beirami et al. 2024).
"""

import argparse
import math
import tempfile

import torch

from lora_detox import api
from lora_detox.rollout import generate_responses
from lora_detox.run.build import build_job
from lora_detox.scores import score_prompts


def overrides(shared: str) -> list[str]:
    """The lab: policy, reward, judge and prompts as in recipes/lab_continuation/run.sh."""
    return [
        "task=gptj_continuation",
        "threads=1",
        "policy=local",
        f"policy.path={shared}/lab/gptj-comments",
        "policy.dtype=bfloat16",
        "data=local",
        f"data.path={shared}/data/rtp.val.jsonl.gz",
        "data.min_toxicity=0.3",
        "data.query_tokens=[10,15]",
        "data.split_fractions=[0.6,0.2,0.2]",
        "reward=local",
        f"reward.path={shared}/lab/roberta-reward",
        "reward.label=nothate",
        "judge=local",
        f"judge.path={shared}/lab/roberta-judge",
        "judge.label=neutral",
        "evaluation.validation_prompts=400",
    ]


def main() -> None:
    """One line per n."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", default="../shared", help="corpora and models")
    parser.add_argument("--samples", type=int, default=8)
    given = parser.parse_args()
    columns: dict[str, list[torch.Tensor]] = {"score": [], "judge": [], "tokens": [], "nll": []}
    with tempfile.TemporaryDirectory() as folder:
        settings = api.compose_settings(overrides(given.shared), folder)
        with build_job(settings) as job:
            if job.judge is None:
                raise SystemExit("a judge is needed")
            for draw in range(given.samples):
                said = generate_responses(
                    job.policy, job.validation, job.plan.sampling, **job.plan.generation, seed=draw
                )
                columns["score"].append(score_prompts(job.reward, job.validation, said.texts).score)
                judged = score_prompts(job.judge, job.validation, said.texts)
                columns["judge"].append(judged.toxicity)
                columns["tokens"].append(said.mask.sum(dim=1).float())
                columns["nll"].append(-said.logprobs.sum(dim=1))
    taken = {name: torch.stack(parts) for name, parts in columns.items()}
    start = float(taken["judge"].mean())
    print(f"start: judge {start:.4f}, {float(taken['tokens'].mean()):.1f} tokens")
    for n in (2**k for k in range(1, int(math.log2(given.samples)) + 1)):
        best = taken["score"][:n].argmax(dim=0)[None]
        judge, tokens, nll = (taken[k].gather(0, best) for k in ("judge", "tokens", "nll"))
        mean, perplexity = float(judge.mean()), math.exp(nll.sum() / tokens.sum())
        print(
            f"best of {n}: judge {mean:.4f} ({mean / start - 1:+.1%}), "
            f"{float(tokens.mean()):.1f} tokens, perplexity {perplexity:.0f}, "
            f"KL at most {math.log(n) - (n - 1) / n:.2f}"
        )


if __name__ == "__main__":
    main()
