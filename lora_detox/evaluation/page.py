"""The page of stage=evaluate: its models beside each other, with the tables of its protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lora_detox.comparison.candidates import Candidate, run_candidates, with_names
from lora_detox.comparison.compare import compare, side_by_side
from lora_detox.comparison.pairing import comparable_groups, shared_prompts
from lora_detox.evaluation.frontier import frontier_plots, frontier_tables
from lora_detox.evaluation.protocol import PromptSet
from lora_detox.evaluation.table import evaluation_notes, evaluation_table
from lora_detox.metrics import names
from lora_detox.report.compare import MOST_SIDES, Section, answer_table
from lora_detox.report.fairness import NOTE, fairness_tables
from lora_detox.report.jsonl import plain
from lora_detox.settings import Settings, flat, settings_yaml


def evaluation_sections(
    settings: Settings,
    summary: Mapping[str, Any],
    sets: list[PromptSet],
    rows: Sequence[Mapping[str, Any]],
) -> list[Section]:
    """What the page of an evaluation shows.

    Args:
        settings: composed and checked.
        summary: the `summary.json` dict of stage=evaluate.
        sets: the sets of prompts.
        rows: of samples.jsonl.

    Returns:
        The models on the first set, compared; models whose tokenizers cut all prompts elsewhere in
        sections of their own. The table of the protocol is the first table of the first.
    """
    run = flat(OmegaConf.to_container(OmegaConf.create(settings_yaml(settings))))
    candidates = with_names(
        run_candidates(summary, plain(rows), run, Path(settings.run_dir)), several=False
    )
    groups = [candidates] if shared_prompts(candidates) else comparable_groups(candidates)
    by_group, curves = fairness_tables(summary), frontier_plots(summary)
    sections = [
        _section(group, settings, ", ".join(one.name for one in group) if len(groups) > 1 else "")
        for group in groups
    ]
    further = [f"The samples are those of {sets[0].name}; samples.jsonl has the others."]
    first = replace(
        sections[0],
        tables=[evaluation_table(summary).filled(), *frontier_tables(summary), *by_group],
        plots=curves,
        notes=[
            *evaluation_notes(summary, sets),
            *([NOTE] if by_group else []),
            *(further if len(sets) > 1 else []),
        ],
    )
    return [replace(one, draws_front=not curves) for one in (first, *sections[1:])]


def _section(candidates: Sequence[Candidate], settings: Settings, heading: str) -> Section:
    comparison = compare(candidates, settings.evaluation.resamples)
    sides, answers = side_by_side(candidates, MOST_SIDES)
    samples = answer_table(sides, answers, comparison["toxicity"], names.METRICS)
    return Section(comparison=comparison, samples=samples, heading=heading)
