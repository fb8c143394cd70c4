"""samples.jsonl of a run: the responses before and after, side by side."""

from pathlib import Path
from typing import Any

from lora_detox.report.jsonl import write_rows
from lora_detox.types import Evaluation

_SCORES = (
    "toxicity",
    "judge_toxicity",
    "rougeL",
    "relevance",
    "similarity",
    "fluency",
    "joint",
    "judge_joint",
    "response_tokens",
    "reference_nll",
)
"""Measures of a response that a row has, of those that were made."""


def sample_rows(before: Evaluation, after: Evaluation) -> list[dict[str, Any]]:
    """Put the responses of two evaluations of the same prompts side by side.

    Args:
        before: the policy at the start.
        after: the policy at the end.

    Returns:
        Rows of `prompt`, `references`, `columns` (further ones of the data row, where it has any),
        `before`, `after`, `toxicity_before`, `toxicity_after`, and the same of `judge_toxicity`
        with a judge, of `rougeL` with references, of `relevance` with an encoder, of `similarity`,
        `fluency`, `joint` and `judge_joint` (J) of rewrites, of `response_tokens`, and of
        `reference_nll` (nats per response under the reference) where perplexity was measured.

    Raises:
        ValueError: if the prompts are not the same in the same order.
    """
    if list(before.prompts) != list(after.prompts):
        raise ValueError(
            f"before has {len(before.prompts)} prompts, after {len(after.prompts)}, and they are "
            "not the same in the same order"
        )
    columns: dict[str, list[Any]] = {
        "prompt": before.prompts,
        "references": before.references,
        **({"columns": before.columns} if any(before.columns) else {}),
        "before": before.responses,
        "after": after.responses,
    }
    for key in _SCORES:
        if key in before.per_response and key in after.per_response:
            columns[f"{key}_before"] = before.per_response[key]
            columns[f"{key}_after"] = after.per_response[key]
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def write_samples(path: Path, before: Evaluation, after: Evaluation) -> list[dict[str, Any]]:
    """Write `samples.jsonl` in one step and return its rows (see `sample_rows`)."""
    rows = sample_rows(before, after)
    write_rows(path, rows)
    return rows
