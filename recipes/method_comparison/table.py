"""JSON results of the comparison -> one Markdown table and one picture, with intervals.

Intervals are 95 % by a two-level bootstrap of the difference to the base: seeds are drawn, then
prompts, which are the same for every seed and for the base. With three seeds the upper level is
coarse. Distinct-2 has no such interval (drawing prompts twice makes n-grams look repeated): its
column is the mean over seeds.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

SETS = {"in_distribution": "RTP", "toxic": "jigsaw", "benign": "benign"}
RESAMPLES = 2000
LEAST_LENGTH = 0.9
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one model said to one set: one entry per prompt, in their order."""

    judge: Floats
    nll: Floats
    tokens: Floats
    distinct_2: float


@dataclass(frozen=True, kw_only=True)
class Change:
    """A relative change against the base and where it probably lies; 0.1 is +10 %."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """In percent, as the table shows it."""
        return f"{100 * self.mean:+.0f} % [{100 * self.low:+.0f}, {100 * self.high:+.0f}]"


def read(folder: Path) -> dict[str, Judged]:
    """What `evaluate/` of a run holds, by set."""
    (model,) = json.loads((folder / "evaluate" / "summary.json").read_text())["models"]
    lines = (folder / "evaluate" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    found = {}
    for role, numbers in model["sets"].items():
        of_set = [row for row in rows if row["set"] == role]
        columns = {
            key: np.array([row[name] for row in of_set], dtype=float)
            for key, name in (
                ("judge", "judge_toxicity"),
                ("nll", "reference_nll"),
                ("tokens", "response_tokens"),
            )
        }
        found[role] = Judged(distinct_2=numbers["distinct_2"], **columns)
    return found


def mean_ratio(tops: Floats, bottoms: Floats) -> Floats:
    """Sum over prompts of one by the sum of the other, by draw and seed."""
    return np.asarray(tops.sum(axis=-1) / bottoms.sum(axis=-1))


def interval(seeds: list[Judged], base: Judged, metric: str) -> Change:
    """Relative change of judge toxicity, perplexity or length, over seeds and prompts.

    Args:
        seeds: one run per seed, on the same prompts.
        base: the same prompts answered by the base.
        metric: `judge`, `perplexity` or `tokens`.

    Returns:
        The change and its 95 % interval.
    """

    def level(one: Judged, rows: Any) -> Any:
        if metric == "perplexity":
            return np.exp(mean_ratio(one.nll[rows], one.tokens[rows]))
        return getattr(one, metric)[rows].mean(axis=-1)

    everything = np.arange(len(base.judge))
    change = np.mean([level(one, everything) for one in seeds]) / level(base, everything) - 1
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(everything), (RESAMPLES, len(everything)))
    drawn = np.stack([level(one, rows) for one in seeds])  # [seeds, draws]
    which = rng.integers(0, len(seeds), (len(seeds), RESAMPLES))
    after = np.take_along_axis(drawn, which, axis=0).mean(axis=0)
    low, high = np.quantile(after / level(base, rows) - 1, [0.025, 0.975])
    return Change(mean=float(change), low=float(low), high=float(high))


def results(out: Path, names: list[str]) -> dict[str, list[dict[str, Judged]]]:
    """Finished runs by method, in the order of `names`."""
    found = {}
    for name in names:
        files = sorted(out.glob(f"{name}/seed*/evaluate/summary.json"))
        if files:
            found[name] = [read(file.parent.parent) for file in files]
    return found


def cost(out: Path, name: str) -> tuple[str, str]:
    """KL to the start on RTP (nats) and seconds of training, means over seeds."""
    kls, seconds = [], []
    for folder in out.glob(f"{name}/seed*"):
        evaluated, trained = folder / "evaluate/summary.json", folder / "train/summary.json"
        if evaluated.is_file() and trained.is_file():
            (model,) = json.loads(evaluated.read_text())["models"]
            kls.append(model["sets"]["in_distribution"]["ref_kl"])
            seconds.append(json.loads(trained.read_text())["seconds"]["total"])
    return f"{np.mean(kls):.2f}", f"{np.mean(seconds):.0f}"


def markdown(out: Path, found: dict[str, list[dict[str, Judged]]], base: dict[str, Judged]) -> str:
    """The table."""
    heads = ["method", "seeds", *(f"judge toxicity, {label}" for label in SETS.values())]
    heads += ["perplexity, RTP", "distinct-2, RTP", "tokens, RTP", "KL", "training s"]
    rows = []
    start = base["in_distribution"]
    levels = [f"{base[role].judge.mean():.3f}" for role in SETS]
    perplexity = float(np.exp(start.nll.sum() / start.tokens.sum()))
    rows.append(
        ["base", "", *levels, f"{perplexity:.0f}", f"{start.distinct_2:.3f}",
         f"{start.tokens.mean():.1f}", "0", ""]
    )  # fmt: skip
    for name, seeds in found.items():
        toxicity = [
            str(interval([one[role] for one in seeds], base[role], "judge")) for role in SETS
        ]
        rtp = [one["in_distribution"] for one in seeds]
        distinct = np.mean([one.distinct_2 for one in rtp]) / start.distinct_2 - 1
        rows.append(
            [
                name,
                str(len(seeds)),
                *toxicity,
                str(interval(rtp, start, "perplexity")),
                f"{100 * distinct:+.1f} %",
                str(interval(rtp, start, "tokens")),
                *cost(out, name),
            ]
        )
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)]) + "\n"


def beaten(found: dict[str, list[dict[str, Judged]]], base: dict[str, Judged]) -> str:
    """Who is behind another method on both axes of the picture, in words.

    One method beats another where its whole interval lies below the other's mean in judge toxicity
    and in perplexity.
    """
    start, planes = base["in_distribution"], {}
    for name, seeds in found.items():
        rtp = [one["in_distribution"] for one in seeds]
        planes[name] = [interval(rtp, start, metric) for metric in ("judge", "perplexity")]
    behind = {
        name: [
            other
            for other, theirs in planes.items()
            if all(it.high < me.mean for it, me in zip(theirs, mine, strict=True))
        ]
        for name, mine in planes.items()
    }
    said = [f"{name} by {', '.join(others)}" for name, others in behind.items() if others]
    free = [name for name, others in behind.items() if not others]
    return (
        f"Beaten on both axes (RTP) beyond the other's interval: {'; '.join(said) or 'none'}.\n"
        f"Not beaten: {', '.join(free)}.\n"
    )


def picture(found: dict[str, list[dict[str, Judged]]], base: dict[str, Judged], file: Path) -> None:
    """Change of judge toxicity against change of perplexity on RTP; down and left is better.

    Hollow marks are methods whose responses are shorter than `LEAST_LENGTH` of the base's: text
    that is not written is neither toxic nor perplexing.
    """
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    start = base["in_distribution"]
    markers = "osD^v<>Ph*X8p"
    for place, (name, seeds) in enumerate(found.items()):
        rtp = [one["in_distribution"] for one in seeds]
        cost_of, gain = interval(rtp, start, "perplexity"), interval(rtp, start, "judge")
        short = interval(rtp, start, "tokens").mean < LEAST_LENGTH - 1
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

    Half of the prompts are those whose answer by the base the judge finds most toxic, the others
    stand in the middle of its order.
    """
    folders = {"base": out / "base"}
    for name in names:
        files = sorted(out.glob(f"{name}/seed*/evaluate/samples.jsonl"))
        folders |= {name: files[0].parent.parent} if files else {}
    said = {}
    for name, folder in folders.items():
        lines = (folder / "evaluate" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        said[name] = [row for row in rows if row["set"] == "in_distribution"]
    order = sorted(range(len(said["base"])), key=lambda i: -said["base"][i]["judge_toxicity"])
    middle = len(order) // 2
    chosen = order[: count // 2] + order[middle : middle + count - count // 2]
    parts = ["This is what the models wrote. Some of it is offensive.\n"]
    for place in chosen:
        parts.append(f"**{' '.join(said['base'][place]['prompt'].split())}**\n")
        for name, rows in said.items():
            text = " ".join(rows[place]["response"].split()) or "(empty)"
            parts.append(f"- {name} ({rows[place]['judge_toxicity']:.2f}): {text}")
        parts.append("")
    return "\n".join(parts)


def failures(out: Path) -> list[str]:
    """Runs that failed, with what they said last."""
    return [
        f"- {path.parent.relative_to(out)}: {json.loads(path.read_text())['message']}"
        for path in sorted(out.glob("*/seed*/failed.json"))
    ]


def write_report(out: Path, names: list[str]) -> None:
    """Write table.md, samples.md and picture.png beside the results, and print the table."""
    if not (out / "base" / "evaluate" / "summary.json").is_file():
        print("no base yet: nothing to compare with")
        return
    base, found = read(out / "base"), results(out, names)
    text = markdown(out, found, base)
    if found:
        text += "\n" + beaten(found, base)
    if failed := failures(out):
        text += "\nFailed:\n\n" + "\n".join(failed) + "\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    if found:
        picture(found, base, out / "picture.png")
        (out / "samples.md").write_text(samples(out, names), encoding="utf-8")
    print(text)
