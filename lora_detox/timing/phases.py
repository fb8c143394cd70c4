"""Seconds of the phases of one iteration, by doing them with random weights."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from lora_detox.advantages import estimate_advantages
from lora_detox.builders.training import Plan, make_optimizer, plan_of
from lora_detox.clock import Clock
from lora_detox.model_files import NO_CODE
from lora_detox.policy.policy import LoraPolicy
from lora_detox.positions import position_limit
from lora_detox.rollout import collect_rollout, generate_responses
from lora_detox.settings import Settings
from lora_detox.types import PromptBatch
from lora_detox.update import PpoUpdate

GENERATE, REFERENCE, UPDATE, SCORE = "generate", "reference", "update", "score"
"""Phases as the summary of a run names them."""
ENOUGH_SECONDS = 4.0
"""Rounds go on until they have taken this long, or there are `MOST_ROUNDS` of them."""
MOST_ROUNDS = 5
_MOVED = 1e-3
"""By how much the adapter is moved: policy and reference of a start are one pass."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """What is done once: so many rows, one epoch.

    Attributes:
        policy: with random weights.
        settings: of the run, its rollout cut to the rows of `prompts` and to one epoch.
        prompts: of the rollout.
    """

    policy: LoraPolicy
    settings: Settings
    prompts: PromptBatch


def phase_seconds(job: Round) -> dict[str, float]:
    """Median seconds of generation, reference pass and update.

    The first round, in which kernels are prepared, does not count where there is another.

    Args:
        job: what to do.

    Returns:
        Seconds by phase.
    """
    policy, settings = job.policy, job.settings
    plan = plan_of(settings, policy.backbone.dtype)
    with torch.no_grad():
        for parameter in policy.adapter_parameters():
            parameter.add_(_MOVED)
    update = PpoUpdate(
        policy,
        make_optimizer(settings.algorithm, policy),
        plan.ppo,
        plan.sampling,
        lambda iteration: 1e-6,
    )
    begin = time.perf_counter()
    rounds: list[dict[str, float]] = []
    while len(rounds) < MOST_ROUNDS and time.perf_counter() - begin < ENOUGH_SECONDS:
        rounds.append(_one_round(job, plan, update, len(rounds)))
    counted = rounds[1:] or rounds
    return {phase: statistics.median(one[phase] for one in counted) for phase in counted[0]}


def _one_round(job: Round, plan: Plan, update: PpoUpdate, seed: int) -> dict[str, float]:
    policy, prompts, clock = job.policy, job.prompts, Clock()
    with clock(GENERATE):
        responses = generate_responses(policy, prompts, plan.sampling, **plan.generation, seed=seed)
        _wait(policy)
    with clock(REFERENCE):
        rollout = collect_rollout(
            policy, prompts, responses, plan.sampling, **plan.collection, seed=seed
        )
        _wait(policy)
    score = torch.linspace(-1, 1, len(prompts.texts))
    advantages = estimate_advantages(rollout, score, 0.1, plan.advantages)
    with clock(UPDATE):
        update.step(rollout, advantages, seed)
        _wait(policy)
    return clock.total


def classifier_seconds(config: Any, texts: int, tokens: int, device: torch.device) -> float:
    """Median seconds of a classifier of that shape, with random weights, over one batch.

    Args:
        config: of the classifier.
        texts: of a batch.
        tokens: of each.
        device: where it will score: in 16 bits on a GPU, in 32 on a CPU.

    Returns:
        Seconds of the batch.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = AutoModelForSequenceClassification.from_config(config, dtype=dtype, **NO_CODE)
    model.eval().to(device)
    ids = torch.full((texts, min(tokens, position_limit(config) or tokens)), 5, device=device)
    begin = time.perf_counter()
    rounds: list[float] = []
    while len(rounds) < MOST_ROUNDS and time.perf_counter() - begin < ENOUGH_SECONDS / 2:
        start = time.perf_counter()
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().item()
        rounds.append(time.perf_counter() - start)
    return statistics.median(rounds[1:] or rounds)


def _wait(policy: LoraPolicy) -> None:
    """Until the device has done what it was told."""
    if policy.device.type == "cuda":
        torch.cuda.synchronize(policy.device)
