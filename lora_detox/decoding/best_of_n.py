"""Best of n: of n responses to a prompt the one that the reward likes best is kept."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lora_detox.progress import phase
from lora_detox.rollout import Responses, generate_responses
from lora_detox.scores import score_prompts
from lora_detox.types import Policy, PromptBatch, Sampling, Scorer


class BestOfN:
    """Draws n responses to each prompt and keeps one; a `Generate`.

    The first of the n is the response of plain decoding, and n + 1 draws begin with those of n.

    Args:
        n: responses to each prompt, at least 2.
        reward: its score decides; of equal ones the first is kept.
    """

    def __init__(self, n: int, reward: Scorer) -> None:
        self.n, self.reward = n, reward

    def __call__(
        self,
        policy: Policy,
        prompts: PromptBatch,
        sampling: Sampling,
        *,
        seed: int,
        **generation: Any,
    ) -> Responses:
        """Answer the prompts n times, with seeds that follow each other."""
        count = len(prompts.texts)
        with phase(f"drawing {self.n} responses to each prompt", self.n * count, "responses"):
            draws = [
                generate_responses(policy, prompts, sampling, **generation, seed=seed + number)
                for number in range(self.n)
            ]
        scores = [score_prompts(self.reward, prompts, draw.texts).score for draw in draws]
        return keep_best(draws, torch.stack(scores).argmax(dim=0).tolist())


def keep_best(draws: list[Responses], best: list[int]) -> Responses:
    """One of several responses to each prompt.

    Args:
        draws: responses to the same B prompts.
        best: which draw is kept, by prompt.

    Returns:
        The kept responses; the tokens of the others are counted as discarded.
    """
    rows = torch.arange(len(best), device=draws[0].ids.device)
    chosen = torch.tensor(best, device=rows.device)

    def kept(columns: list[Tensor]) -> Tensor:
        width = max(one.shape[1] for one in columns)
        same = [functional.pad(one, (0, width - one.shape[1])) for one in columns]
        picked: Tensor = torch.stack(same)[chosen, rows]
        return picked

    mask = kept([draw.mask for draw in draws])
    everything = sum(int(draw.mask.sum()) for draw in draws)
    width = max(1, int(mask.any(dim=0).sum()))
    return Responses(
        ids=kept([draw.ids for draw in draws])[:, :width],
        mask=mask[:, :width],
        logprobs=kept([draw.logprobs for draw in draws])[:, :width],
        texts=[draws[number].texts[row] for row, number in enumerate(best)],
        discarded_tokens=everything - int(mask.sum()),
    )
