"""After training: evaluate again, prove the base unchanged, write the run directory."""

import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

import lora_detox
from lora_detox.metrics import change, names, summarise
from lora_detox.report.console import print_result
from lora_detox.report.html import write_report
from lora_detox.report.jsonl import plain, read_jsonl, write_json_atomic, write_samples
from lora_detox.report.wording import RAN_TO_THE_END
from lora_detox.settings import settings_yaml
from lora_detox.types import Evaluation

if TYPE_CHECKING:
    from lora_detox.run.build import Job

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "evaluate", "hydra-core")


def finish(
    job: "Job", before: Evaluation, facts: Mapping[str, Any] | None = None
) -> tuple[float, ...]:
    """Write adapter, value head, samples, summary and report; print the table.

    Args:
        job: after training.
        before: test prompts answered by the policy as it started.
        facts: further entries of the summary, in the place of those of stage=detox.

    Returns:
        The sweep objectives: toxicity after, quality lost.
    """
    run_dir, settings = job.run_dir, job.settings
    after = job.evaluate(job.test_prompts)
    job.policy.save(run_dir / "adapter", run_dir)
    summary = plain({**_summary(job, before, after), **(facts or {})})
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
    quality = -summary["after"].get(names.ROUGEL, 0.0) if lost is None else lost
    return (toxicity["mean"], quality)


def _summary(job: "Job", before: Evaluation, after: Evaluation) -> dict[str, Any]:
    settings, clock = job.settings, job.clock
    kl = after.per_response[names.REF_KL]
    scorers = {"reward": job.reward.scorer_id}
    if job.judge is not None:
        scorers["judge"] = job.judge.scorer_id
    return {
        "schema": 1,
        "task": settings.task.name,
        "policy": settings.policy.path,
        "algorithm": settings.algorithm.name,
        "seed": settings.seed,
        "quantization": settings.quantization.type.value,
        "before": summarise(before),
        "after": summarise(after),
        "change": change(before, after),
        "ref_kl": sum(kl) / len(kl),
        "iterations": job.plan.iterations,
        "stopped": RAN_TO_THE_END,
        "scorers": scorers,
        "parameters": {
            **job.policy.count_parameters(),
            "base_unchanged": job.policy.base_checksum() == job.base_checksum,
            "base_checksum": job.base_checksum,
        },
        "seconds": clock.whole(),
        "peak_memory_bytes": peak_memory(job.device),
        "device": device_name(job.device),
        "versions": versions(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def peak_memory(device: torch.device) -> int:
    """Most memory held so far, in bytes: of the GPU's allocator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS only
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Versions of everything that computes, and the commit of the checkout if there is one."""
    found = {"lora_detox": lora_detox.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = _git("rev-parse", "--short", "HEAD")
    if commit:
        found["commit"] = commit + ("+changes" if _git("status", "--porcelain") else "")
    return found


def _git(*arguments: str) -> str:
    """Output of git in the checkout that this package runs from; empty outside of one."""
    root = Path(lora_detox.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
