"""The end of a multirun: sweep.html and sweep.json in its folder, and a table of its jobs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_detox.comparison.candidates import COMPARED, Candidate, read_run, with_names
from lora_detox.comparison.compare import compare, side_by_side
from lora_detox.comparison.jobs import Job, first_line, fixed_overrides, job_name, read_jobs
from lora_detox.comparison.pairing import comparable_groups
from lora_detox.comparison.sweep import (
    named_by_overrides,
    sweep_numbers,
    sweep_sentences,
    sweep_verdict,
)
from lora_detox.comparison.trials import Study, read_study
from lora_detox.errors import DetoxError
from lora_detox.metrics import names
from lora_detox.report.compare import (
    MOST_SIDES,
    Section,
    answer_table,
    print_comparison,
    write_comparison,
)
from lora_detox.report.console import print_line
from lora_detox.report.jsonl import write_json_atomic

PAGE = "sweep.html"


def write_sweep(folder: Path) -> None:
    """Write the page of a multirun from the records of its jobs.

    Jobs that were asked other prompts, or measured by other scorers, stand in sections of their
    own. A sweep without a finished job that has responses gets no page.

    Args:
        folder: of the sweep.
    """
    jobs = [one for one in read_jobs(folder) if one.stage in COMPARED]
    fixed = fixed_overrides(folder)
    failed = [
        f"{job_name(one, fixed)}: {first_line(one.error)}"
        for one in jobs
        if one.error is not None and not one.pruned
    ]
    candidates, unread = _candidates([one for one in jobs if one.error is None], fixed)
    failed += unread
    if not candidates:
        return
    sections, stored = [], []
    groups = comparable_groups(candidates)
    for group in groups:
        section, numbers = _section(group, several=len(groups) > 1)
        sections.append(section)
        stored.append(numbers)
    if (study := read_study(folder)) is not None:
        sections[0] = _with_study(sections[0], study)
    pruned = sum(one.pruned for one in jobs)
    ended = f"{len(jobs)} jobs" + (f", {len(failed)} of them failed" if failed else "")
    ended += f", {pruned} pruned" if pruned else ""
    write_comparison(
        folder / PAGE,
        title=f"multirun of {ended}",
        about=f"lora_detox · multirun of {ended} · {folder}",
        sections=sections,
        metrics=names.METRICS,
        failed=failed,
    )
    write_json_atomic(folder / "sweep.json", {"schema": 1, "comparisons": stored, "failed": failed})
    for section in sections:
        if section.heading:
            print_line(f"\n{section.heading}")
        print_comparison(section, names.METRICS, folder / PAGE)
    for line in failed:
        print_line(f"failed   {line}")


def _with_study(section: Section, study: Study) -> Section:
    """A section that begins with the study by which its jobs were chosen."""
    return replace(
        section,
        sentences=[*section.sentences, *study.sentences],
        plots=[*section.plots, *study.plots],
        tables=[*study.tables, *section.tables],
    )


def _candidates(jobs: Sequence[Job], fixed: frozenset[str]) -> tuple[list[Candidate], list[str]]:
    """Candidates of the finished jobs, with the overrides of their records; and what is unread."""
    candidates, unread = [], []
    for job in jobs:
        try:
            read = read_run(Path(job.folder))
        except DetoxError as error:
            unread.append(f"{job_name(job, fixed)}: {first_line(str(error))}")
            continue
        candidates += [replace(one, overrides=job.overrides) for one in read]
    return with_names(candidates, several=True), unread


def _section(group: Sequence[Candidate], *, several: bool) -> tuple[Section, dict[str, Any]]:
    """One comparison of jobs with its seeds and parameters."""
    candidates = named_by_overrides(group)
    comparison = compare(candidates)
    toxicity = comparison["toxicity"]
    sweep = sweep_numbers(candidates, comparison)
    sides, rows = side_by_side(candidates, MOST_SIDES)
    section = Section(
        comparison=comparison,
        samples=answer_table(sides, rows, toxicity, names.METRICS),
        heading=f"{group[0].task}, {group[0].policy}" if several else "",
        sweep=sweep if len(candidates) > 1 else None,
        lead=sweep_verdict(sweep, toxicity) if len(candidates) > 1 else (),
        sentences=sweep_sentences(sweep, toxicity) if len(candidates) > 1 else (),
    )
    return section, {**comparison, "sweep": sweep}
