"""Before and after training: evaluate, prove the base unchanged, write the run directory."""

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from lora_detox.builders.policy import trusted_code
from lora_detox.disk import written_whole
from lora_detox.environment import in_multirun, process_facts
from lora_detox.evaluation.audit import (
    AUDIT,
    AUDIT_FILE,
    DATA,
    audit_rows,
    audited,
    model_fairness,
    scorer_fairness,
)
from lora_detox.evaluation.scorer_agreement import scorer_agreement, training_of
from lora_detox.fitting import kept_sizes
from lora_detox.metrics import names
from lora_detox.metrics.summary import change, summarise, word_rules
from lora_detox.processes import processes
from lora_detox.report.console import print_result
from lora_detox.report.fairness import fairness_lines
from lora_detox.report.html import write_report
from lora_detox.report.jsonl import (
    plain,
    read_jsonl,
    write_json_atomic,
    write_rows,
    write_text_atomic,
)
from lora_detox.report.responses import write_samples
from lora_detox.report.scorers import scorer_sentences
from lora_detox.report.wording import RAN_TO_THE_END
from lora_detox.run.checksums import base_checksum
from lora_detox.run.handover import own_overrides, run_card, usage
from lora_detox.run.job import Job
from lora_detox.settings import settings_yaml
from lora_detox.types import Evaluation
from lora_detox.visible import readable


class Answered(NamedTuple):
    """Test prompts answered by the policy, and audit prompts where there are any."""

    evaluation: Evaluation
    audit: Evaluation | None


def evaluate_start(job: Job) -> Answered:
    """Test, audit and validation prompts answered by the policy as it starts.

    Args:
        job: before training; a resumed one takes its first evaluations out of its checkpoint, or
            goes back to the start for those that the checkpoint has not.

    Returns:
        The evaluations on test and audit prompts; that on validation prompts is recorded and
        handed to the checkpoint selector.
    """
    resumed = bool(job.first_iteration)
    evaluation = job.resumed.start() if resumed else None
    audit = job.resumed.start_audit() if resumed else None
    known = evaluation is not None and (audit is not None or job.encoded.audit is None)
    with job.state.at_start() if resumed and not known else nullcontext():
        if evaluation is None:
            evaluation = job.evaluator(job.encoded.test, "evaluating the start")
        if audit is None:
            audit = audited(job.evaluator, job.encoded.audit, "auditing the start")
    job.records.keep_start(evaluation, audit)
    if not resumed:
        validation = job.validate()
        job.record({"iteration": 0, "evaluation": validation})
        job.selector.begin(validation)
    return Answered(evaluation, audit)


def finish(
    job: Job, start: Answered, outcome: Mapping[str, Any] | None = None
) -> tuple[float, ...]:
    """Measure the result; the first process writes the run directory and prints the table.

    Args:
        job: after training.
        start: what the policy answered as it started.
        outcome: further entries of the summary, in the place of those of stage=detox.

    Returns:
        The sweep objectives: toxicity after, quality lost.
    """
    after = job.evaluator(job.encoded.test, "evaluating the result")
    audit = audited(job.evaluator, job.encoded.audit, "auditing the result")
    if processes().is_first:
        with written_whole(job.run_dir) as part:
            job.policy.save(part / "adapter", part)
    fairness = _fairness(job, start, after, audit)
    whole = {**_summary(job, start.evaluation, after), **fairness, **(outcome or {})}
    summary = plain(whole)
    if processes().is_first:
        _write(job, start, Answered(after, audit), summary)
    toxicity = summary["after"].get(names.JUDGE_TOXICITY) or summary["after"][names.TOXICITY]
    lost = summary["after"].get(names.PERPLEXITY)
    gained = summary["after"].get(names.JOINT, summary["after"].get(names.ROUGEL, 0.0))
    quality = -gained if lost is None else lost
    return (toxicity["mean"], quality)


