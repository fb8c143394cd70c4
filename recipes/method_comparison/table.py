"""JSON results of the comparison -> one Markdown table and one picture, with intervals."""

import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from recipes.lab.judged import Change, Judged, change_of
from recipes.lab.store import Result, collect
from recipes.lab.tables import markdown_table, most_toxic_first, own_samples, samples_markdown

SETS = {"in_distribution": "RTP", "toxic": "jigsaw", "benign": "benign"}
LEAST_LENGTH = 0.9
MEASURES = {
    "in_distribution": ("judge", "perplexity", "distinct_2", "tokens"),
    "toxic": ("judge",),
    "benign": ("judge",),
}
Seeds = list[Result]


def rtp_change(seeds: Seeds, base: dict[str, Judged], measure: str) -> Change:
    """Of a measure on RealToxicityPrompts, over seeds and prompts."""
    of_set = [one.sets["in_distribution"] for one in seeds]
    return change_of(of_set, base["in_distribution"], measure)


def by_method(runs: dict[str, Result], names: list[str]) -> dict[str, Seeds]:
    """Finished runs by method, in the order of `names`."""
    seeds = {
        name: [run for key, run in runs.items() if key.startswith(f"{name}/seed")] for name in names
    }
    return {name: group for name, group in seeds.items() if group}


def markdown(methods: dict[str, Seeds], base: dict[str, Judged]) -> str:
    """The table."""
    heads = ["method", "seeds", *(f"judge toxicity, {label}" for label in SETS.values())]
    heads += ["perplexity, RTP", "distinct-2, RTP", "tokens, RTP", "KL", "training s"]
    rows = []
    start = base["in_distribution"]
    levels = [f"{base[role].level('judge'):.3f}" for role in SETS]
    rows.append(
        ["base", "", *levels, f"{start.level('perplexity'):.0f}", f"{start.distinct_2:.3f}",
         f"{start.level('tokens'):.1f}", "0", ""]
    )  # fmt: skip
    for name, seeds in methods.items():
        toxicity = [
            str(change_of([one.sets[role] for one in seeds], base[role], "judge")) for role in SETS
        ]
        rows.append(
            [
                name,
                str(len(seeds)),
                *toxicity,
                str(rtp_change(seeds, base, "perplexity")),
                f"{100 * rtp_change(seeds, base, 'distinct_2').mean:+.1f} %",
                str(rtp_change(seeds, base, "tokens")),
                f"{np.mean([one.facts['kl'] for one in seeds]):.2f}",
                f"{np.mean([one.facts['seconds'] for one in seeds]):.0f}",
            ]
        )
    return markdown_table(heads, rows) + "\n"


def beaten(methods: dict[str, Seeds], base: dict[str, Judged]) -> str:
    """Who is behind another method on both axes of the picture, in words.

    One method beats another where its whole interval lies below the other's mean in judge toxicity
    and in perplexity.
    """
    planes = {
        name: [rtp_change(seeds, base, measure) for measure in ("judge", "perplexity")]
        for name, seeds in methods.items()
    }
    behind = {
        name: [
            other
            for other, theirs in planes.items()
            if all(it.high < me.mean for it, me in zip(theirs, mine, strict=True))
        ]
        for name, mine in planes.items()
    }
    by = [f"{name} by {', '.join(others)}" for name, others in behind.items() if others]
    free = [name for name, others in behind.items() if not others]
    return (
        f"Beaten on both axes (RTP) beyond the other's interval: {'; '.join(by) or 'none'}.\n"
        f"Not beaten: {', '.join(free)}.\n"
    )


def picture(methods: dict[str, Seeds], base: dict[str, Judged], file: Path) -> None:
    """Change of judge toxicity against change of perplexity on RTP; down and left is better.

    Hollow marks are methods whose responses are shorter than `LEAST_LENGTH` of the base's: text
    that is not written is neither toxic nor perplexing.
    """
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    markers = "osD^v<>Ph*X8p"
    for place, (name, seeds) in enumerate(methods.items()):
        gain, cost_of = (rtp_change(seeds, base, one) for one in ("judge", "perplexity"))
        short = rtp_change(seeds, base, "tokens").mean < LEAST_LENGTH - 1
        x, y = 100 * cost_of.mean, 100 * gain.mean
        axes.errorbar(
            x,
            y,
            xerr=[[max(0.0, x - 100 * cost_of.low)], [max(0.0, 100 * cost_of.high - x)]],
            yerr=[[max(0.0, y - 100 * gain.low)], [max(0.0, 100 * gain.high - y)]],
            fmt=markers[place % len(markers)],
            color=f"C{place % 10}",
            mfc="white" if short else f"C{place % 10}",
            elinewidth=0.8,
            label=f"{name} ({len(seeds)})",
        )
    axes.plot(0, 0, "k+", ms=12, label="base")
    axes.axvline(5, color="0.6", lw=0.8, ls="--")
    axes.annotate("+5 %", (5, 2), color="0.4", fontsize=8)
    axes.set_xlabel("perplexity under the base, change in % (less is better)")
    axes.set_ylabel("judge toxicity, change in % (less is better)")
    title = (
        "RealToxicityPrompts above 0.3, held out; 95 % over prompts and seeds\n"
        f"hollow: responses shorter than {LEAST_LENGTH:.0%} of the base's"
    )
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.savefig(file, dpi=130)


def samples(out: Path, names: list[str], count: int = 6) -> str:
    """What base and methods (first seed) wrote to the same held-out prompts, as Markdown.

    Half of the prompts are those whose response by the base is most toxic to the judge, the others
    stand in the middle of that order.
    """
    folders = {"base": out / "base"}
    for name in names:
        files = sorted(out.glob(f"{name}/seed*/evaluate/samples.jsonl"))
        folders |= {name: files[0].parent.parent} if files else {}
    models = {name: own_samples(folder) for name, folder in folders.items()}
    order = most_toxic_first(models["base"])
    middle = len(order) // 2
    places = order[: count // 2] + order[middle : middle + count - count // 2]
    return samples_markdown(models, places)


def failures(out: Path) -> list[str]:
    """Runs that failed, with the last line of their log."""
    return [
        f"- {path.parent.relative_to(out)}: {json.loads(path.read_text())['message']}"
        for path in sorted(out.glob("*/seed*/failed.json"))
    ]


def write_report(out: Path, names: list[str], sizes: dict[str, int]) -> None:
    """Write results.json, table.md, samples.md and picture.png, and print the table.

    Args:
        out: folder of the results.
        names: of the methods, in the table's order.
        sizes: of the comparison, as `store.collect` wants them.
    """
    runs = collect(out, MEASURES, sizes)
    if "base" not in runs:
        print("no base yet: nothing to compare with")
        return
    base, methods = runs["base"].sets, by_method(runs, names)
    text = markdown(methods, base)
    if methods:
        text += "\n" + beaten(methods, base)
    if failed := failures(out):
        text += "\nFailed:\n\n" + "\n".join(failed) + "\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    if methods:
        picture(methods, base, out / "picture.png")
    if (out / "base" / "evaluate").is_dir():
        (out / "samples.md").write_text(samples(out, names), encoding="utf-8")
    print(text)
