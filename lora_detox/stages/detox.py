"""The main path: train an adapter to be less toxic, and say what that cost.

Glossary. iteration: the seven calls of `iterate`. update: its sixth. ppo_epoch: one pass over the
rollout. optimizer_step: one change of weights, from one minibatch. microbatch: rows that go through
the model together.
"""

from typing import Any

from lora_detox.advantages import estimate_advantages
from lora_detox.choices import TrainerKind
from lora_detox.errors import DivergenceError
from lora_detox.progress import TrainingProgress
from lora_detox.rollout import collect_rollout
from lora_detox.run.build import open_job
from lora_detox.run.finish import evaluate_start, finish
from lora_detox.run.iteration import (
    EQUAL_SCORES,
    IterationRecords,
    after_iteration,
    check_alive,
    check_start,
    iteration_row,
    learn_start,
)
from lora_detox.run.job import Job
from lora_detox.run.sampler import mismatch_columns, weighted
from lora_detox.run.stopping import kept_at_end, kept_when_stopped
from lora_detox.scores import score_prompts
from lora_detox.settings import Settings
from lora_detox.signals import deferring
from lora_detox.trainers.methods import train_by_method


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
    with open_job(settings) as job:
        start = evaluate_start(job)
        if settings.algorithm.trainer.kind is not TrainerKind.native:
            return finish(job, start, train_by_method(job))
        train(job)
        with kept_at_end(job):
            job.selector.load_best()
            return finish(job, start, job.selector.outcome())


def train(job: Job) -> None:
    """Iterate until the plan is done or the checkpoint selector ends it."""
    if not job.first_iteration and job.controls.budget.constraints:
        learn_start(job)
    shown = TrainingProgress(job.plan.iterations, done=job.first_iteration)
    with shown as progress, deferring():
        for iteration in range(job.first_iteration, job.plan.iterations):
            if job.selector.stopped:
                break
            with kept_when_stopped(job, iteration):
                try:
                    row = iterate(job, iteration)
                except DivergenceError as error:
                    row = {"iteration": iteration + 1, "error": str(error)}
                after_iteration(job, iteration, row, progress)
        ways = job.settings.budget.strengths()
        with kept_at_end(job):
            for message in job.selector.scale(job.plan.iterations, job.validate, **ways):
                progress.message(message)


def iterate(job: Job, iteration: int) -> dict[str, Any]:
    """One iteration: generate, collect, score, shape, estimate, update, record.

    Each call adds one record, none edits an earlier one.
    """
    plan, policy, controls, seed = job.plan, job.policy, job.controls, job.seed(iteration)
    prompts = job.prompts(iteration)
    with job.timed("generate", iteration):
        responses = job.sampler.generate(
            policy, prompts, plan.sampling, **plan.generation, seed=seed
        )
    with job.timed("reference", iteration):
        rollout = collect_rollout(
            policy, prompts, responses, plan.sampling, **plan.collection, seed=seed
        )
    mismatch = job.sampler.compare(iteration, rollout, responses)
    check_start(job, iteration, rollout, responses)
    with job.timed("score", iteration):
        scores = score_prompts(job.reward, prompts, rollout.response_texts)
        quality = job.quality(rollout, scores)
        score, kl_coef, token_bonus = controls.shape(rollout, scores, quality)
    advantages = estimate_advantages(
        rollout, score, kl_coef, plan.advantages, token_bonus, controls.baseline
    )
    advantages = weighted(advantages, mismatch)
    with job.timed("update", iteration):
        stats = job.update.step(rollout, advantages, iteration)
    records = IterationRecords(rollout, responses, scores, quality, kl_coef, stats)
    row = iteration_row(iteration, records) | controls.columns() | job.clock.columns()
    row |= mismatch_columns(mismatch)
    check_alive(row)
    controls.observe(quality.measures, stats, len(prompts.texts))
    row[EQUAL_SCORES] = bool((scores.score == scores.score[0]).all())
    return row
