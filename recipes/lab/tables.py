"""Markdown of tables and of samples."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.lab.judged import read_samples

Row = Mapping[str, Any]

LONGEST_PROMPT = 300
"""Characters of a prompt that samples show, from its end."""


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, without a line break at its end."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])


def own_samples(folder: Path) -> list[dict[str, Any]]:
    """Rows of samples.jsonl on the held-out part of the task's own prompts."""
    return [row for row in read_samples(folder) if row["set"] == "in_distribution"]


def most_toxic_first(rows: Sequence[Row]) -> list[int]:
    """Places of responses, in falling order of the judge's toxicity."""
    return sorted(range(len(rows)), key=lambda place: -rows[place]["judge_toxicity"])


def samples_markdown(models: Mapping[str, Sequence[Row]], places: Iterable[int]) -> str:
    """What several models wrote to the same prompts.

    Args:
        models: name -> rows of `own_samples`, in the same order for every model.
        places: of the prompts that are shown.

    Returns:
        One paragraph per prompt.
    """
    first, *_ = models.values()
    parts = ["This is what the models wrote. Some of it is offensive.\n"]
    for place in places:
        parts.append(f"**{' '.join(first[place]['prompt'].split())[-LONGEST_PROMPT:]}**\n")
        for name, rows in models.items():
            text = " ".join(rows[place]["response"].split()) or "(empty)"
            parts.append(f"- {name} ({rows[place]['judge_toxicity']:.2f}): {text}")
        parts.append("")
    return "\n".join(parts)
