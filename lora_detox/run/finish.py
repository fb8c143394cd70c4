"""Before and after training: evaluate, prove the base unchanged, write the run directory."""

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from lora_detox.builders.policy import trusted_code
from lora_detox.disk import written_whole
from lora_detox.environment import process_facts
from lora_detox.metrics import change, names, summarise, word_rules
from lora_detox.report.console import print_result
from lora_detox.report.html import write_report
from lora_detox.report.jsonl import plain, read_jsonl, write_json_atomic, write_samples
from lora_detox.report.wording import RAN_TO_THE_END
from lora_detox.run.checksums import base_checksum
from lora_detox.run.job import Job
from lora_detox.settings import settings_yaml
from lora_detox.types import Evaluation


def evaluate_start(job: Job) -> Evaluation:
    """Test and validation prompts answered by the policy as it starts.

    Args:
        job: before training; a resumed one takes its first evaluation out of its checkpoint, or
            goes back to the start for it where the checkpoint has none.

    Returns:
        The evaluation on test prompts; that on validation prompts is recorded and handed to the
        checkpoint selector.
    """
    evaluation = job.resumed.start() if job.first_iteration else None
    if evaluation is None:
        with job.state.at_start() if job.first_iteration else nullcontext():
            evaluation = job.evaluator(job.encoded.test, "evaluating the start")
    job.records.keep_start(evaluation)
    if job.first_iteration:
        return evaluation
    validation = job.validate()
    job.record({"iteration": 0, "evaluation": validation})
    job.selector.begin(validation)
    return evaluation


def finish(
    job: Job, before: Evaluation, outcome: Mapping[str, Any] | None = None
) -> tuple[float, ...]:
    """Write adapter, value head, samples, summary and report; print the table.

    Args:
        job: after training.
        before: test prompts answered by the policy as it started.
        outcome: further entries of the summary, in the place of those of stage=detox.

    Returns:
        The sweep objectives: toxicity after, quality lost.
    """
    run_dir, settings = job.run_dir, job.settings
    after = job.evaluator(job.encoded.test, "evaluating the result")
    with written_whole(run_dir) as part:
        job.policy.save(part / "adapter", part)
    summary = plain({**_summary(job, before, after), **(outcome or {})})
    samples = write_samples(run_dir / "samples.jsonl", before, after)
    write_report(
        run_dir / "report.html",
        summary=summary,
        history=read_jsonl(run_dir / "metrics.jsonl"),
        samples=samples,
        settings_yaml=settings_yaml(settings),
        metrics=names.METRICS,
    )
    write_json_atomic(run_dir / "summary.json", summary)  # last: a run with it is whole
    print_result(
        summary,
        samples,
        metrics=names.METRICS,
        directory=run_dir,
        console=Console(highlight=False),
    )
    toxicity = summary["after"].get(names.JUDGE_TOXICITY) or summary["after"][names.TOXICITY]
    lost = summary["after"].get(names.PERPLEXITY)
    gained = summary["after"].get(names.JOINT, summary["after"].get(names.ROUGEL, 0.0))
    quality = -gained if lost is None else lost
    return (toxicity["mean"], quality)


def _summary(job: Job, before: Evaluation, after: Evaluation) -> dict[str, Any]:
    settings, clock = job.settings, job.clock
    kl = after.per_response[names.REF_KL]
    scorers = {"reward": job.reward.scorer_id}
    if job.judge is not None:
        scorers["judge"] = job.judge.scorer_id
    if job.encoder is not None:
        scorers["encoder"] = job.encoder.encoder_id
    return {
        "schema": 1,
        "task": settings.task.name,
        "policy": settings.policy.path,
        "algorithm": settings.algorithm.name,
        "seed": settings.seed,
        "quantization": settings.quantization.type.value,
        "before": summarise(before),
        "after": summarise(after),
        "change": change(before, after, settings.evaluation.resamples),
        "words": word_rules((before, after)),
        "ref_kl": sum(kl) / len(kl),
        "iterations": job.plan.iterations,
        "stopped": RAN_TO_THE_END,
        "scorers": scorers,
        "parameters": {
            **job.policy.count_parameters(),
            "base_dtype": str(job.policy.backbone.dtype).removeprefix("torch."),
            "base_unchanged": base_checksum(job.policy) == job.base_checksum,
            "base_checksum": job.base_checksum,
        },
        "seconds": clock.whole(),
        **trusted_code(settings.policy),
        **process_facts(job.device),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
