"""What a report says of its scorers: whether the reward is being fooled, and who learned what."""

from collections.abc import Mapping
from typing import Any


def scorer_sentences(summary: Mapping[str, Any]) -> list[str]:
    """The warning, where there is one, and what reward and judge have in common.

    Args:
        summary: the `summary.json` dict of any stage.

    Returns:
        Plain sentences; none in a summary of an earlier version.
    """
    entry = summary.get("scorer_agreement") or {}
    models = [(f"{one['model']}: ", one) for one in entry.get("models", ())]
    warnings = [
        f"{name}{one['warning']}" for name, one in [("", entry), *models] if one.get("warning")
    ]
    training = entry.get("training_data") or {}
    return warnings + ([training["sentence"]] if "sentence" in training else [])
