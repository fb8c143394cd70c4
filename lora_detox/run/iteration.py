"""Around one iteration: the checks at its beginning, its row of metrics.jsonl, what comes after."""

import math
from typing import Any, NamedTuple

import torch

from lora_detox.comparison.pruning import prune_if_hopeless
from lora_detox.errors import DivergenceError
from lora_detox.metrics import kl, names
from lora_detox.metrics.quality import RolloutQuality
from lora_detox.progress import TrainingProgress, phase
from lora_detox.report.console import print_line
from lora_detox.rollout import (
    Responses,
    collect_rollout,
    generate_responses,
    rollout_of_start,
)
from lora_detox.run.checksums import check_moved
from lora_detox.run.job import Job
from lora_detox.run.stopping import is_due
from lora_detox.scores.control_rewards import CONSTANT
from lora_detox.types import Rollout, Scores, UpdateStats

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}
"""How far logprobs of one token may differ between two passes of the same weights, nats."""


EQUAL_SCORES = "equal_scores"
"""Key of a row, until it is written: whether all responses of the iteration had one score."""
MOST_EQUAL_BATCHES = 3
"""So many iterations at the start, each with equal scores, end a run."""


class IterationRecords(NamedTuple):
    """The records of one iteration, in the order in which they came about."""

    rollout: Rollout
    responses: Responses
    scores: Scores
    quality: RolloutQuality
    kl_coef: float
    stats: UpdateStats


def learn_start(job: Job) -> None:
    """Tell the budget what rollouts of the start are like.

    Their prompts and draws come after those of the plan, so that training never sees them.

    Args:
        job: before its first iteration; `budget.controller.start_rollouts` are sampled.
    """
    plan, measured, count = job.plan, [], job.settings.budget.controller.start_rollouts
    responses_in_all = count * job.settings.algorithm.rollout_batch_size
    what = "measuring what the budget compares with"
    with job.clock("evaluate"), phase(what, responses_in_all, "responses"):
        for index in range(plan.iterations, plan.iterations + count):
            prompts, seed = job.prompts(index), job.seed(index)
            responses = generate_responses(
                job.policy, prompts, plan.sampling, **plan.generation, seed=seed
            )
            if job.policy.is_reference and not job.quantized:
                rollout = rollout_of_start(prompts, responses)
            else:
                rollout = collect_rollout(
                    job.policy, prompts, responses, plan.sampling, **plan.collection, seed=seed
                )
            measured.append(job.quality(rollout).measures)
        job.controls.budget.begin(measured)
    for name, start in job.controls.budget.unbound().items():
        print_line(f"note     the start's {name} is {start:.3g}: only a start above 0 can be held")


def check_start(job: Job, iteration: int, rollout: Rollout, responses: Responses) -> None:
    """Before the first update the policy is its reference: KL 0, and sampled as scored.

    Args:
        job: whose policy it is.
        iteration: from 0.
        rollout: with recomputed logprobs.
        responses: with the logprobs of sampling.

    Raises:
        DivergenceError: the reference is not the policy at the start, or responses were drawn from
            another distribution than the one that is scored.
    """
    mask = rollout.response_mask
    tolerance = TOLERANCE[job.policy.backbone.dtype]
    gap = float(((rollout.logprobs - responses.logprobs).abs() * mask).max())
    if not (job.quantized or job.sampler.is_remote) and not gap <= 10 * tolerance:
        raise DivergenceError(
            f"iteration {iteration}: sampled and recomputed logprobs differ by {gap:.3g} nats, "
            f"want at most {10 * tolerance:g}: generation and scoring see different distributions"
        )
    if iteration > 0:
        return
    distance = float(((rollout.logprobs - rollout.ref_logprobs).abs() * mask).max())
    if not distance <= tolerance:
        raise DivergenceError(
            f"the KL to the reference is not 0 before the first update: logprobs differ by "
            f"{distance:.3g} nats, want at most {tolerance:g}; the reference is not the policy "
            "that training starts from"
        )


