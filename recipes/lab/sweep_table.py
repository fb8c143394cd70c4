# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Tables of the runs and exports in a folder: `python -m recipes.lab.sweep_table DIR`."""

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


def export_row(summary: dict[str, Any]) -> list[str]:
    """Cells of one export with `export.merge=true`: how far the logits of the merged model are."""
    merged = summary["merged"]
    return [
        Path(summary["run"]).name,
        f"{summary['logit_difference']:.1g}",
        *(_logits(merged[key]) if key else _logits(merged) for key in ("", "from_quantized")),
    ]


def _logits(change: dict[str, Any]) -> str:
    return f"{change['mean']:.2g}, {change['maximum']:.2g}, {change['same_top']:.1%}"


def tables(folder: Path) -> str:
    """Markdown: one row per run, and one per export where there are any.

    Args:
        folder: whose folders are the runs and exports.

    Returns:
        The tables.
    """
    files = sorted(folder.glob("*/summary.json"))
    summaries = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    exports = [one for one in summaries if one.get("stage") == "export"]
    rows = [row(one) for one in summaries if one not in exports]
    rows.sort(key=lambda cells: (cells[0], cells[1], int(cells[2])))
    head = ["task", "weights", "seed", *(name for name, _, _ in COLUMNS)]
    head += ["judge change (95 % interval)", "relative", "KL", "base unchanged", "seconds"]
    text = markdown_table(head, rows)
    if exports:
        head = ["run", "adapter read back", "merged against base + adapter: mean, most, same token"]
        head.append("merged against the quantized model that was trained")
        text += "\n\n" + markdown_table(head, [export_row(one) for one in exports])
    return text


def main() -> None:
    """Print the tables."""
    print(tables(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
