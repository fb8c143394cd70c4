"""Several scored responses to each prompt: what DPO and best-of-n learn from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lora_detox.errors import DataError
from lora_detox.rollout import generate_responses
from lora_detox.scores import score_prompts
from lora_detox.stages.evaluation import repeat_prompts
from lora_detox.types import PromptBatch

if TYPE_CHECKING:
    from lora_detox.stages.build import Job

Ids = list[int]


@dataclass(frozen=True, kw_only=True)
class ScoredGroup:
    """The responses to one prompt, with their scores.

    Attributes:
        query_ids: ids of the prompt, as the policy read them, without padding.
        responses: n responses as sampled ids, end-of-sequence included where it was sampled.
        scores: n scores, higher is better.
    """

    query_ids: Ids
    responses: list[Ids]
    scores: list[float]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A response and a worse one to the same prompt, all as ids."""

    query_ids: Ids
    chosen: Ids
    rejected: Ids


def prompts_of_run(job: "Job", samples_per_prompt: int) -> Iterator[PromptBatch]:
    """The prompts of a run that scores as many responses as the main path would.

    Args:
        job: whose training prompts are read, in their order.
        samples_per_prompt: n, responses to each prompt.

    Yields:
        One batch per iteration, each of rollout_batch_size / n different places of the data.
    """
    size = job.settings.algorithm.rollout_batch_size // samples_per_prompt
    for iteration in range(job.plan.iterations):
        whole = job.prompts(iteration // samples_per_prompt)
        first = (iteration % samples_per_prompt) * size
        yield _slice(whole, first, first + size)


def score_groups(job: "Job", samples_per_prompt: int) -> Iterator[ScoredGroup]:
    """Answer each training prompt n times with the policy as it is, and score the responses.

    Args:
        job: policy, reward, prompts and sampling are read.
        samples_per_prompt: n.

    Yields:
        iterations x rollout_batch_size / n groups of n.
    """
    for iteration, prompts in enumerate(prompts_of_run(job, samples_per_prompt)):
        asked = repeat_prompts(prompts, samples_per_prompt)
        with job.clock("generate"):
            responses = generate_responses(
                job.policy,
                asked,
                job.plan.sampling,
                **job.plan.generation,
                seed=job.seed(iteration),
            )
        with job.clock("score"):
            scores = score_prompts(job.reward, asked, responses.texts).score.tolist()
        said = [ids[mask].tolist() for ids, mask in zip(responses.ids, responses.mask, strict=True)]
        for place in range(len(prompts.texts)):
            rows = slice(place * samples_per_prompt, (place + 1) * samples_per_prompt)
            yield ScoredGroup(
                query_ids=prompts.query_ids[place][prompts.query_mask[place]].tolist(),
                responses=said[rows],
                scores=scores[rows],
            )


def preference_pairs(groups: list[ScoredGroup], least_gap: float) -> list[Pair]:
    """The best response of each group against its worst.

    Args:
        groups: scored responses.
        least_gap: groups whose best and worst differ by less are left out, and those whose best
            is no better than their worst; score units.

    Returns:
        At most one pair per group.

    Raises:
        DataError: no group differs by so much.
    """
    pairs = []
    for group in groups:
        order = sorted(range(len(group.scores)), key=group.scores.__getitem__)
        worst, best = order[0], order[-1]
        gap = group.scores[best] - group.scores[worst]
        if gap > 0 and gap >= least_gap and group.responses[best] != group.responses[worst]:
            pairs.append(
                Pair(
                    query_ids=group.query_ids,
                    chosen=group.responses[best],
                    rejected=group.responses[worst],
                )
            )
    if not pairs:
        raise DataError(
            f"none of {len(groups)} groups has responses whose scores differ by {least_gap:g} or "
            "more; lower algorithm.trainer.least_gap, or raise algorithm.trainer.samples_per_prompt"
        )
    return pairs


def best_responses(groups: list[ScoredGroup]) -> list[tuple[Ids, Ids]]:
    """Each prompt with the response that scored highest (the first of equals), as ids."""
    return [
        (group.query_ids, group.responses[group.scores.index(max(group.scores))])
        for group in groups
    ]


def _slice(prompts: PromptBatch, first: int, end: int) -> PromptBatch:
    rows = torch.arange(first, end, device=prompts.query_ids.device)
    return PromptBatch(
        texts=prompts.texts[first:end],
        query_ids=prompts.query_ids[rows],
        query_mask=prompts.query_mask[rows],
        references=prompts.references[first:end],
        row_ids=prompts.row_ids[first:end],
    )
