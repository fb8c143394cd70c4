"""stage=soup: the mean of several finished runs of one task, held to the same budget."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_detox.policy.soup import Ingredients, Soup, apply_soup
from lora_detox.report.jsonl import read_jsonl
from lora_detox.settings import BaselineType, BudgetResult, GuardSettings, Settings
from lora_detox.stages.announce import say
from lora_detox.stages.build import Job, build_job
from lora_detox.stages.finish import finish


def run(settings: Settings) -> tuple[float, ...]:
    """Average the adapters of runs, leave out the costly and go back until inside, report.

    What every run learned stays in the mean, what they drifted to one by one cancels; its length
    is that of its members, so that it is no weaker than they are (docs/decisions/0012).

    Args:
        settings: composed and checked, those of the runs; `soup` names their folders.

    Returns:
        The objectives of stage=detox.

    Raises:
        DetoxError: what cannot work, before weights load.
    """
    folders = [Path(one).expanduser() for one in settings.soup]
    ingredients = Ingredients([folder / "adapter" for folder in folders])
    rank = ingredients.rank
    adapter = replace(settings.adapter, rank=rank, alpha=float(rank), rslora=False)
    # Nothing is trained: no mean of weights along the way, no value head, no collapse.
    algorithm = replace(settings.algorithm, average=None, baseline=BaselineType.running_mean)
    budget = replace(settings.budget, result=BudgetResult.best)  # the runs' may be their end
    asked = replace(
        settings, adapter=adapter, algorithm=algorithm, budget=budget, guard=GuardSettings()
    )
    with build_job(asked) as job:
        before = job.before()
        tried = _means(job, ingredients, folders)
        best = min(tried, key=lambda mean: mean.excess)
        apply_soup(job.policy.model, best.soup)
        _hold_to_budget(job, best)
        told = {
            "runs": [settings.soup[i] for i in best.members],
            "left_out": [one for i, one in enumerate(settings.soup) if i not in best.members],
            "tried": [{"runs": len(mean.members), "excess": mean.excess} for mean in tried],
            "cosine": best.soup.cosine,
            "stretch": best.soup.stretch,
        }
        return finish(job, before, {**job.watch.facts(), "soup": told})


@dataclass(frozen=True, kw_only=True)
class _Mean:
    """A mean that was tried.

    Attributes:
        members: places of the runs.
        soup: their mean.
        evaluation: on validation prompts.
        excess: share of the limit by which its worst measure is outside; <= 0 is inside.
    """

    members: list[int]
    soup: Soup
    evaluation: dict[str, Any]
    excess: float


def _means(job: Job, ingredients: Ingredients, folders: Sequence[Path]) -> list[_Mean]:
    """Leave out the run that cost most, one by one, until the mean of the rest is inside.

    The greedy soup of Wortsman et al. 2022 (section 2) from its other end: all that are not too
    costly are wanted.
    """
    order = sorted(range(len(folders)), key=lambda i: job.watch.excess(*_measured(folders[i])))
    tried: list[_Mean] = []
    for size in range(len(order), 1, -1):
        members = sorted(order[:size])
        soup = ingredients.mean(members)
        apply_soup(job.policy.model, soup)
        evaluation = job.validate()
        excess = job.watch.excess(evaluation)
        tried.append(_Mean(members=members, soup=soup, evaluation=evaluation, excess=excess))
        if excess <= 0:
            break
        way = f"leaving out {folders[order[size - 1]]}, the costliest" if size > 2 else "going back"
        say(f"mean of {size} runs: outside the budget by {excess:.1%}; {way}")
    return tried


def _measured(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Measures of a finished run on its validation prompts, of what it ships and of its start."""
    budget = json.loads((folder / "summary.json").read_text("utf-8")).get("budget")
    if budget is not None:
        return budget["measured"], budget["start"]
    rows = read_jsonl(folder / "metrics.jsonl")
    evaluations = [row["evaluation"] for row in rows if "evaluation" in row]
    return evaluations[-1], evaluations[0]  # without a budget the end is the result


def _hold_to_budget(job: Job, mean: _Mean) -> None:
    """The mean is the one candidate beside the start, and what lies between them."""
    done = job.plan.iterations
    row: dict[str, Any] = {"iteration": done, "evaluation": mean.evaluation}
    job.watch.iteration(done, row)
    job.record(row)
    if mean.excess > 0:
        say(f"back to the start from the mean of {len(mean.members)} runs:")
    for line in job.watch.look_back(done, job.settings.budget.interpolate, job.validate):
        say(line)
    job.watch.settle()
