"""The main path: train an adapter to be less toxic, and say what that cost.

Glossary. iteration: one turn of the arrow below. update: its stage 5. ppo_epoch: one pass over the
rollout. optimizer_step: one change of weights, from one minibatch. microbatch: rows that go through
the model together.
"""

from lora_detox.advantages import estimate_advantages
from lora_detox.rollout import collect_rollout, generate_responses
from lora_detox.scores import score_prompts
from lora_detox.settings import Settings, TrainerKind
from lora_detox.stages import trainers
from lora_detox.stages.build import Job, build_job
from lora_detox.stages.finish import finish
from lora_detox.stages.measure import check_start, iteration_row


def run(settings: Settings) -> tuple[float, ...]:
    """Evaluate, train, evaluate again, report.

    Args:
        settings: composed and checked.

    Returns:
        Objectives of a sweep, both to minimise: toxicity after (the judge's where there is one),
        and the quality lost (-ROUGE-L, or perplexity under the reference).

    Raises:
        DetoxError: what cannot work, before weights load; or training that diverged.
    """
    with build_job(settings) as job:
        before = job.before()
        if settings.algorithm.trainer.kind is not TrainerKind.native:
            return finish(job, before, trainers.train(job))
        train(job)
        return finish(job, before)


def train(job: Job) -> None:
    """Turn the arrow; each line adds one record, none edits an earlier one."""
    plan = job.plan
    with job.progress() as progress:
        for iteration in range(job.first_iteration, plan.iterations):
            prompts = job.prompts(iteration)
            with job.clock("generate"):
                responses = generate_responses(
                    job.policy, prompts, plan.sampling, **plan.generation, seed=job.seed(iteration)
                )
            with job.clock("reference"):
                rollout = collect_rollout(
                    job.policy,
                    prompts,
                    responses,
                    plan.sampling,
                    **plan.collection,
                    seed=job.seed(iteration),
                )
            with job.clock("score"):
                scores = score_prompts(job.reward, prompts, rollout.response_texts)
            check_start(job, iteration, rollout, responses)
            advantages = estimate_advantages(
                rollout,
                job.scaler(scores.score),
                job.kl_control.kl_coef,
                plan.advantages,
                job.length.token_bonus,
                job.running_mean,
            )
            with job.clock("update"):
                stats = job.update.step(rollout, advantages, iteration)
            row = iteration_row(job, iteration, rollout, responses, scores, stats)
            job.after_iteration(iteration, row, progress)
