"""What the jobs of a multirun come to: spread over seeds, effects of parameters, the front."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scipy.stats import spearmanr

from lora_detox.comparison.candidates import Candidate
from lora_detox.comparison.compare import pareto_front
from lora_detox.metrics import names
from lora_detox.report.wording import in_text

SEED = "seed"
_LEAST_DRAWN = 9
"""Values of a key from which on they may be draws of an interval."""

Numbers = dict[str, Any]


def swept_values(overrides: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    """Keys whose values are not the same in all jobs.

    Args:
        overrides: of each job.

    Returns:
        Key -> its values in the order of the jobs, `-` where a job has none.
    """
    jobs = [dict(map(_key_and_value, one)) for one in overrides]
    keys = dict.fromkeys(key for job in jobs for key in job)
    values = {key: list(dict.fromkeys(job.get(key, "-") for job in jobs)) for key in keys}
    return {key: several for key, several in values.items() if len(several) > 1}


def job_name(overrides: Sequence[str], keys: Iterable[str]) -> str:
    """The swept overrides of a job, by the last part of each key where that is enough.

    Args:
        overrides: of the job.
        keys: that are swept.

    Returns:
        As `learning_rate=0.001 seed=0`; empty where nothing is swept.
    """
    keys = list(keys)
    last = [key.rsplit(".", 1)[-1] for key in keys]
    values = dict(map(_key_and_value, overrides))
    return " ".join(
        f"{short if last.count(short) == 1 else key}={values.get(key, '-')}"
        for key, short in zip(keys, last, strict=True)
    )


def named_by_overrides(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates of a sweep with their swept overrides as names, where these tell them apart.

    Args:
        candidates: of the jobs of one sweep.

    Returns:
        The same, renamed.
    """
    keys = swept_values(one.overrides for one in candidates)
    renamed = [
        replace(
            one,
            name=": ".join(part for part in (job_name(one.overrides, keys), one.model) if part),
        )
        for one in candidates
    ]
    unique = len({one.name for one in renamed}) == len(renamed) and all(one.name for one in renamed)
    return renamed if unique else list(candidates)


def sweep_numbers(candidates: Sequence[Candidate], comparison: Mapping[str, Any]) -> Numbers:
    """Configurations over their seeds, and what each swept parameter does.

    Args:
        candidates: that were compared.
        comparison: of `compare`.

    Returns:
        `configurations` (jobs that differ in nothing but the seed), the least toxic first;
        `effects` (key -> one entry per value, over all jobs that have it); `correlations` (of keys
        with a number of its own in nearly every job: key -> measure -> Spearman's rank
        correlation); `seed_spread` (standard deviation of toxicity within configurations, None
        without several seeds).
    """
    entries = {one["name"]: one for one in comparison["candidates"]}
    swept = swept_values(one.overrides for one in candidates)
    keys = [key for key in swept if key != SEED]
    groups: dict[str, list[Candidate]] = {}
    for one in candidates:
        name = ": ".join(part for part in (job_name(one.overrides, keys), one.model) if part)
        groups.setdefault(name or "all jobs", []).append(one)
    measures = [comparison["toxicity"], *filter(None, [comparison["quality"]])]
    configurations = [
        {
            "name": name,
            "seeds": [one.seed for one in members],
            **_over([entries[one.name] for one in members], measures),
        }
        for name, members in groups.items()
    ]
    configurations.sort(key=lambda one: float(one[measures[0]]["mean"]))
    _mark_front(configurations, measures)
    drawn = [key for key in keys if _is_drawn(swept[key], len(candidates))]
    effects = {
        key: [
            {"value": value, **_over([entries[one.name] for one in having], measures)}
            for value in swept[key]
            if (having := [one for one in candidates if _value(one, key) == value])
        ]
        for key in keys
        if key not in drawn
    }
    return {
        "configurations": configurations,
        "effects": effects,
        "correlations": {
            key: {
                measure: _rank_correlation(
                    [float(_value(one, key)) for one in candidates],
                    [float(entries[one.name]["numbers"][measure]) for one in candidates],
                )
                for measure in measures
            }
            for key in drawn
        },
        "seed_spread": _seed_spread(configurations, measures[0]),
    }


