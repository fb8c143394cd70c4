"""Table, picture and samples of seeds that are held to goals."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from recipes.lab.goals import Goal, measures_of
from recipes.lab.judged import Change, Judged, change_of
from recipes.lab.store import collect
from recipes.lab.tables import markdown_table, most_toxic_first, own_samples, samples_markdown


def change(base: Judged, seeds: Sequence[Judged], goal: Goal) -> Change:
    """Of some seeds against the base, as the goal counts it."""
    return change_of(seeds, base, goal.measure, relative=goal.relative, level=goal.level)


def markdown(
    base: dict[str, Judged], seeds: dict[str, dict[str, Judged]], goals: Sequence[Goal]
) -> str:
    """One row per goal: the base, each seed, the mean with its interval, how many are inside."""
    heads = ["set", "measure", "base", *seeds, "mean [95 %]", "goal", "inside"]
    rows = []
    held = dict.fromkeys(seeds, True)
    for goal in goals:
        start = base[goal.data]
        of_set = {name: one[goal.data] for name, one in seeds.items()}
        changes = {name: change(start, [one], goal).mean for name, one in of_set.items()}
        whole = change(start, list(of_set.values()), goal)
        mean = goal.show(whole.mean)
        if not math.isnan(whole.low):
            mean += f" [{goal.show(whole.low)}, {goal.show(whole.high)}]"
        well = {name: goal.inside(value) for name, value in changes.items()}
        held = {name: held[name] and well[name] for name in seeds}
        cells = [goal.label, goal.measure, f"{float(start.level(goal.measure)):.4g}"]
        cells += [goal.show(value) for value in changes.values()]
        kept = f"{sum(well.values())} of {len(well)}" if goal.bound else ""
        cells += [mean, goal.bound, kept]
        rows.append(cells)
    inside = [name for name, well in held.items() if well]
    count = f"Inside every bound: {len(inside)} of {len(seeds)} ({', '.join(inside) or '-'})."
    return markdown_table(heads, rows) + f"\n\n{count}\n"


def picture(
    base: dict[str, Judged], seeds: dict[str, dict[str, Judged]], goals: Sequence[Goal], file: Path
) -> None:
    """Change of each seed by goal, with the bound as a bar; none where only levels are bound."""
    relative = [goal for goal in goals if goal.relative and goal.bound and not goal.level]
    if not relative:
        return
    figure = Figure(figsize=(8, 0.6 * len(relative) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, goal in enumerate(relative):
        changes = [
            100 * change(base[goal.data], [one[goal.data]], goal).mean for one in seeds.values()
        ]
        axes.plot(changes, [place] * len(changes), "o", color="C0", alpha=0.7)
        limit = goal.most if goal.most is not None else goal.least
        axes.plot([100 * (limit or 0.0)] * 2, [place - 0.35, place + 0.35], color="C3", lw=2)
        sign = "left" if goal.most is not None else "right"
        axes.annotate(f" {sign} of the bar", (100 * (limit or 0.0), place + 0.28), fontsize=7)
    axes.set_yticks(range(len(relative)), [f"{goal.measure}\n{goal.label}" for goal in relative])
    axes.invert_yaxis()
    axes.axvline(0, color="0.6", lw=0.8)
    axes.set_xlabel("change against the base, % (one dot per seed; red: the goal)")
    axes.grid(alpha=0.25)
    figure.savefig(file, dpi=130)


def samples(folder: Path, name: str, count: int = 8) -> str:
    """What base and first seed wrote to the same held-out prompts: half the worst, half any."""
    models = {"before": own_samples(folder / "base"), "after": own_samples(folder / name)}
    order = most_toxic_first(models["before"])
    rest = np.random.default_rng(0).choice(order[count:], count // 2, replace=False)
    return samples_markdown(models, [*order[: count // 2], *rest.tolist()])


def origin(facts: Mapping[str, float]) -> str:
    """Which state of which runs a seed's result is, with its minutes and KL, in words."""
    fraction = facts["chosen_share"]
    way = "" if fraction == 1 else f"{fraction:.0%} of the way to "
    where = f"iteration {facts['chosen_iteration']} of {facts['iterations']}"
    if facts["members"] > 1:
        of = f"{facts['averaged']:.0f} of {facts['members']:.0f} runs"
        where = f"the mean of {of}" if facts["chosen_iteration"] else "the start"
    return f"{way}{where}, {facts['seconds'] / 60:.1f} min, KL {facts['kl']:.2f}"


def write_report(folder: Path, goals: Sequence[Goal], sizes: dict[str, int]) -> None:
    """Write results.json, table.md, picture.png and samples.md of a task, and print the table.

    Args:
        folder: of the results.
        goals: what they are held to.
        sizes: as `store.collect` wants them; every other size stands in the recipes.
    """
    runs = collect(folder, measures_of(goals), sizes)
    names = [name for name in runs if name.startswith("seed")]
    if not names or "base" not in runs:
        print(f"{folder.name}: nothing finished yet")
        return
    base, seeds = runs["base"].sets, {name: runs[name].sets for name in names}
    text = markdown(base, seeds, goals)
    origins = [f"{name}: {origin(runs[name].facts)}" for name in names]
    text += "\n" + "; ".join(origins) + ".\n"
    (folder / "table.md").write_text(text, encoding="utf-8")
    if (folder / "base" / "evaluate").is_dir() and (folder / names[0] / "evaluate").is_dir():
        (folder / "samples.md").write_text(samples(folder, names[0]), encoding="utf-8")
    picture(base, seeds, goals, folder / "picture.png")
    print(text)
