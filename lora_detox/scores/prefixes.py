"""Which tokens changed the score: scores of prefixes, as rewards that leave each sum as it is."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lora_detox.scores.contract import accepted_columns
from lora_detox.types import PromptBatch, Scorer

Decode = Callable[[Int[Tensor, "B R"], Bool[Tensor, "B R"]], list[str]]
Correct = Callable[[Float[Tensor, "N"], list[str]], Float[Tensor, "N"]]
"""Scores and their texts -> the scores that training sees."""


def prefix_credit(
    scorer: Scorer,
    prompts: PromptBatch,
    responses: tuple[Int[Tensor, "B R"], Bool[Tensor, "B R"]],
    score: Float[Tensor, "B"],
    decode: Decode,
    every: int,
    correct: Correct = lambda score, texts: score,
) -> Float[Tensor, "B R"]:
    """What each stretch of a response did to its score, rewarded at the end of the stretch.

    Potential-based shaping (Ng et al. 1999): the potential of a prefix is the score it would have
    as a response, that of nothing the mean score of the batch. What is given early is taken back
    at the last token, where the score itself is given. So no response earns more or less in all and
    the best policy stays the best; the advantages learn sooner which words it was.

    Args:
        scorer: the reward.
        prompts: B prompts with their columns.
        responses: ids and mask [B, R].
        score: of the whole responses, corrected.
        decode: ids and mask -> texts.
        every: tokens of a stretch, >= 1.
        correct: what was done to `score`, for those of the prefixes.

    Returns:
        Score units [B, R] on the CPU, 0 at padding; each row sums to 0.
    """
    ids, mask = responses
    lengths = mask.sum(dim=1).cpu()
    cuts = [
        (row, cut)
        for cut in range(every, ids.shape[1], every)
        for row in (lengths > cut).nonzero()[:, 0].tolist()
    ]
    credit = torch.zeros(ids.shape, dtype=torch.float32)
    if not cuts:
        return credit
    texts = {cut: decode(ids[:, :cut], mask[:, :cut]) for cut in {cut for _, cut in cuts}}
    rows = [row for row, _ in cuts]
    prefixes = [texts[cut][row] for row, cut in cuts]
    columns: dict[str, Sequence[Any]] = {
        "references": [prompts.references[row] for row in rows],
        "row_ids": [prompts.row_ids[row] for row in rows],
        "sources": [(prompts.sources or prompts.texts)[row] for row in rows],
    }
    scores = scorer.score(
        [prompts.texts[row] for row in rows], prefixes, **accepted_columns(scorer, columns)
    )
    potentials = correct(scores.score.float(), prefixes)
    start = float(score.float().mean())
    reached = torch.full((len(ids),), start)
    for (row, cut), potential in zip(cuts, potentials, strict=True):  # cuts ascend in each row
        credit[row, cut - 1] = potential - reached[row]
        reached[row] = potential
    credit[torch.arange(len(ids)), lengths - 1] -= reached - start
    return credit
