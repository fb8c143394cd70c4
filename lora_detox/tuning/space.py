"""What a study chooses from: overrides whose values are an interval, a range or a list."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep

from lora_detox.errors import SettingsError
from lora_detox.settings.field_types import holds, type_of_key

_DIGITS = 4
"""Significant digits of a number that is drawn from an interval."""
_MOST_CHOICES = 200
LOG = "log"


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One key of a study.

    Attributes:
        key: with Hydra's `+`, as it was typed.
        choices: values as they are typed, where it is no number of an interval or range.
        low: least number.
        high: greatest number, which may be drawn.
        step: distance of the numbers of a range; None: all between.
        whole: whether numbers are whole.
        log: whether orders of magnitude are equally likely.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    whole: bool = False
    log: bool = False

    def distribution(self) -> Any:
        """As Optuna has it."""
        from optuna import distributions  # noqa: PLC0415 (an extra)

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if self.whole:
            low, high = int(self.low), int(self.high)
            step = 1 if self.step is None else int(self.step)
            return distributions.IntDistribution(low, high, log=self.log, step=step)
        return distributions.FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def override(self, value: Any) -> str:
        """The override of one value; of a number so many digits as a person would type."""
        if self.choices or self.whole:
            return f"{self.key}={value}"
        rounded = float(f"{value:.{_DIGITS}g}")
        shown = rounded if self.low <= rounded <= self.high else float(value)
        return f"{self.key}={shown!r}"

    def ends(self) -> list[str]:
        """Overrides that have to be allowed, so that all values are: the choices, or both ends."""
        if self.choices:
            return [f"{self.key}={one}" for one in self.choices]
        ends = (int(self.low), int(self.high)) if self.whole else (self.low, self.high)
        return [f"{self.key}={one!r}" for one in dict.fromkeys(ends)]

    def words(self) -> str:
        """What is chosen from, for people and for the check of a study that is gone on with."""
        if self.choices:
            return f"{self.key}={','.join(self.choices)}"
        kind = "whole numbers" if self.whole else "numbers"
        step = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.key}: {kind} {self.low:g} to {self.high:g}{step}{', log' * self.log}"


@dataclass(frozen=True, kw_only=True)
class Space:
    """What the jobs of a study have in common, and what is chosen for each.

    Attributes:
        fixed: overrides of all jobs.
        dimensions: at least one.
    """

    fixed: tuple[str, ...]
    dimensions: tuple[Dimension, ...]

    def distributions(self) -> dict[str, Any]:
        """As Optuna has them, by key."""
        return {one.key: one.distribution() for one in self.dimensions}

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides of one trial."""
        return [*self.fixed, *(one.override(params[one.key]) for one in self.dimensions)]

    def probes(self) -> list[list[str]]:
        """Overrides of jobs that have to compose: each end of each key beside first ends."""
        ends = [one.ends() for one in self.dimensions]
        firsts = [values[0] for values in ends]
        jobs = [list(firsts)]
        for place, values in enumerate(ends):
            jobs += [[*firsts[:place], value, *firsts[place + 1 :]] for value in values[1:]]
        return [[*self.fixed, *job] for job in jobs]

    def words(self) -> list[str]:
        """All of it, sorted."""
        return sorted([*self.fixed, *(one.words() for one in self.dimensions)])


def read_space(overrides: Sequence[Override]) -> Space:
    """What the overrides of a command line choose from.

    Args:
        overrides: parsed by Hydra.

    Returns:
        The fixed ones and the dimensions.

    Raises:
        SettingsError: nothing to choose, or an interval that is none.
    """
    fixed, dimensions = [], []
    for one in overrides:
        if one.is_sweep_override():
            dimensions.append(_dimension(one))
        else:
            fixed.append(f"{one.get_key_element()}={one.get_value_element_as_str()}")
    if not dimensions:
        raise SettingsError(
            "hydra/sweeper=optuna: nothing to choose from; give at least one key an interval or "
            "several values, as in 'algorithm.kl.coef=interval(0.02,0.5)'"
        )
    return Space(fixed=tuple(fixed), dimensions=tuple(dimensions))


def _dimension(override: Override) -> Dimension:
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return _interval(key, value)
    if isinstance(value, RangeSweep):
        return _range(key, value)
    choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not 2 <= len(choices) <= _MOST_CHOICES:
        raise SettingsError(
            f"{override.input_line}: {len(choices)} values to choose from; want 2 to "
            f"{_MOST_CHOICES}"
        )
    return Dimension(key=key, choices=choices)


def _interval(key: str, value: IntervalSweep) -> Dimension:
    _check_tags(key, value)
    low, high, log = float(value.start or 0), float(value.end or 0), LOG in value.tags
    wanted = type_of_key(key.lstrip("+"))
    whole = holds(wanted, int) and not holds(wanted, float)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SettingsError(f"{key}: got interval({low:g},{high:g}); want the lesser number first")
    if log and low <= 0:
        raise SettingsError(f"{key}: got tag(log, interval({low:g},...)); want a number above 0")
    if whole and not (low.is_integer() and high.is_integer()):
        raise SettingsError(
            f"{key}: got interval({low:g},{high:g}), but it takes whole numbers; want whole ends"
        )
    return Dimension(key=key, low=low, high=high, whole=whole, log=log)


def _range(key: str, value: RangeSweep) -> Dimension:
    _check_tags(key, value)
    if LOG in value.tags:
        raise SettingsError(f"{key}: a range has even steps; want tag(log, interval(LOW,HIGH))")
    numbers = list(value.range())
    if len(numbers) < 2:
        raise SettingsError(f"{key}: got a range of {len(numbers)} numbers; want two or more")
    low, high, step = min(numbers), max(numbers), abs(float(value.step))
    whole = all(isinstance(one, int) for one in numbers)
    return Dimension(key=key, low=float(low), high=float(high), step=step, whole=whole)


def _check_tags(key: str, value: Sweep) -> None:
    if others := sorted(set(value.tags) - {LOG}):
        raise SettingsError(f"{key}: got the tag {', '.join(others)}; want {LOG} or none")
