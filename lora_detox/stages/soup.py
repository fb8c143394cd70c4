"""stage=soup: the mean of several finished runs of one task, held to the same budget."""

from dataclasses import replace
from pathlib import Path

from lora_detox.policy.soup import apply_soup, average_adapters
from lora_detox.settings import BaselineType, BudgetResult, GuardSettings, Settings
from lora_detox.stages.announce import say
from lora_detox.stages.build import Job, build_job
from lora_detox.stages.finish import finish


def run(settings: Settings) -> tuple[float, ...]:
    """Average the adapters of runs, go back towards the start until inside the budget, report.

    What every run learned stays in the mean, what they drifted to one by one cancels; its length
    is that of its members, so that it is no weaker than they are (docs/decisions/0012).

    Args:
        settings: composed and checked, those of the runs; `soup` names their folders.

    Returns:
        The objectives of stage=detox.

    Raises:
        DetoxError: what cannot work, before weights load.
    """
    soup = average_adapters([Path(one).expanduser() / "adapter" for one in settings.soup])
    adapter = replace(settings.adapter, rank=soup.rank, alpha=float(soup.rank), rslora=False)
    # Nothing is trained: no mean of weights along the way, no value head, no collapse.
    algorithm = replace(settings.algorithm, average=None, baseline=BaselineType.running_mean)
    budget = replace(settings.budget, result=BudgetResult.best)  # the runs' may be their end
    asked = replace(
        settings, adapter=adapter, algorithm=algorithm, budget=budget, guard=GuardSettings()
    )
    with build_job(asked) as job:
        before = job.before()
        apply_soup(job.policy.model, soup)
        _hold_to_budget(job)
        told = {"runs": settings.soup, "cosine": soup.cosine, "stretch": soup.stretch}
        return finish(job, before, {**job.watch.facts(), "soup": told})


def _hold_to_budget(job: Job) -> None:
    """The mean is the one candidate beside the start, and what lies between them."""
    done = job.plan.iterations
    row = {"iteration": done, "evaluation": job.validate()}
    said = job.watch.iteration(done, row)
    job.record(row)
    if said is not None:
        say(said.replace(f"iteration {done}", "mean"))
    for line in job.watch.look_back(done, job.settings.budget.interpolate, job.validate):
        say(line)
    job.watch.settle()
