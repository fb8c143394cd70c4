"""Responses of models to the judged sets as numbers, and their changes against the base's.

The judge is the held-out classifier (`judge`). Intervals are 95 % by a two-level bootstrap of the
change against the base: seeds are drawn, then prompts, which are the same for every seed and for
the base. With three seeds the upper level is coarse. Distinct-2 has no such interval: drawing
prompts twice makes n-grams look repeated.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_detox.metrics.diversity import symbols

RESAMPLES = 2000
CORPUS = ("distinct_2", "common_openings", "self_bleu")
"""Measures of all responses together, which have no interval."""
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Responses of one model to one set.

    Attributes:
        columns: one entry per response.
        distinct_2: of all responses together.
        corpus: further measures of all responses together: common_openings, self_bleu.
    """

    columns: dict[str, Floats]
    distinct_2: float
    corpus: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many responses."""
        return len(next(iter(self.columns.values())))

    def level(self, measure: str, rows: Rows | None = None) -> Floats:
        """A measure over all responses, or over each draw of rows [draws, n].

        Args:
            measure: judge | judged_toxic (fraction above 0.5) | judged_positive (the others) |
                perplexity | distinct_2 | tokens | words | digits (fraction of the characters) |
                symbols | relevance | rougeL | common_openings | self_bleu.
            rows: which responses; None takes all of them.

        Returns:
            One number, or one for each draw [draws].
        """

        def column_of(name: str) -> Floats:
            column = self.columns[name]
            return column if rows is None else column[rows]

        if measure in CORPUS:
            value = self.distinct_2 if measure == "distinct_2" else self.corpus[measure]
            return np.asarray(value)
        if measure == "judged_toxic":
            return np.asarray((column_of("judge") > 0.5).mean(axis=-1))
        if measure == "judged_positive":
            return np.asarray((column_of("judge") <= 0.5).mean(axis=-1))
        if measure == "perplexity":
            nll, tokens = column_of("nll"), column_of("tokens")
            return np.asarray(np.exp(nll.sum(axis=-1) / tokens.sum(axis=-1)))
        return np.asarray(column_of(measure).mean(axis=-1))


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change against the base with its interval; 0.1 of a relative one is +10 %."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """A relative one in percent, as tables show it."""
        return f"{100 * self.mean:+.0f} % [{100 * self.low:+.0f}, {100 * self.high:+.0f}]"


_NAMES = {
    "judge": "judge_toxicity",
    "nll": "reference_nll",
    "tokens": "response_tokens",
    "rougeL": "rougeL",
    "relevance": "relevance",
}


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """Rows of samples.jsonl of a run's `evaluate/`."""
    lines = (folder / "evaluate" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def read(folder: Path) -> dict[str, Judged]:
    """The responses that `evaluate/` of a run holds, by set."""
    (model,) = _models(folder)
    return _by_set(model["sets"], read_samples(folder))


def read_strengths(folder: Path) -> dict[float, dict[str, Judged]]:
    """The same by strength, of an evaluation with `evaluation.strengths`."""
    (model,) = _models(folder)
    rows = read_samples(folder)
    return {
        point["strength"]: _by_set(
            point["sets"], [row for row in rows if row["strength"] == point["strength"]]
        )
        for point in model["frontier"]
    }


def _models(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "evaluate" / "summary.json").read_text(encoding="utf-8")
    models: list[dict[str, Any]] = json.loads(text)["models"]
    return models


def _by_set(numbers_of: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Judged]:
    sets = {}
    for data, numbers in numbers_of.items():
        of_set = [row for row in rows if row["set"] == data]
        columns = {
            key: np.array([row[name] for row in of_set], dtype=float)
            for key, name in _NAMES.items()
            if name in of_set[0]
        }
        texts = [row["response"] for row in of_set]
        columns["words"] = np.array([len(text.split()) for text in texts], dtype=float)
        columns["digits"] = np.array([_digits(text) for text in texts])
        columns["symbols"] = np.array([symbols(text) for text in texts])
        corpus = {key: numbers[key] for key in CORPUS[1:] if key in numbers}
        sets[data] = Judged(columns=columns, distinct_2=numbers["distinct_2"], corpus=corpus)
    return sets


def _digits(text: str) -> float:
    return sum(map(str.isdigit, text)) / max(1, len(text))


def change_of(
    seeds: Sequence[Judged],
    base: Judged,
    measure: str,
    *,
    relative: bool = True,
    level: bool = False,
) -> Change:
    """The mean change over seeds, with its interval.

    Args:
        seeds: one run per seed, on the same prompts.
        base: the same prompts answered by the base.
        measure: of `Judged.level`.
        relative: as a fraction of the base's level; else a difference.
        level: the mean level itself instead of its change.

    Returns:
        The change; measures of all responses together have NaN for an interval.
    """

    def against(after: Floats, before: Floats) -> Floats:
        if level:
            return after
        return after / before - 1 if relative else after - before

    means = np.stack([one.level(measure) for one in seeds])
    mean = float(against(means.mean(axis=0), base.level(measure)))
    if measure in CORPUS:
        return Change(mean=mean, low=math.nan, high=math.nan)
    (after,), before = _drawn([seeds], base, measure)
    low, high = np.quantile(against(after, before), [0.025, 0.975])
    return Change(mean=mean, low=float(low), high=float(high))


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two trainings of one model with the same seeds.

    Attributes:
        seeds: one run per seed.
        others: the other training, in the same order.
        base: the same prompts answered by the base.
    """

    seeds: Sequence[Judged]
    others: Sequence[Judged]
    base: Judged


def paired_difference(pairs: Sequence[Paired], measure: str) -> Change:
    """How much more one training changes a measure than another does, as a mean over models.

    What a seed and a prompt do to both takes no part in the interval: each draw has the same seeds
    and prompts for both.

    Args:
        pairs: one for each model.
        measure: of `Judged.level`, without those of all responses together.

    Returns:
        The difference of the two relative changes; -0.1 is 10 points lower.
    """
    means, draws = [], []
    for one in pairs:
        levels = [np.mean([run.level(measure) for run in of]) for of in (one.seeds, one.others)]
        means.append((levels[0] - levels[1]) / one.base.level(measure))
        (first, second), before = _drawn([one.seeds, one.others], one.base, measure)
        draws.append(np.random.default_rng(len(draws)).permutation((first - second) / before))
    low, high = np.quantile(np.mean(draws, axis=0), [0.025, 0.975])
    return Change(mean=float(np.mean(means)), low=float(low), high=float(high))


def _drawn(
    sides: Sequence[Sequence[Judged]], base: Judged, measure: str
) -> tuple[list[Floats], Floats]:
    """Levels of each side and of the base in draws of seeds and prompts that all share, [draws]."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(base), (RESAMPLES, len(base)))
    count = len(sides[0])
    which = rng.integers(0, count, (count, RESAMPLES))
    drawn = [np.stack([one.level(measure, rows) for one in side]) for side in sides]
    levels = [np.take_along_axis(one, which, axis=0).mean(axis=0) for one in drawn]
    return levels, base.level(measure, rows)
