"""stage=sft: supervised fine-tuning of an adapter, which stage=detox can then start from.

The run directory is that of stage=detox: `adapter/`, `summary.json` with the same metrics before
and after, samples and report.
"""

from lora_detox.builders.examples import training_examples
from lora_detox.progress import phase
from lora_detox.run.build import open_job
from lora_detox.run.finish import evaluate_start, finish
from lora_detox.run.job import Job
from lora_detox.settings import Settings
from lora_detox.trainers.arguments import train_from_newest
from lora_detox.trainers.supervised import make_trainer, mean_loss


def run(settings: Settings) -> tuple[float, ...]:
    """Evaluate, fine-tune, evaluate again, report.

    Args:
        settings: composed and checked.

    Returns:
        Objectives of a sweep, both to minimise: toxicity after, and -ROUGE-L or perplexity.

    Raises:
        DetoxError: what cannot work, before training.
    """
    with open_job(settings) as job:
        start = evaluate_start(job)
        outcome = fine_tune(job)
        return finish(job, start, {"stage": "sft", "algorithm": "sft", **outcome})


def fine_tune(job: Job) -> dict[str, object]:
    """Train the adapter on the references of the training rows.

    Args:
        job: whose policy learns.

    Returns:
        Entries for the summary: steps, examples, and the loss per token on the validation rows.
    """
    settings, policy = job.settings, job.policy
    encoder_decoder = bool(policy.backbone.config.is_encoder_decoder)
    train, validation = (
        training_examples(rows, policy.tokenizer, settings, encoder_decoder=encoder_decoder)
        for rows in (job.data.train, job.data.validation[: settings.evaluation.validation_prompts])
    )
    with phase("loss on validation rows"):
        loss_before = mean_loss(policy, validation, settings.sft.batch_size)
    trainer = make_trainer(policy, train, settings, job.records)
    with job.clock("update"):
        train_from_newest(trainer, settings)
    policy.model.eval()
    steps = int(trainer.state.global_step)
    return {
        "iterations": steps,
        "examples": len(train),
        "loss": {"before": loss_before, "after": mean_loss(policy, validation, 16)},
    }
