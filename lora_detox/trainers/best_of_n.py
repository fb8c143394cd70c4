"""stage=detox by other trainers: TRL's DPO, GRPO and RLOO, and best-of-n SFT as plain baseline.

They share prompts, scorers, adapter, evaluation and report with the main path, and score as many
responses, iterations x rollout_batch_size. The reference is the policy at the start here too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lora_detox.errors import SettingsError
from lora_detox.metrics import summarise
from lora_detox.policy.policy import LoraPolicy
from lora_detox.run.resume import check_moved, trained_checksum
from lora_detox.settings import Settings, SftSchedule, TrainerKind
from lora_detox.trainers.groups import best_responses, score_groups
from lora_detox.trainers.supervised import Example, check_sft_packages, make_trainer

if TYPE_CHECKING:
    from lora_detox.run.build import Job

Facts = dict[str, Any]
_REF_ADAPTER = "ref"
"""The copy of the adapter at its start that TRL puts beside it as the reference."""


def check_trainer_fits(settings: Settings, *, encoder_decoder: bool) -> None:
    """Before weights load: TRL's trainers take decoder-only models alone.

    Args:
        settings: composed and checked.
        encoder_decoder: whether the policy has an encoder.

    Raises:
        SettingsError: a trainer of TRL on an encoder-decoder policy.
    """
    kind = settings.algorithm.trainer.kind
    if kind.is_trl and encoder_decoder:
        raise SettingsError(
            f"algorithm={kind.value} with policy.path={settings.policy.path}: TRL's trainers take "
            "decoder-only models, this is an encoder-decoder; want algorithm=best_of_n or a method "
            "of our own (algorithm=ppo)"
        )
    if kind is TrainerKind.best_of_n:
        check_sft_packages(encoder_decoder=encoder_decoder)


def method_line(settings: Settings) -> str | None:
    """What the opening lines say of a method other than the main path; None on the main path."""
    algorithm = settings.algorithm
    scored = algorithm.iterations * algorithm.rollout_batch_size
    each = f"{algorithm.responses_per_prompt} responses per prompt, {scored} scored in all"
    said = {
        TrainerKind.trl_dpo: f"DPO by TRL on the best against the worst of {each}",
        TrainerKind.trl_grpo: f"GRPO by TRL on groups of {each}",
        TrainerKind.trl_rloo: f"RLOO by TRL on groups of {each}",
        TrainerKind.best_of_n: f"supervised fine-tuning on the best of {each}",
    }
    return said.get(algorithm.trainer.kind)


def train(job: "Job") -> Facts:
    """Train by the method of `algorithm.trainer.kind`, then answer the validation prompts.

    Args:
        job: whose adapter learns.

    Returns:
        Facts for the summary: scored samples, optimizer steps, and what is particular.

    Raises:
        DetoxError: nothing to learn from, or an adapter that has not moved.
    """
    start = trained_checksum(job.policy)
    with _as_it_was(job.policy):
        facts = _TRAINERS[job.settings.algorithm.trainer.kind](job)
    check_moved(job.policy, start)
    job.record(
        {"iteration": facts.pop("last"), "evaluation": summarise(job.evaluate(job.validation))}
    )
    return facts


def _best_of_n(job: "Job") -> Facts:
    settings, policy = job.settings, job.policy
    algorithm, groups = settings.algorithm, list(score_groups(job))
    encoder_decoder = bool(policy.backbone.config.is_encoder_decoder)
    examples: list[Example] = [
        {"input_ids": query, "labels": said}
        if encoder_decoder
        else {"input_ids": [*query, *said], "completion_mask": [0] * len(query) + [1] * len(said)}
        for query, said in best_responses(groups)
    ]
    sft = replace(
        settings.sft,
        epochs=algorithm.trainer.epochs,
        max_steps=None,
        learning_rate=algorithm.learning_rate,
        schedule=SftSchedule(algorithm.schedule.value),
        warmup_steps=algorithm.warmup_iterations,
        weight_decay=algorithm.weight_decay,
        max_grad_norm=algorithm.max_grad_norm or 0.0,
        batch_size=algorithm.microbatch_size,
        gradient_accumulation=algorithm.minibatch_size // algorithm.microbatch_size,
        log_every=1,
    )
    trainer = make_trainer(policy, examples, replace(settings, sft=sft), job.record)
    with job.clock("update"):
        trainer.train()
    steps = int(trainer.state.global_step)
    return {
        "scored_samples": sum(len(group.scores) for group in groups),
        "examples": len(examples),
        "optimizer_steps": steps,
        "last": steps,
    }


def _trl(job: "Job") -> Facts:
    from lora_detox.trainers import trl as trl_trainers  # noqa: PLC0415 - an extra, and slow to import

    return trl_trainers.train(job)


_TRAINERS: dict[TrainerKind, Callable[["Job"], Facts]] = {
    TrainerKind.best_of_n: _best_of_n,
    TrainerKind.trl_dpo: _trl,
    TrainerKind.trl_grpo: _trl,
    TrainerKind.trl_rloo: _trl,
}


@contextmanager
def _as_it_was(policy: LoraPolicy) -> Iterator[None]:
    """Take away what TRL puts into the model: its reference adapter, its forward, its dtypes."""
    own = vars(policy.backbone).get("forward")
    dtypes = {name: p.dtype for name, p in policy.model.named_parameters() if p.requires_grad}
    try:
        yield
    finally:
        if _REF_ADAPTER in policy.model.peft_config:
            policy.model.delete_adapter(_REF_ADAPTER)
        policy.model.set_adapter("default")
        for name, parameter in policy.model.named_parameters():
            if name in dtypes:
                parameter.data = parameter.data.to(dtypes[name])
        if own is None:
            vars(policy.backbone).pop("forward", None)
        else:
            policy.backbone.forward = own
        policy.model.eval()
