"""One table from the summary.json files of a sweep: `python -m recipes.lab.sweep_table DIR`."""

import json
import sys
from pathlib import Path
from typing import Any

from recipes.lab.tables import markdown_table

COLUMNS = (
    ("judge toxicity", "judge_toxicity", 3),
    ("ROUGE-L", "rougeL", 3),
    ("perplexity", "perplexity", 2),
    ("distinct-2", "distinct_2", 3),
    ("tokens", "response_tokens", 1),
)


def mean(value: Any) -> float:
    """The mean of a spread metric, or the number itself."""
    return float(value["mean"] if isinstance(value, dict) else value)


def row(summary: dict[str, Any]) -> list[str]:
    """Cells of one run."""
    before, after, change = summary["before"], summary["after"], summary["change"]
    quantization = summary.get("quantization", "none")
    cells = [summary["task"], quantization, str(summary["seed"])]
    for _, key, digits in COLUMNS:
        if key in after:
            cells.append(f"{mean(before[key]):.{digits}f} -> {mean(after[key]):.{digits}f}")
        else:
            cells.append("")
    moved = change["judge_toxicity"]
    low, high = moved["ci95"]
    cells.append(f"{moved['mean']:.3f} ({low:.3f} to {high:.3f})")
    cells.append(f"{100 * moved['mean'] / mean(before['judge_toxicity']):.0f} %")
    cells.append(f"{summary['ref_kl']:.2f}")
    cells.append("yes" if summary["parameters"]["base_unchanged"] else "NO")
    cells.append(f"{summary['seconds']['total']:.0f}")
    return cells


def main() -> None:
    """Print the table."""
    files = sorted(Path(sys.argv[1]).glob("*/summary.json"))
    rows = [row(json.loads(file.read_text(encoding="utf-8"))) for file in files]
    rows.sort(key=lambda cells: (cells[0], cells[1], int(cells[2])))
    head = ["task", "weights", "seed", *(name for name, _, _ in COLUMNS)]
    head += ["judge change (95 % interval)", "relative", "KL", "base unchanged", "seconds"]
    print(markdown_table(head, rows))


if __name__ == "__main__":
    main()
