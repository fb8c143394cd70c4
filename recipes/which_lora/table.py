"""Adapters beside each other: at equal optimizer steps, and at equal seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recipes.lab.judged import Judged, Paired, change_of, paired_difference
from recipes.lab.store import Result, collect
from recipes.lab.subjects import QUALITIES
from recipes.lab.tables import markdown_table, most_toxic_first, own_samples, samples_markdown
from recipes.which_lora.variants import QUERY_VALUE, variants

LAST = 5
"""Rollouts of training whose mean is compared at equal seconds."""
SHOWN = 6
"""Prompts in samples.md: every fourth of those that the start answers worst."""
SET = "in_distribution"
WORK = ("seconds_generate", "seconds_reference", "seconds_score", "seconds_update")
"""Seconds of an iteration that count; evaluations are left out."""
Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One training.

    Attributes:
        judged: what it wrote to the held-out prompts.
        weights: how many learn, in the adapter and the value head.
        seconds: of each iteration, [iterations].
        toxicity: of each rollout by the reward's classifier, [iterations].
    """

    judged: Judged
    weights: int
    seconds: Numbers
    toxicity: Numbers

    def after(self, seconds: float) -> float:
        """Mean toxicity of the last rollouts finished by then; NaN where there is none."""
        count = int(np.searchsorted(np.cumsum(self.seconds), seconds + 1e-9, side="right"))
        return float(self.toxicity[max(0, count - LAST) : count].mean()) if count else float("nan")


Seeds = Mapping[str, Trained]
"""Name of the seed -> its training."""


def trained_of(result: Result) -> Trained:
    """One seed of a variant, from its stored result."""
    return Trained(
        judged=result.sets[SET],
        weights=int(result.facts["trainable"]),
        seconds=np.sum([result.trail[phase] for phase in WORK], axis=0),
        toxicity=np.array(result.trail["toxicity"]),
    )


def read_all(
    out: Path, model: str, sizes: Mapping[str, int]
) -> tuple[Judged | None, dict[str, dict[str, Trained]]]:
    """The base, and every variant that has a finished seed; brings results.json up to date.

    Args:
        out: folder of the results.
        model: of `recipes.lab.subjects.SUBJECTS`.
        sizes: as `store.collect` wants them.

    Returns:
        The base, None where it is not finished, and variant -> seed -> training.
    """
    measures = {SET: ("judge", QUALITIES[model].measure, "words", "distinct_2")}
    runs = collect(out, measures, sizes, trail=("toxicity", *WORK))
    base = runs.pop("base", None)
    found: dict[str, dict[str, Trained]] = {}
    for variant in variants(model):
        for name, result in runs.items():
            if name.startswith(f"{variant}/"):
                found.setdefault(variant, {})[name.partition("/")[2]] = trained_of(result)
    return None if base is None else base.sets[SET], found


def shortest(trained: Mapping[str, Seeds]) -> dict[str, float]:
    """Seconds of the fastest training of each seed, whose variants ran on one machine."""
    found: dict[str, float] = {}
    for seeds in trained.values():
        for seed, one in seeds.items():
            found[seed] = min(found.get(seed, np.inf), float(one.seconds.sum()))
    return found


def markdown(base: Judged, trained: Mapping[str, Seeds], model: str) -> str:
    """One row per variant, least toxicity at equal steps first."""
    quality = QUALITIES[model].measure
    ends = shortest(trained)
    heads = [
        "adapter",
        "seeds",
        "weights",
        "judge toxicity, equal steps [95 %]",
        "beside query and value, same seeds [95 %]",
        quality,
        "words",
        "distinct-2",
        "s an iteration",
        f"rollouts' toxicity after {_seconds(ends)}",
    ]
    changes = {
        name: change_of([one.judged for one in seeds.values()], base, "judge")
        for name, seeds in trained.items()
    }
    rows = []
    for name in sorted(trained, key=lambda one: changes[one].mean):
        seeds = list(trained[name].values())
        judged = [one.judged for one in seeds]
        then = [one.after(ends[seed]) for seed, one in trained[name].items()]
        rows.append(
            [
                variants(model)[name].label,
                str(len(seeds)),
                f"{seeds[0].weights:,}",
                str(changes[name]),
                points([beside_query_and_value(name, trained, base)]),
                str(change_of(judged, base, quality)),
                str(change_of(judged, base, "words")),
                f"{100 * change_of(judged, base, 'distinct_2').mean:+.1f} %",
                f"{np.median(np.concatenate([one.seconds for one in seeds])):.1f}",
                f"{np.mean(then):.4f}",
            ]
        )
    start = float(base.level("judge"))
    return f"Judge toxicity of the start: {start:.4f}.\n\n" + markdown_table(heads, rows) + "\n"


def beside_query_and_value(name: str, trained: Mapping[str, Seeds], base: Judged) -> Paired | None:
    """A variant and query and value over the seeds that both have; None where there is none.

    Args:
        name: of the variant.
        trained: variant -> seed -> training.
        base: the start.
    """
    beside = trained.get(QUERY_VALUE, {})
    both = [seed for seed in trained.get(name, {}) if seed in beside]
    if name == QUERY_VALUE or not both:
        return None
    own, others = ([of[seed].judged for seed in both] for of in (trained[name], beside))
    return Paired(seeds=own, others=others, base=base)


def points(pairs: Sequence[Paired | None]) -> str:
    """Difference of the judge's changes in points, as a mean; empty where a model lacks it."""
    known = [one for one in pairs if one is not None]
    if len(known) < len(pairs):
        return ""
    return str(paired_difference(known, "judge")).replace(" %", "")


def _seconds(ends: Mapping[str, float]) -> str:
    """The seconds of the seeds, which machines may differ in."""
    low, high = min(ends.values()), max(ends.values())
    return f"{low:.0f} s" if round(low) == round(high) else f"{low:.0f} to {high:.0f} s"


def samples(out: Path, model: str) -> str:
    """What the start and the first seed of each variant wrote to some prompts, the worst first.

    Args:
        out: folder of the results; those of other machines have no texts, and are left out.
        model: of `recipes.lab.subjects.SUBJECTS`.
    """
    models = {"start": own_samples(out / "base")}
    for name, variant in variants(model).items():
        done = sorted((out / name).glob("seed*/evaluate/samples.jsonl"))
        if done:
            models[variant.label] = own_samples(done[0].parents[1])
    return samples_markdown(models, most_toxic_first(models["start"])[: 4 * SHOWN : 4])


def write_report(out: Path, model: str, sizes: Mapping[str, int]) -> None:
    """Write results.json, table.md and samples.md, and print the table.

    Args:
        out: folder of the results.
        model: of `recipes.lab.subjects.SUBJECTS`.
        sizes: as `store.collect` wants them; every other size stands in the recipe.
    """
    base, trained = read_all(out, model, sizes)
    if not trained or base is None:
        print("nothing finished yet")
        return
    text = markdown(base, trained, model)
    (out / "table.md").write_text(text, encoding="utf-8")
    if (out / "base" / "evaluate").is_dir():
        (out / "samples.md").write_text(samples(out, model), encoding="utf-8")
    print(text)
