"""The main path: train an adapter to be less toxic, and say what that cost.

Glossary. iteration: one turn of the arrow below. update: its stage 5. ppo_epoch: one pass over the
rollout. optimizer_step: one change of weights, from one minibatch. microbatch: rows that go through
the model together.
"""

from typing import Any

from lora_detox.advantages import estimate_advantages
from lora_detox.errors import DivergenceError
from lora_detox.metrics.quality import rollout_quality
from lora_detox.rollout import collect_rollout, generate_responses
from lora_detox.run.build import Job, build_job
from lora_detox.run.finish import finish
from lora_detox.run.iteration import (
    Turn,
    check_start,
    corrected_score,
    iteration_row,
    start_measures,
    token_credit,
)
from lora_detox.scores import score_prompts
from lora_detox.settings import Settings, TrainerKind
from lora_detox.trainers import best_of_n as trainers


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
        job.watch.settle()
        return finish(job, before, job.watch.facts())


def train(job: Job) -> None:
    """Turn the arrow until the plan is done or the watch ends it."""
    if not job.first_iteration and job.budget.constraints:
        with job.clock("evaluate"):
            job.budget.begin(start_measures(job))
    with job.progress() as progress:
        for iteration in range(job.first_iteration, job.plan.iterations):
            if job.watch.stopped:
                break
            try:
                row = turn(job, iteration)
            except DivergenceError as error:
                row = {"iteration": iteration + 1, "error": str(error)}
            job.after_iteration(iteration, row, progress)
        between = job.settings.budget.interpolate
        for said in job.watch.look_back(job.plan.iterations, between, job.validate):
            progress.message(said)


def turn(job: Job, iteration: int) -> dict[str, Any]:
    """One turn of the arrow; each line adds one record, none edits an earlier one."""
    plan, seed = job.plan, job.seed(iteration)
    prompts = job.prompts(iteration)
    with job.clock("generate"):
        responses = generate_responses(
            job.policy, prompts, plan.sampling, **plan.generation, seed=seed
        )
    with job.clock("reference"):
        rollout = collect_rollout(
            job.policy, prompts, responses, plan.sampling, **plan.collection, seed=seed
        )
    with job.clock("score"):
        scores = score_prompts(job.reward, prompts, rollout.response_texts)
        corrected = corrected_score(job, rollout, scores)
        credit = token_credit(job, rollout, corrected)
        quality = rollout_quality(rollout)
    check_start(job, iteration, rollout, responses)
    score = job.scaler(corrected)
    kl_coef, token_bonus = job.prices(rollout, quality, credit)
    advantages = estimate_advantages(
        rollout,
        score,
        kl_coef,
        plan.advantages,
        token_bonus,
        job.running_mean,
    )
    with job.clock("update"):
        stats = job.update.step(rollout, advantages, iteration)
    return iteration_row(job, iteration, Turn(rollout, responses, scores, quality, kl_coef, stats))
