"""Stage 6 of an iteration: the row of metrics.jsonl, and the alarms that end a run."""

import math
from typing import TYPE_CHECKING, Any

import torch

from lora_detox.errors import DivergenceError
from lora_detox.metrics import kl, names
from lora_detox.rollout import Responses
from lora_detox.types import Rollout, Scores, UpdateStats

if TYPE_CHECKING:
    from lora_detox.stages.build import Job

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


def iteration_row(
    job: "Job",
    iteration: int,
    rollout: Rollout,
    responses: Responses,
    scores: Scores,
    stats: UpdateStats,
) -> dict[str, Any]:
    """What metrics.jsonl says of one iteration; also moves the KL control.

    Args:
        job: clock, scaler and KL control are read.
        iteration: from 0.
        rollout: stage 2.
        responses: what it was made from.
        scores: stage 3, before scaling.
        stats: stage 5.

    Returns:
        Names of `metrics.names` and of UpdateStats to numbers.

    Raises:
        DivergenceError: no optimizer step of the iteration was possible, or a number is not finite.
    """
    mask = rollout.response_mask
    k1 = kl.response_sums(kl.k1(rollout.logprobs, rollout.ref_logprobs), mask).mean()
    k3 = kl.response_sums(kl.k3(rollout.logprobs, rollout.ref_logprobs), mask).mean()
    gap = ((rollout.logprobs - responses.logprobs).abs() * mask).max()
    row: dict[str, Any] = {
        "iteration": iteration + 1,
        names.SCORE: float(scores.score.mean()),
        names.TOXICITY: float(scores.toxicity.mean()),
        names.REF_KL: float(k1),
        names.REF_KL_K3: float(k3),
        names.KL_COEF: job.kl_control.kl_coef,
        "token_bonus": job.length.token_bonus,
        "kl_cost": job.kl_control.kl_coef * float(k1),
        "score_std": job.scaler.std,
        names.RESPONSE_TOKENS: float(mask.sum(dim=1).float().mean()),
        "sampling_gap": float(gap),
        **{name: value for name, value in vars(stats).items() if value is not None},
    }
    row.update({f"score_{name}": float(part.mean()) for name, part in scores.parts.items()})
    row.update({f"seconds_{phase}": spent for phase, spent in job.clock.lap().items()})
    job.kl_control.update(float(k1), len(mask))
    if job.length.target is not None:
        job.length.update(row[names.RESPONSE_TOKENS])
    _check_alive(iteration, row, stats)
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
