"""What results are held to: a bound on the change of one measure on one set."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound on the change of one measure on one set.

    Attributes:
        data: name of the set in `stage=evaluate`.
        label: of the set, for the table.
        measure: of `Judged.level`.
        most: greatest change that is inside; None has no such bound.
        least: smallest.
        relative: the change is a fraction of the base's level; else a difference.
    """

    data: str
    label: str
    measure: str
    most: float | None = None
    least: float | None = None
    relative: bool = True

    def inside(self, change: float) -> bool:
        """Whether a change is within the bounds."""
        most = math.inf if self.most is None else self.most
        least = -math.inf if self.least is None else self.least
        return least <= change <= most

    @property
    def bound(self) -> str:
        """The bound in words; empty where a measure is only reported."""
        words = [
            f"{sign} {self.show(value)}"
            for sign, value in (("at most", self.most), ("at least", self.least))
            if value is not None
        ]
        return ", ".join(words)

    def show(self, change: float) -> str:
        """A change as the table shows it."""
        return f"{100 * change:+.1f} %" if self.relative else f"{change:+.4f}"


def measures_of(goals: Sequence[Goal]) -> dict[str, list[str]]:
    """Set -> measures that a goal is about."""
    measures = defaultdict(list)
    for goal in goals:
        measures[goal.data].append(goal.measure)
    return dict(measures)