def iteration_row(iteration: int, records: IterationRecords) -> dict[str, Any]:
    """What metrics.jsonl says of one iteration; nothing is moved by it.

    Args:
        iteration: from 0.
        records: what the iteration brought.

    Returns:
        Names of `metrics.names` and of UpdateStats to numbers.
    """
    rollout, scores, measures = records.rollout, records.scores, records.quality.measures
    mask = rollout.response_mask
    k3 = kl.response_sums(kl.k3(rollout.logprobs, rollout.ref_logprobs), mask).mean()
    gap = ((rollout.logprobs - records.responses.logprobs).abs() * mask).max()
    return {
        "iteration": iteration + 1,
        names.SCORE: float(scores.score.mean()),
        names.TOXICITY: float(scores.toxicity.mean()),
        **measures,
        names.REF_KL_K3: float(k3),
        names.KL_COEF: records.kl_coef,
        "kl_cost": records.kl_coef * measures[names.REF_KL],
        "sampling_gap": float(gap),
        **{name: value for name, value in vars(records.stats).items() if value is not None},
        **{f"score_{name}": float(part.mean()) for name, part in scores.parts.items()},
    }


def check_alive(row: dict[str, Any]) -> None:
    """An iteration without a single optimizer step, or with numbers that are not finite.

    Args:
        row: from `iteration_row`.

    Raises:
        DivergenceError: with what to change.
    """
    iteration = row["iteration"]
    if row["optimizer_steps"] == 0:
        raise DivergenceError(
            f"iteration {iteration}: all {row['skipped_steps']} optimizer steps were skipped "
            f"(mean ratio {row['ratio']:.3g}, policy loss {row['policy_loss']:.3g}); lower "
            "algorithm.learning_rate, or raise algorithm.kl.coef"
        )
    broken = [key for key in (names.SCORE, names.REF_KL) if not math.isfinite(row[key])]
    if broken:
        raise DivergenceError(
            f"iteration {iteration}: {', '.join(broken)} is not finite; lower "
            "algorithm.learning_rate"
        )


def check_learning(job: Job, done: int, row: dict[str, Any], *, equal: bool) -> str | None:
    """Whether there is anything to learn; a reward that is rarely earned may take some iterations.

    Args:
        job: whose policy learns.
        done: iterations behind.
        row: from `iteration_row`.
        equal: whether all responses of the iteration had one score.

    Returns:
        What a person should know; None where scores differ.

    Raises:
        DivergenceError: scores differ and the adapter did not move in the first update, or they
            have not differed since the start.
    """
    constant = job.settings.reward.function == CONSTANT
    if constant or job.state.equal_batches < done - 1:
        return None
    if not equal and row["gradient_norm"] > 0:
        if done == 1:
            check_moved(job.policy, job.adapter_checksum, job.settings.reward.function)
        return None
    job.state.equal_batches = done
    if done >= MOST_EQUAL_BATCHES:
        raise DivergenceError(
            f"in each of the first {done} iterations the responses that are compared had equal "
            f"scores (mean {row[names.SCORE]:.3g}), so that nothing can be learned; raise "
            "algorithm.responses_per_prompt, algorithm.rollout_batch_size or "
            "generation.temperature, or take a reward that responses of the start earn in part"
        )
    return (
        f"iteration {done}: equal scores (mean {row[names.SCORE]:.3g}), so nothing was learned; "
        f"{MOST_EQUAL_BATCHES} such iterations at the start end the run"
    )


def after_iteration(
    job: Job, iteration: int, row: dict[str, Any], progress: TrainingProgress
) -> None:
    """Evaluate where due, let the checkpoint selector decide, record and save.

    Args:
        job: whose iteration it was.
        iteration: from 0.
        row: of metrics.jsonl; `error` where the iteration diverged.
        progress: is told.

    Raises:
        PrunedError: this is a trial of a study, and earlier trials leave it no prospects.
    """
    done, every, unlearned = iteration + 1, job.settings.evaluation.every, None
    equal = row.pop(EQUAL_SCORES, False)
    if (error := row.pop("error", None)) is not None:
        message: str | None = job.selector.roll_back(done, error, row)
    else:
        unlearned = check_learning(job, done, row, equal=equal)
        job.state.observe()
        if done % every == 0 or done == job.plan.iterations:
            row["evaluation"] = job.validate()
        message = job.selector.consider(done, row)
    job.record(row)
    for line in (unlearned, message):
        if line is not None:
            progress.message(line)
    progress.update(done, row)
    at_end = done == job.plan.iterations or job.selector.stopped is not None
    if not at_end and error is None:
        prune_if_hopeless(done, row.get("evaluation"))
    if is_due(job.settings.checkpoint, done, job.state.saved_at, at_end=at_end):
        job.save(done)
