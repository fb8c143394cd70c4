"""Figures of an adapter in the hub's own format, `.eval_results/*.yaml`.

The hub shows them on the model's page and, where the data set is registered as a benchmark, on its
leaderboard (https://huggingface.co/docs/hub/eval-results). The model-index in README.md has the
same figures for programs that read that.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from lora_detox.report.card import IN_INDEX, SCORER_OF, CardFacts
from lora_detox.report.wording import MetricWording, mean_of

EVAL_RESULTS = ".eval_results/lora_detox.yaml"
"""Where the hub looks for them."""


def eval_results_yaml(
    facts: CardFacts,
    summary: Mapping[str, Any],
    metrics: Mapping[str, MetricWording],
    repo_id: str | None,
) -> str | None:
    """Figures after training; those before it belong to the base.

    Args:
        facts: what is exported.
        summary: the `summary.json` dict of the run.
        metrics: how each metric is shown.
        repo_id: where the card will be; None names no source.

    Returns:
        The text of the file; None where the data set is not on the hub, or where the figures are of
        another strength than the weights.
    """
    if not (facts.measured and facts.data_on_hub):
        return None
    after, scorers = summary.get("after") or {}, summary.get("scorers") or {}
    count = (after.get("toxicity") or {}).get("n")
    entries: list[dict[str, Any]] = []
    for key in IN_INDEX:
        value = mean_of(after.get(key))
        if value is None or key not in metrics:
            continue
        scorer = scorers.get(SCORER_OF.get(key, ""))
        notes = [metrics[key].label + (f" by {scorer}" if scorer else "")]
        notes += [f"{count} responses to held-out prompts"] if count else []
        notes += [f"strength {facts.strength:g}"] if facts.strength != 1 else []
        entry = {
            "dataset": {"id": facts.data, "task_id": key},
            "value": round(value, 6),
            "notes": ", ".join(notes),
        }
        if repo_id is not None:
            url = f"https://huggingface.co/{repo_id}"
            entry["source"] = {"url": url, "name": "Model card"}
        entries.append(entry)
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True) if entries else None
