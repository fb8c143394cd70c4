"""Several scored responses to each prompt: what DPO and best-of-n learn from."""

from collections.abc import Iterator
from dataclasses import dataclass

from lora_detox.errors import DataError
from lora_detox.progress import phase
from lora_detox.rollout import generate_responses
from lora_detox.run.job import Job
from lora_detox.scores import score_prompts

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


def score_groups(job: Job) -> Iterator[ScoredGroup]:
    """Answer the training prompts of a run with the policy as it is, and score the responses.

    Args:
        job: policy, reward, prompts and sampling are read; the prompts of a group stand in a row.

    Yields:
        iterations x rollout_batch_size / responses_per_prompt groups.
    """
    total = job.plan.iterations * job.settings.algorithm.rollout_batch_size
    with phase("sampling and scoring", total, "responses", passes=2) as shown:
        for iteration in range(job.plan.iterations):
            yield from _scored_groups(job, iteration)
            shown.finish_pass(2 * (iteration + 1) / job.plan.iterations)


def _scored_groups(job: Job, iteration: int) -> Iterator[ScoredGroup]:
    each, plan = job.settings.algorithm.responses_per_prompt, job.plan
    prompts, seed = job.prompts(iteration), job.seed(iteration)
    with job.clock("generate"):
        responses = generate_responses(
            job.policy, prompts, plan.sampling, **plan.generation, seed=seed
        )
    with job.clock("score"):
        scores = score_prompts(job.reward, prompts, responses.texts).score.tolist()
    sampled = [ids[mask].tolist() for ids, mask in zip(responses.ids, responses.mask, strict=True)]
    for first in range(0, len(sampled), each):
        yield ScoredGroup(
            query_ids=prompts.query_ids[first][prompts.query_mask[first]].tolist(),
            responses=sampled[first : first + each],
            scores=scores[first : first + each],
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
            "more; lower algorithm.trainer.least_gap, or raise algorithm.responses_per_prompt"
        )
    return pairs


def best_responses(groups: list[ScoredGroup]) -> list[tuple[Ids, Ids]]:
    """Each prompt with the response that scored highest (the first of equals), as ids."""
    return [
        (group.query_ids, group.responses[group.scores.index(max(group.scores))])
        for group in groups
    ]
