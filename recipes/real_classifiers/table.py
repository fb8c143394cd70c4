"""Figures of the two classifiers beside their goals."""

import json
from typing import Any

from recipes.lab.real import RealModels
from recipes.lab.tables import markdown_table

GOALS = {
    ("test", "auc"): 0.977,
    ("test", "f1"): 0.89,
    ("jigsaw", "auc"): 0.94,
    ("stormfront", "auc"): 0.87,
    ("tweets", "auc"): 0.86,
}
"""What three epochs on a GPU gave; reached within TOLERANCE."""
TOLERANCE = 0.01
MOST_WIKITEXT = 0.03
"""Mean toxicity of WikiText windows stays below."""


def write_report(models: RealModels) -> None:
    """Write table.md beside the classifiers, and print it."""
    summaries = {
        half: json.loads(file.read_text(encoding="utf-8"))
        for half in ("reward", "judge")
        if (file := models.classifier(half).parent / "summary.json").is_file()
    }
    if not summaries:
        print("nothing finished yet")
        return
    text = _figures(summaries) + "\n\n" + _identities(summaries) + "\n\n" + _cost(summaries) + "\n"
    (models.home / "classifiers" / "table.md").write_text(text, encoding="utf-8")
    print(text)


def _figures(summaries: dict[str, Any]) -> str:
    rows = []
    for (data, measure), goal in GOALS.items():
        values = [one["after"][data][measure] for one in summaries.values()]
        reached = all(value >= goal - TOLERANCE for value in values)
        cells = [f"{value:.3f}" for value in values]
        rows.append([data, measure, *cells, f"{goal} - {TOLERANCE}", "yes" if reached else "no"])
    values = [one["after"]["wikitext"]["civil_toxicity"] for one in summaries.values()]
    reached = "yes" if all(value < MOST_WIKITEXT for value in values) else "no"
    cells = [f"{value:.4f}" for value in values]
    rows.append(["wikitext", "mean toxicity", *cells, f"below {MOST_WIKITEXT}", reached])
    return markdown_table(["set", "measure", *summaries, "goal", "reached"], rows)


def _identities(summaries: dict[str, Any]) -> str:
    """Whom the classifiers wrong: false-positive rates by identity."""
    rows = []
    for half, one in summaries.items():
        for data, figures in one["after"].items():
            if gap := figures.get("identity_gap"):
                rates = [_rates(gap[end]) for end in ("highest", "lowest")]
                rows.append([half, data, f"{gap['overall']:.3f}", f"{gap['gap']:.3f}", *rates])
    heads = ["classifier", "set", "false positives", "gap by identity", "highest", "lowest"]
    return markdown_table(heads, rows)


def _rates(rates: dict[str, float]) -> str:
    return ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items())


def _cost(summaries: dict[str, Any]) -> str:
    minutes = [f"{half} {one['seconds']['total'] / 60:.0f} min" for half, one in summaries.items()]
    return f"One thread each: {', '.join(minutes)}."
