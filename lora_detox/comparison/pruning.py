"""Trials of a study that end early, because finished ones were better at the same iteration.

Optuna's pruners know one objective alone. The rule here is their median rule for two: a trial is
pruned where at least a given fraction of the finished trials dominate it on validation prompts
after the same number of iterations. It reads the folders of the sweep, so that it works wherever a
launcher runs a job.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_detox.comparison.jobs import read_jobs
from lora_detox.comparison.objectives import Point, dominates, objectives
from lora_detox.errors import PrunedError
from lora_detox.metrics import names
from lora_detox.report.jsonl import read_jsonl
from lora_detox.report.wording import means_of

_rules: list["PruningRule"] = []
"""The rule of the job that runs in this process; none outside of a study."""


@dataclass(frozen=True, kw_only=True)
class PruningRule:
    """When a trial has no prospects.

    Attributes:
        sweep: folder of the study.
        after: iterations before which no trial is pruned.
        least: finished trials before which no trial is pruned.
        fraction: of the finished trials that have to dominate it, in (0, 1].
    """

    sweep: Path
    after: int
    least: int
    fraction: float

    def reason(self, done: int, evaluation: Mapping[str, Any]) -> str | None:
        """Why a trial is to be pruned now.

        Args:
            done: iterations behind it.
            evaluation: on validation prompts, as a row of metrics.jsonl has it.

        Returns:
            A sentence; None where it goes on.
        """
        if done < self.after:
            return None
        own = objectives(means_of(evaluation))
        others = [point for curve in self._finished() if (point := curve.get(done)) is not None]
        better = sum(dominates(other, own) for other in others)
        if len(others) < self.least or better < self.fraction * len(others):
            return None
        return (
            f"pruned after iteration {done}: on validation prompts {better} of {len(others)} "
            "finished trials were less toxic by then at no worse quality, or as toxic at a better "
            "one"
        )

    def _finished(self) -> list[dict[int, Point]]:
        """Of each finished trial its objectives by iterations behind it."""
        finished = [job for job in read_jobs(self.sweep) if job.error is None]
        return [_curve(Path(job.folder)) for job in finished]


def set_rule(rule: PruningRule | None) -> None:
    """From here on the job of this process is a trial under a rule; None: it is none."""
    _rules[:] = [] if rule is None else [rule]


def prune_if_hopeless(done: int, evaluation: Mapping[str, Any] | None) -> None:
    """End a trial here where its rule says so; nothing happens outside of a study.

    Args:
        done: iterations behind.
        evaluation: on validation prompts; None where this iteration had none.

    Raises:
        PrunedError: with the reason.
    """
    for rule in _rules:
        if evaluation is not None and (reason := rule.reason(done, evaluation)) is not None:
            raise PrunedError(reason)


def _curve(folder: Path) -> dict[int, Point]:
    """Objectives on validation prompts by iterations behind, as metrics.jsonl has them."""
    rows = [row for row in read_jsonl(folder / "metrics.jsonl") if row.get("evaluation")]
    measured = {int(row["iteration"]): means_of(row["evaluation"]) for row in rows}
    return {done: objectives(one) for done, one in measured.items() if names.TOXICITY in one}
