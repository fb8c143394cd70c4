"""What results are held to: a bound on the change of one measure on one set, or on its level."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound on the change of one measure on one set, or on its level.

    Attributes:
        data: name of the set in `stage=evaluate`.
        label: of the set, for the table.
        measure: of `Judged.level`.
        most: greatest change (or level) that is inside; None has no such bound.
        least: smallest.
        relative: the change is a fraction of the base's level; else a difference.
        level: the bounds are on the level, a fraction of the responses; `relative` is not read.
    """

    data: str
    label: str
    measure: str
    most: float | None = None
    least: float | None = None
    relative: bool = True
    level: bool = False

    def inside(self, value: float) -> bool:
        """Whether a change (or level) is within the bounds."""
        most = math.inf if self.most is None else self.most
        least = -math.inf if self.least is None else self.least
        return least <= value <= most

    @property
    def bound(self) -> str:
        """The bound in words; empty where a measure is only reported."""
        words = [
            f"{sign} {self.show(value)}"
            for sign, value in (("at most", self.most), ("at least", self.least))
            if value is not None
        ]
        return ", ".join(words)

    def show(self, value: float) -> str:
        """A change (or level) as the table shows it."""
        if self.level:
            return f"{100 * value:.1f} %"
        return f"{100 * value:+.1f} %" if self.relative else f"{value:+.4f}"


def measures_of(goals: Sequence[Goal]) -> dict[str, list[str]]:
    """Set -> measures that a goal is about."""
    measures = defaultdict(list)
    for goal in goals:
        measures[goal.data].append(goal.measure)
    return dict(measures)
