"""One row per condition: the base, and how the adapters change it."""

from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

from recipes.lab.judged import Judged, change_of, read
from recipes.lab.tables import markdown_table, most_toxic_first, own_samples, samples_markdown
from recipes.transfer.conditions import Condition

SET = "in_distribution"
CHANGES = ("perplexity", "relevance", "words")
SHOWN = 2
"""Prompts of each condition in the samples: mild ones."""


def read_condition(folder: Path) -> tuple[Judged, dict[str, Judged]] | None:
    """The base and the seeds; None where either is missing."""
    done = [one.parent.parent for one in folder.glob("*/evaluate/summary.json")]
    seeds = {one.name: read(one)[SET] for one in sorted(done) if one.name != "base"}
    if not seeds or folder / "base" not in done:
        return None
    return read(folder / "base")[SET], seeds


def row(condition: Condition, base: Judged, seeds: Mapping[str, Judged]) -> list[str]:
    """Levels of the base and changes, with intervals over seeds and prompts."""
    judged = list(seeds.values())
    cells = [condition.label, str(len(base)), f"{float(base.level('judge')):.3f}"]
    cells.append(str(change_of(judged, base, "judge")))
    toxic = change_of(judged, base, "judged_toxic", level=True)  # few, or none at the start
    before, *after = (100 * share for share in (base.level("judged_toxic"), *astuple(toxic)))
    cells.append(f"{before:.1f} -> {after[0]:.1f} % [{after[1]:.1f}, {after[2]:.1f}]")
    return [*cells, *(str(change_of(judged, base, measure)) for measure in CHANGES)]


def samples(folder: Path) -> str:
    """Mild responses of the base and the first seed."""
    models = {name: own_samples(folder / name) for name in ("base", "seed0")}
    worst = [
        {**first, "judge_toxicity": max(first["judge_toxicity"], second["judge_toxicity"])}
        for first, second in zip(*models.values(), strict=True)
    ]
    mild = [place for place in most_toxic_first(worst) if worst[place]["judge_toxicity"] < 0.2]
    return samples_markdown(models, mild[:SHOWN])


def write_report(out: Path, known: Mapping[str, Condition]) -> None:
    """Write table.md and samples.md, and print the table."""
    rows, parts = [], []
    for name, condition in known.items():
        results = read_condition(out / name)
        if results is not None:
            rows.append(row(condition, *results))
            if (out / name / "seed0" / "evaluate" / "samples.jsonl").is_file():
                parts.append(f"## {condition.label}\n\n{samples(out / name)}")
    if not rows:
        print("nothing finished yet")
        return
    heads = ["condition", "prompts", "judge toxicity before", "change"]
    heads += ["responses above 0.5", "perplexity", "relevance", "words"]
    text = markdown_table(heads, rows) + "\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    (out / "samples.md").write_text("\n".join(parts), encoding="utf-8")
    print(text)
