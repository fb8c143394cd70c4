"""stage=detox by other methods: TRL's DPO, GRPO and RLOO, and best-of-n as plain baseline.

They share prompts, scorers, adapter, evaluation and report with the main path, and score as many
responses, iterations x rollout_batch_size. The reference is the policy at the start here too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lora_detox.metrics.summary import summarise
from lora_detox.policy.adapter_kinds import changes_base, init_of
from lora_detox.policy.policy import LoraPolicy
from lora_detox.run.checksums import check_moved
from lora_detox.run.job import Job
from lora_detox.trainers import best_of_n

_REF_ADAPTER = "ref"
"""The copy of the adapter at its start that TRL puts beside it as the reference."""


def train_by_method(job: Job) -> dict[str, Any]:
    """Train by the method of `algorithm.trainer.kind`, then answer the validation prompts.

    Args:
        job: whose adapter learns.

    Returns:
        Entries for the summary: scored samples, optimizer steps, and what is particular.

    Raises:
        DetoxError: nothing to learn from, or an adapter that has not moved.
    """
    with _as_it_was(job.policy):
        outcome = _train(job)
    check_moved(job.policy, job.adapter_checksum, job.settings.reward.function)
    evaluation = summarise(job.evaluator(job.encoded.validation))
    job.record({"iteration": outcome.pop("last"), "evaluation": evaluation})
    return outcome


def _train(job: Job) -> dict[str, Any]:
    if not job.settings.algorithm.trainer.kind.is_trl:
        return best_of_n.train(job)
    from lora_detox.trainers import trl  # noqa: PLC0415 - slow to import

    return trl.train(job)


@contextmanager
def _as_it_was(policy: LoraPolicy) -> Iterator[None]:
    """Take away what TRL puts into the model: its reference adapter, its forward, its dtypes.

    TRL's reference is a second adapter of the same description. One that takes its start out of the
    base must not do so again, so that the description says otherwise meanwhile.
    """
    own = vars(policy.backbone).get("forward")
    dtypes = {name: p.dtype for name, p in policy.model.named_parameters() if p.requires_grad}
    described = policy.model.peft_config["default"]
    init = init_of(described)
    if changes_base(described):
        described.init_lora_weights = True
    try:
        yield
    finally:
        if init is not None:
            described.init_lora_weights = init
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
