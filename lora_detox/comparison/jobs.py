"""The jobs of a multirun: a record of each in the folder of the sweep, and its line."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lora_detox.comparison.candidates import COMPARED, FIRST_SET
from lora_detox.errors import DetoxError
from lora_detox.json_text import parse_json
from lora_detox.metrics import names
from lora_detox.report.jsonl import write_json_atomic
from lora_detox.report.wording import in_text, mean_of, number
from lora_detox.settings.stored import stored_json

RECORDS = ".jobs"
"""Folder of the records within that of the sweep."""
STUDY = "study.json"
"""File of a sweep that is a study: its trials."""
UNENDED = (
    "did not end by itself: its process was killed, or the machine was (out of memory?), or it "
    "still runs"
)
"""The error of a job that has begun and not ended."""
_FIRST_LINE = 300
"""Characters of an error."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job of a multirun that has ended.

    Attributes:
        number: of the job.
        folder: of its run.
        stage: that it ran.
        overrides: of its command line.
        error: why it failed, or was pruned; None where it came to its end.
        pruned: a trial of a study that was ended early, which is no failure.
    """

    number: int
    folder: str
    stage: str
    overrides: tuple[str, ...]
    error: str | None = None
    pruned: bool = False


def write_job(sweep: Path, job: Job) -> None:
    """Leave the record of a job, as a file of its own, since jobs may end at the same time."""
    write_json_atomic(sweep / RECORDS / f"{job.number}.json", asdict(job))


def read_jobs(sweep: Path) -> list[Job]:
    """The records of a sweep in the order of their numbers; one that is damaged is left out."""
    jobs = []
    for path in (sweep / RECORDS).glob("*.json"):
        try:
            stored = parse_json(path.read_text(encoding="utf-8"))
            jobs.append(Job(**{**stored, "overrides": tuple(stored["overrides"])}))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return sorted(jobs, key=lambda one: one.number)


def fixed_overrides(sweep: Path) -> frozenset[str]:
    """Overrides that all jobs of a sweep have, where Hydra's sweeper has written them down."""
    try:
        stored = yaml.safe_load((sweep / "multirun.yaml").read_text(encoding="utf-8"))
        return frozenset(map(str, stored["hydra"]["overrides"]["task"]))
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return frozenset()


def job_name(job: Job, fixed: frozenset[str]) -> str:
    """Number and overrides of a job, without those that all jobs have."""
    overrides = [one for one in job.overrides if one not in fixed]
    return " ".join([f"job {job.number}", *overrides])


def job_line(job: Job, fixed: frozenset[str] = frozenset()) -> str:
    """What a job came to, in one line.

    Args:
        job: that has ended.
        fixed: overrides that are the same in all jobs.

    Returns:
        Number, overrides, and toxicity and quality with the interval of their changes, or the
        first line of the error.
    """
    begin = f"{job_name(job, fixed)}:"
    if job.pruned:
        return f"{begin} {first_line(job.error or 'pruned')}"
    if job.error is not None:
        return f"{begin} failed, {first_line(job.error)}"
    results = _results(Path(job.folder)) if job.stage in COMPARED else []
    return f"{begin} {'; '.join(results) or 'done'}  {job.folder}"


def first_line(error: str) -> str:
    """The first line of an error, cut where it is very long."""
    lines = error.strip().splitlines() or [""]
    return lines[0] if len(lines[0]) <= _FIRST_LINE else lines[0][:_FIRST_LINE] + " ..."


def _results(folder: Path) -> list[str]:
    try:
        summary = stored_json(folder / "summary.json", "run", "want a finished run")
        if "models" not in summary:
            return _measures(summary["after"], summary["before"], summary["change"])
        last = summary["models"][-1]
        numbers = last["sets"][FIRST_SET]
        return [f"{last['name']}: {', '.join(_measures(numbers, {}, numbers.get('change', {})))}"]
    except (DetoxError, KeyError, TypeError, AttributeError, IndexError):
        return []


def _measures(
    after: Mapping[str, Any], before: Mapping[str, Any], changes: Mapping[str, Any]
) -> list[str]:
    """Toxicity by the judge where there is one, and the quality."""
    toxicity = names.JUDGE_TOXICITY if names.JUDGE_TOXICITY in after else names.TOXICITY
    quality = next((key for key in (names.ROUGEL, names.PERPLEXITY) if key in after), None)
    texts = []
    for key in filter(None, (toxicity, quality)):
        metric, change = names.METRICS[key], changes.get(key) or {}
        levels = [number(mean_of(one[key]), metric.digits) for one in (before, after) if key in one]
        text = f"{in_text(metric.label)} {' -> '.join(levels)}"
        if (moved := mean_of(change)) is not None:
            ends = [
                number(end, metric.digits, signed=True)
                for end in change.get("ci95") or (None, None)
            ]
            text += f" ({number(moved, metric.digits, signed=True)}, {ends[0]} to {ends[1]})"
        texts.append(text)
    return texts