def sweep_verdict(numbers: Mapping[str, Any], toxicity: str) -> list[str]:
    """Which configuration is least toxic in the mean over its seeds.

    Args:
        numbers: of `sweep_numbers`.
        toxicity: the measure of toxicity.

    Returns:
        One sentence; none with one configuration, or where no configuration has several seeds.
    """
    configurations, spread = numbers["configurations"], numbers["seed_spread"]
    if len(configurations) < 2 or spread is None:
        return []
    least, following = configurations[:2]
    low, beside = (float(one[toxicity]["mean"]) for one in (least, following))
    digits = names.METRICS[toxicity].digits
    times = f", {(beside - low) / spread:.1f} standard deviations over seeds" if spread else ""
    judged = " by the judge" if toxicity == names.JUDGE_TOXICITY else ""
    return [
        f"{least['name']} is the least toxic configuration: mean toxicity{judged} {low:.{digits}f} "
        f"over {least['jobs']} jobs, {beside - low:.{digits}f} less than the next, "
        f"{following['name']}{times}."
    ]


def sweep_sentences(numbers: Mapping[str, Any], toxicity: str) -> list[str]:
    """How large effects are beside the spread over seeds.

    Args:
        numbers: of `sweep_numbers`.
        toxicity: the measure of toxicity.

    Returns:
        One sentence per swept parameter, and one on seeds.
    """
    spread, digits = numbers["seed_spread"], names.METRICS[toxicity].digits
    sentences = [
        f"Over seeds of a configuration toxicity has a standard deviation of {spread:.{digits}f}."
        if spread is not None
        else "No configuration ran with several seeds, so the spread over seeds is not known: "
        "differences between jobs may be their seeds'."
    ]
    for key, values in numbers["effects"].items():
        levels = [(one[toxicity]["mean"], one["value"]) for one in values]
        (low, best), (high, worst) = min(levels), max(levels)
        times = "" if not spread else f", {(high - low) / spread:.1f} of these standard deviations"
        sentences.append(
            f"{key}: least toxic at {best} (mean {low:.{digits}f}), most at {worst} "
            f"({high:.{digits}f}){times}."
        )
    for key, correlations in numbers["correlations"].items():
        words = [
            f"{correlation:+.2f} with {in_text(names.METRICS[measure].label)}"
            for measure, correlation in correlations.items()
            if correlation is not None
        ]
        if words:
            sentences.append(f"{key}: rank correlation over the jobs {', '.join(words)}.")
    return sentences


def _is_drawn(values: Sequence[str], jobs: int) -> bool:
    """Whether nearly every job has a number of its own, so that a mean per value says nothing."""
    if len(values) < _LEAST_DRAWN or 2 * len(values) < jobs:
        return False
    try:
        return all(math.isfinite(float(value)) for value in values)
    except ValueError:
        return False


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's; None where one of them is the same everywhere."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(spearmanr(first, second).statistic)


def _over(entries: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> Numbers:
    """Mean and spread of levels and changes over jobs."""
    numbers: Numbers = {"jobs": len(entries), "names": [one["name"] for one in entries]}
    for key in measures:
        levels = [float(one["numbers"][key]) for one in entries]
        changes = [one["change"][key]["mean"] for one in entries if key in one["change"]]
        numbers[key] = {
            **_spread(levels),
            "change": _spread(changes) if len(changes) == len(entries) else None,
        }
    return numbers


def _spread(values: Sequence[float]) -> Numbers:
    """Mean, standard deviation (sample; None of one value), least and most."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "least": min(values),
        "most": max(values),
    }


def _mark_front(configurations: Sequence[Numbers], measures: Sequence[str]) -> None:
    if len(measures) < 2:
        return
    toxicity, quality = measures
    sign = -1.0 if names.METRICS[quality].better == names.Better.HIGHER else 1.0
    points = [(one[toxicity]["mean"], sign * one[quality]["mean"]) for one in configurations]
    for one, on_front in zip(configurations, pareto_front(points), strict=True):
        one["front"] = on_front


def _seed_spread(configurations: Sequence[Numbers], key: str) -> float | None:
    """Pooled standard deviation within configurations of more than one job."""
    several = [one for one in configurations if one["jobs"] > 1]
    weights = [one["jobs"] - 1 for one in several]
    if not several:
        return None
    squares = sum(w * one[key]["std"] ** 2 for w, one in zip(weights, several, strict=True))
    return float((squares / sum(weights)) ** 0.5)


def _value(candidate: Candidate, key: str) -> str:
    return dict(map(_key_and_value, candidate.overrides)).get(key, "-")


def _key_and_value(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value
