"""Stage 6 of an iteration: the row of metrics.jsonl, and the alarms that end a run."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lora_detox.errors import DivergenceError
from lora_detox.metrics import kl, names
from lora_detox.metrics.diversity import lettered_words
from lora_detox.metrics.quality import RolloutQuality, rollout_quality
from lora_detox.rollout import Responses, collect_rollout, generate_responses
from lora_detox.scores import prefix_credit
from lora_detox.types import Rollout, Scores, UpdateStats

if TYPE_CHECKING:
    from lora_detox.run.build import Job

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}
"""How far logprobs of one token may differ between two passes of the same weights, nats."""


def check_start(job: "Job", iteration: int, rollout: Rollout, responses: Responses) -> None:
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
    if not job.quantized and not gap <= 10 * tolerance:
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


class Turn(NamedTuple):
    """The records of one iteration, in the order in which they came about."""

    rollout: Rollout
    responses: Responses
    scores: Scores
    quality: RolloutQuality
    kl_coef: float
    stats: UpdateStats


def iteration_row(job: "Job", iteration: int, turn: Turn) -> dict[str, Any]:
    """What metrics.jsonl says of one iteration; also moves the KL control and the budget.

    Args:
        job: clock, scaler, KL control and budget are read.
        iteration: from 0.
        turn: what the iteration brought.

    Returns:
        Names of `metrics.names` and of UpdateStats to numbers.

    Raises:
        DivergenceError: no optimizer step of the iteration was possible, or a number is not finite.
    """
    rollout, scores, measures = turn.rollout, turn.scores, turn.quality.measures
    mask = rollout.response_mask
    k1 = measures[names.REF_KL]
    k3 = kl.response_sums(kl.k3(rollout.logprobs, rollout.ref_logprobs), mask).mean()
    gap = ((rollout.logprobs - turn.responses.logprobs).abs() * mask).max()
    row: dict[str, Any] = {
        "iteration": iteration + 1,
        names.SCORE: float(scores.score.mean()),
        names.TOXICITY: float(scores.toxicity.mean()),
        **measures,
        names.REF_KL_K3: float(k3),
        names.KL_COEF: turn.kl_coef,
        "kl_cost": turn.kl_coef * k1,
        **job.budget.columns(),
        "score_std": job.scaler.std,
        "length_slope": job.length_correction.slope,
        "step_factor": job.step_control.factor,
        "sampling_gap": float(gap),
        **{name: value for name, value in vars(turn.stats).items() if value is not None},
    }
    row.update({f"score_{name}": float(part.mean()) for name, part in scores.parts.items()})
    row.update({f"seconds_{phase}": spent for phase, spent in job.clock.lap().items()})
    _check_alive(iteration, row, turn.stats)
    job.kl_control.update(k1, len(mask))
    job.step_control.update(turn.stats.approx_kl)
    job.budget.observe(measures)
    return row


def _check_alive(iteration: int, row: dict[str, Any], stats: UpdateStats) -> None:
    if stats.optimizer_steps == 0:
        raise DivergenceError(
            f"iteration {iteration + 1}: all {stats.skipped_steps} optimizer steps were skipped "
            f"(mean ratio {stats.ratio:.3g}, policy loss {stats.policy_loss:.3g}); lower "
            "algorithm.learning_rate, or raise algorithm.kl_coef"
        )
    broken = [key for key in (names.SCORE, names.REF_KL) if not math.isfinite(row[key])]
    if broken:
        raise DivergenceError(
            f"iteration {iteration + 1}: {', '.join(broken)} is not finite; lower "
            "algorithm.learning_rate"
        )


def corrected_score(job: "Job", rollout: Rollout, scores: Scores) -> Tensor:
    """The scores [B] without what length alone predicts, where that is asked for."""
    words = [lettered_words(text) for text in rollout.response_texts]
    job.length_correction.observe(scores.score, words)
    return job.length_correction(scores.score, words)


def token_credit(job: "Job", rollout: Rollout, score: Tensor) -> Tensor:
    """Which tokens changed the score [B, R], score units before scaling; 0 where not asked for."""
    every = job.settings.algorithm.credit_every
    if every is None:
        return torch.zeros_like(rollout.logprobs)
    said = (rollout.response_ids, rollout.response_mask)
    found = prefix_credit(
        job.reward,
        rollout.prompts,
        said,
        score,
        job.policy.decode_texts,
        every,
        lambda potentials, texts: job.length_correction(
            potentials, list(map(lettered_words, texts))
        ),
    )
    return found.to(rollout.logprobs.device)


def start_measures(job: "Job") -> list[dict[str, float]]:
    """What rollouts of the start are like, on prompts and draws that come after those of the plan.

    Args:
        job: before its first iteration.

    Returns:
        Names of `metrics.names` to means, of each of `budget.start_rollouts` rollouts.
    """
    plan, found = job.plan, []
    for index in range(plan.iterations, plan.iterations + job.settings.budget.start_rollouts):
        prompts, seed = job.prompts(index), job.seed(index)
        responses = generate_responses(
            job.policy, prompts, plan.sampling, **plan.generation, seed=seed
        )
        rollout = collect_rollout(
            job.policy, prompts, responses, plan.sampling, **plan.collection, seed=seed
        )
        found.append(rollout_quality(rollout).measures)
    return found