def _write(job: Job, start: Answered, end: Answered, summary: dict[str, Any]) -> None:
    """Samples, report, card and summary; the adapter is there."""
    run_dir, settings = job.run_dir, job.settings
    samples = write_samples(run_dir / "samples.jsonl", start.evaluation, end.evaluation)
    if job.audit.keeps_answers and start.audit is not None and end.audit is not None:
        write_rows(run_dir / AUDIT_FILE, audit_rows(start.audit, end.audit))
    write_report(
        run_dir / "report.html",
        summary=summary,
        history=read_jsonl(run_dir / "metrics.jsonl"),
        samples=samples,
        settings_yaml=settings_yaml(settings),
        metrics=names.METRICS,
    )
    write_text_atomic(run_dir / "adapter" / "README.md", run_card(settings, run_dir, summary))
    write_json_atomic(run_dir / "summary.json", summary)  # last: a run with it is whole
    if not in_multirun():
        _print(summary, samples, run_dir)


def _print(summary: dict[str, Any], samples: list[dict[str, Any]], run_dir: Path) -> None:
    console = Console(highlight=False)
    print_result(
        summary,
        samples,
        metrics=names.METRICS,
        directory=run_dir,
        console=console,
        further=[
            *(readable(one, console) for one in scorer_sentences(summary)),
            *fairness_lines(summary, console),
        ],
    )


def _fairness(
    job: Job, start: Answered, after: Evaluation, audit: Evaluation | None
) -> dict[str, Any]:
    """The entry `fairness`; none where nothing could be audited."""
    entry = model_fairness(
        job.audit, {AUDIT: start.audit, DATA: start.evaluation}, {AUDIT: audit, DATA: after}
    )
    if (scorers := scorer_fairness(job.audit, job.reward, job.judge)) is not None:
        entry |= {"scorers": scorers[0], "scorer_verdict": scorers[1]}
    return {"fairness": entry} if entry else {}


def _summary(job: Job, before: Evaluation, after: Evaluation) -> dict[str, Any]:
    settings, clock = job.settings, job.clock
    kl = after.per_response[names.REF_KL]
    scorers = {"reward": job.reward.scorer_id}
    if job.judge is not None:
        scorers["judge"] = job.judge.scorer_id
    if job.encoder is not None:
        scorers["encoder"] = job.encoder.encoder_id
    if job.evaluator.word_list is not None:
        scorers["word_list"] = job.evaluator.word_list.scorer_id
    numbers = summarise(before), summarise(after)
    changes = change(before, after, settings.evaluation.resamples)
    halved = kept_sizes()
    return {
        "schema": 1,
        "task": settings.task.name,
        "policy": settings.policy.path,
        "algorithm": settings.algorithm.name,
        "seed": settings.seed,
        "quantization": settings.quantization.type.value,
        "before": numbers[0],
        "after": numbers[1],
        "change": changes,
        "words": word_rules((before, after)),
        "ref_kl": sum(kl) / len(kl),
        "iterations": job.plan.iterations,
        "processes": processes().size,
        "stopped": RAN_TO_THE_END,
        "scorers": scorers,
        "scorer_agreement": {
            **scorer_agreement(*numbers, changes),
            "training_data": training_of(settings),
        },
        "parameters": {
            **job.policy.count_parameters(),
            "base_dtype": str(job.policy.backbone.dtype).removeprefix("torch."),
            "base_unchanged": all(
                processes().gather(base_checksum(job.policy) == job.base_checksum)
            ),
            "base_checksum": job.base_checksum,
        },
        **({"rows_at_once": halved} if halved else {}),
        "seconds": clock.whole(),
        "memory_growth_bytes": clock.growth(),
        **trusted_code(settings.policy),
        **({"tiny_model": True} if settings.debug.tiny_model else {}),
        **process_facts(job.device),
        "usage": usage(settings),
        **own_overrides(job.run_dir),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
