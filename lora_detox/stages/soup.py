"""stage=soup: the mean of several finished runs of one task, held to the same budget."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lora_detox.builders.controls import budget_of
from lora_detox.choices import Baseline, Ship
from lora_detox.errors import SettingsError
from lora_detox.policy.soup import apply_soup, average_adapters
from lora_detox.report.console import print_line
from lora_detox.report.jsonl import read_jsonl
from lora_detox.report.wording import means_of
from lora_detox.run.build import open_job
from lora_detox.run.finish import evaluate_start, finish
from lora_detox.run.job import Job
from lora_detox.settings import GuardSettings, Settings
from lora_detox.settings.stored import stored_json


def run(settings: Settings) -> tuple[float, ...]:
    """Average the adapters of runs, go back towards the start until inside the budget, report.

    Runs that strayed are left out. The mean is as long as its members, so that it is no weaker
    than they are (docs/decisions/0012).

    Args:
        settings: composed and checked, those of the runs; `soup` names their folders.

    Returns:
        The objectives of stage=detox.

    Raises:
        DetoxError: what cannot work, before weights load.
    """
    runs = inside_runs(settings)
    soup = average_adapters([Path(one).expanduser() / "adapter" for one in runs])
    adapter = replace(
        settings.adapter, rank=soup.rank, alpha=float(soup.rank), rslora=False, init="true"
    )
    # Nothing is trained: no mean of weights along the way, no value head, no collapse.
    algorithm = replace(settings.algorithm, average=None, baseline=Baseline.running_mean)
    budget = replace(settings.budget, ship=Ship.best)  # the runs' may be their end
    settings_of_mean = replace(
        settings,
        adapter=adapter,
        algorithm=algorithm,
        budget=budget,
        guard=GuardSettings(),
        soup=runs,
    )
    with open_job(settings_of_mean) as job:
        start = evaluate_start(job)
        apply_soup(job.policy.model, soup)
        _hold_to_budget(job)
        soup_entry = {
            "runs": runs,
            "left_out": [one for one in settings.soup if one not in runs],
            "cosine": soup.cosine,
            "stretch": soup.stretch,
        }
        return finish(job, start, {**job.selector.outcome(), "soup": soup_entry})


def inside_runs(settings: Settings) -> list[str]:
    """The runs whose mean is taken: those inside the budget on their own, two at the least.

    A mean costs about what its members cost in the mean, so one that strayed costs all of them.
    Wortsman et al. 2022 (section 2) choose by validation likewise, one by one ("greedy soup").

    Args:
        settings: composed and checked; `soup` names finished runs.

    Returns:
        Their folders, in the order given; the two nearest to the bounds where fewer are inside.
    """
    budget = budget_of(settings, references=settings.task.kind.has_references)
    excess = {}
    for folder in settings.soup:
        now, start = _measured(Path(folder).expanduser())
        excess[folder] = max(budget.excess(now, start).values(), default=0.0)
    cheapest = sorted(settings.soup, key=lambda one: excess[one])
    count = max(2, sum(outside <= 0 for outside in excess.values()))
    for one in cheapest[count:]:
        print_line(f"left out: {one}, outside the budget by {excess[one]:.1%} on its own")
    return [one for one in settings.soup if one in cheapest[:count]]


def _measured(folder: Path) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """What a finished run ships on its validation prompts, and what it started from."""
    whole = "want a whole folder of a finished run"
    budget = stored_json(folder / "summary.json", "soup", whole).get("budget")
    if budget is not None:
        return budget["measured"], budget["start"]
    rows = read_jsonl(folder / "metrics.jsonl")  # without a budget the end is the result
    evaluations = [means_of(row["evaluation"]) for row in rows if "evaluation" in row]
    if not evaluations:
        raise SettingsError(f"soup: {folder / 'metrics.jsonl'} has no evaluation; {whole}")
    return evaluations[-1], evaluations[0]


def _hold_to_budget(job: Job) -> None:
    """The mean is the one candidate beside the start, and what lies between them."""
    done = job.plan.iterations
    evaluation = job.validate()
    outside = job.selector.compare(done, means_of(evaluation))
    job.record({"iteration": done, "evaluation": evaluation})
    if outside is not None:
        print_line(f"mean: {outside}")
    for line in job.selector.scale(done, job.validate, **job.settings.budget.strengths()):
        print_line(line)
    job.selector.load_best()
