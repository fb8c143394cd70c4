"""Settings -> the plain arguments of each stage of the arrow."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import get_scheduler

from lora_detox.advantages import AdvantagePlan
from lora_detox.builders.policy import adapter_path
from lora_detox.choices import Action, KlCharge, KlPenalty, LossMean, Schedule
from lora_detox.errors import SettingsError
from lora_detox.machine import resolve_device
from lora_detox.policy.adapter_kinds import kind_of
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.stored_adapter import read_stored
from lora_detox.rollout import Passes
from lora_detox.settings import AlgorithmSettings, Settings
from lora_detox.types import Sampling
from lora_detox.update import PpoPlan


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the main path needs of the settings.

    Attributes:
        iterations: how many there are.
        sampling: how tokens are drawn in training.
        generation: further arguments of `generate_responses`.
        collection: further arguments of `collect_rollout`.
        advantages: how scores become advantages.
        ppo: numbers of the update.
    """

    iterations: int
    sampling: Sampling
    generation: dict[str, Any]
    collection: dict[str, Any]
    advantages: AdvantagePlan
    ppo: PpoPlan


def sampling_of(settings: Settings) -> Sampling:
    """How tokens are drawn in training."""
    generation = settings.generation
    return Sampling(
        temperature=generation.temperature,
        top_k=generation.top_k,
        top_p=generation.top_p,
        min_new_tokens=generation.min_new_tokens,
    )


def plan_of(settings: Settings, dtype: torch.dtype) -> Plan:
    """The plan of a detox run with a backbone of some dtype."""
    algorithm, generation = settings.algorithm, settings.generation
    charge, expert = algorithm.kl.charge, algorithm.expert
    in_loss = charge is KlCharge.k3_loss
    penalty = KlPenalty.kl if in_loss else KlPenalty(charge.value)
    least, most = generation.response_tokens
    return Plan(
        iterations=algorithm.iterations,
        sampling=sampling_of(settings),
        generation={"response_tokens": (least, most), "batch_size": generation.batch_size},
        collection={
            "minibatch_size": algorithm.minibatch_size,
            "passes": passes(settings, dtype),
            "full_kl": penalty is KlPenalty.full,
        },
        advantages=AdvantagePlan(
            kl_penalty=penalty,
            gamma=expert.gamma,
            gae_lambda=algorithm.gae_lambda,
            whiten_rewards=expert.whiten_rewards,
            whiten_advantages=expert.whiten_advantages,
            baseline=algorithm.baseline,
            responses_per_prompt=algorithm.responses_per_prompt,
            sequence_level=algorithm.action is Action.response,
            kl_in_loss=in_loss,
            mean_by_response=algorithm.loss_mean is LossMean.response,
        ),
        ppo=PpoPlan(
            ppo_epochs=algorithm.ppo_epochs,
            clip_range=algorithm.clip_range,
            value_clip_range=expert.value_clip_range,
            value_coef=expert.value_coef,
            max_grad_norm=algorithm.max_grad_norm,
            ratio_threshold=expert.ratio_threshold,
            target_kl=expert.target_kl,
        ),
    )


def passes(settings: Settings, dtype: torch.dtype) -> Passes:
    """How rows are cut into forward passes on the device of the run, in the backbone's dtype."""
    algorithm = settings.algorithm
    device = resolve_device(settings.device)
    return Passes.on(
        device, algorithm.microbatch_size, algorithm.expert.microbatch_tokens, dtype=dtype
    )


def learning_rate_schedule(algorithm: AlgorithmSettings) -> Callable[[int], float]:
    """Factor on the learning rates by iteration: warm-up, then constant, linear or cosine to 0.

    Transformers' schedules, one step later: theirs begin at 0, which would waste a rollout.

    Args:
        algorithm: schedule, warm-up and iterations.

    Returns:
        Iteration, from 0 -> factor in (0, 1].
    """
    schedule = algorithm.schedule
    name = "constant_with_warmup" if schedule is Schedule.constant else schedule.value
    scheduler = get_scheduler(
        name,
        torch.optim.SGD([torch.zeros(())]),  # only its factor is asked for
        num_warmup_steps=algorithm.warmup_iterations + 1,
        num_training_steps=algorithm.iterations + 1,
    )
    (factor,) = scheduler.lr_lambdas
    return lambda iteration: float(factor(iteration + 1))


def make_optimizer(algorithm: AlgorithmSettings, policy: LoraPolicy) -> torch.optim.Optimizer:
    """AdamW over the adapter and, where there is one, the value head with its own rate."""
    head_rate = algorithm.expert.value_learning_rate or algorithm.learning_rate
    groups = [
        {"params": list(parameters), "lr": rate}
        for parameters, rate in (
            (policy.adapter_parameters(), algorithm.learning_rate),
            (policy.head_parameters(), head_rate),
        )
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, weight_decay=algorithm.expert.weight_decay, fused=True)


def check_trainer_fits(settings: Settings, *, encoder_decoder: bool) -> None:
    """Before weights load: TRL's trainers take decoder-only models and LoRA alone.

    Args:
        settings: composed and checked.
        encoder_decoder: whether the policy has an encoder.

    Raises:
        SettingsError: a trainer of TRL on an encoder-decoder policy, or on another kind of adapter.
    """
    kind = settings.algorithm.trainer.kind
    if kind.is_trl and encoder_decoder:
        raise SettingsError(
            f"algorithm={kind.value} with policy.path={settings.policy.path}: TRL's trainers take "
            "decoder-only models, this is an encoder-decoder; want algorithm=best_of_n or a method "
            "of our own (algorithm=ppo)"
        )
    stored = adapter_path(settings.policy.adapter, settings)
    if kind.is_trl and stored is not None and (name := kind_of(read_stored(stored))) != "LORA":
        raise SettingsError(
            f"algorithm={kind.value} with policy.adapter={stored}: TRL's reference is a second "
            f"adapter, which copies LoRA alone, this is {name}; want algorithm=best_of_n or a "
            "method of our own (algorithm=ppo)"
        )
