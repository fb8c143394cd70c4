"""Best-of-n: supervised fine-tuning on the best of several responses, the plain baseline."""

from dataclasses import replace
from typing import Any

from lora_detox.builders.examples import Example
from lora_detox.run.job import Job
from lora_detox.trainers.groups import best_responses, score_groups
from lora_detox.trainers.supervised import make_trainer


def train(job: Job) -> dict[str, Any]:
    """Answer the training prompts n times, and fine-tune on the best answer to each.

    Args:
        job: whose adapter learns.

    Returns:
        Entries for the summary, and `last`, the number of the last row.
    """
    settings, policy = job.settings, job.policy
    algorithm, groups = settings.algorithm, list(score_groups(job))
    encoder_decoder = bool(policy.backbone.config.is_encoder_decoder)
    examples: list[Example] = [
        {"input_ids": query, "labels": response}
        if encoder_decoder
        else {
            "input_ids": [*query, *response],
            "completion_mask": [0] * len(query) + [1] * len(response),
        }
        for query, response in best_responses(groups)
    ]
    sft = replace(
        settings.sft,
        epochs=algorithm.trainer.epochs,
        max_steps=None,
        learning_rate=algorithm.learning_rate,
        schedule=algorithm.schedule,
        warmup_steps=algorithm.warmup_iterations,
        weight_decay=algorithm.expert.weight_decay,
        max_grad_norm=algorithm.max_grad_norm or 0.0,
        batch_size=algorithm.microbatch_size,
        gradient_accumulation=algorithm.minibatch_size // algorithm.microbatch_size,
        log_every=1,
    )
    trainer = make_trainer(policy, examples, replace(settings, sft=sft), job.records)
    with job.clock("update"):
        trainer.train()
    steps = int(trainer.state.global_step)
    return {
        "scored_samples": sum(len(group.scores) for group in groups),
        "examples": len(examples),
        "optimizer_steps": steps,
        "last": steps,
    }
