# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""How civil is the start when the best of its own responses is chosen? The judge on the best of n.

    .venv/bin/python -m recipes.headline.floor [--shared DIR] [--samples 8]

Samples responses of the lab's GPT-J to the validation prompts of recipes/lab_continuation, keeps
the one with the highest reward of the first n, and has the held-out classifier (`judge`) score it.
The KL of best-of-n is at most log n - (n - 1) / n nats (Stiennon et al. 2020; Beirami et al. 2024).
"""

import argparse
import math
import tempfile

import torch

from lora_detox import api
from lora_detox.rollout import generate_responses
from lora_detox.run.build import open_job
from lora_detox.scores import score_prompts
from recipes.lab.options import require_shared
from recipes.lab.overrides import continuation


def draws(shared: str, count: int) -> dict[str, torch.Tensor]:
    """Responses of the start to the validation prompts, as columns [count, prompts].

    Args:
        shared: folder of corpora and models.
        count: responses to each prompt.

    Returns:
        `score` of the reward, `judge` toxicity, `tokens`, and `nll` in nats per response.
    """
    columns: dict[str, list[torch.Tensor]] = {"score": [], "judge": [], "tokens": [], "nll": []}
    overrides = continuation(shared, split="[0.6,0.2,0.2]")  # as lab_continuation has it
    with tempfile.TemporaryDirectory() as folder:
        settings = api.compose_settings([*overrides, "evaluation.validation_prompts=400"], folder)
        with open_job(settings) as job:
            if job.judge is None:
                raise SystemExit("a judge is needed")
            prompts = job.encoded.validation
            for seed in range(count):
                responses = generate_responses(
                    job.policy,
                    prompts,
                    job.plan.sampling,
                    **job.plan.generation,
                    seed=seed,
                )
                rewarded = score_prompts(job.reward, prompts, responses.texts)
                judged = score_prompts(job.judge, prompts, responses.texts)
                columns["score"].append(rewarded.score)
                columns["judge"].append(judged.toxicity)
                columns["tokens"].append(responses.mask.sum(dim=1).float())
                columns["nll"].append(-responses.logprobs.sum(dim=1))
    return {name: torch.stack(parts) for name, parts in columns.items()}


def main() -> None:
    """One line per n."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", default="../shared", help="corpora and models")
    parser.add_argument("--samples", type=int, default=8)
    given = parser.parse_args()
    require_shared(given.shared)
    drawn = draws(given.shared, given.samples)
    start = float(drawn["judge"].mean())
    print(f"start: judge {start:.4f}, {float(drawn['tokens'].mean()):.1f} tokens")
    for n in (2**k for k in range(1, int(math.log2(given.samples)) + 1)):
        best = drawn["score"][:n].argmax(dim=0)[None]
        judge, tokens, nll = (drawn[k].gather(0, best) for k in ("judge", "tokens", "nll"))
        mean, perplexity = float(judge.mean()), math.exp(nll.sum() / tokens.sum())
        print(
            f"best of {n}: judge {mean:.4f} ({mean / start - 1:+.1%}), "
            f"{float(tokens.mean()):.1f} tokens, perplexity {perplexity:.0f}, "
            f"KL at most {math.log(n) - (n - 1) / n:.2f}"
        )


if __name__ == "__main__":
    main()
