"""What the tables and notes of stage=evaluate say of decodings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_detox.choices import DecodingKind
from lora_detox.settings import DecodingSettings

Facts = Mapping[str, Any]


def decoded_name(name: str, decoding: DecodingSettings) -> str:
    """The name of a model with that of its decoding, as `gptj, best of 4`.

    Args:
        name: of the model.
        decoding: how it writes.

    Returns:
        The name alone for plain decoding.
    """
    words = decoding.size if decoding.words is None else Path(decoding.words).name
    shown = {
        DecodingKind.bad_words: f"bad words ({words})",
        DecodingKind.civil_prefix: "civil prefix",
        DecodingKind.best_of_n: f"best of {decoding.n}",
        DecodingKind.anti_expert: f"anti-expert (alpha {decoding.alpha:g})",
        DecodingKind.direction: f"direction (strength {decoding.strength:g})",
        DecodingKind.projection: f"projection (rank {decoding.rank})",
    }.get(decoding.name)
    return name if shown is None else f"{name}, {shown}"


def is_decoded(model: Facts) -> bool:
    """Whether a model of `summary.json` wrote other than plainly."""
    return bool(model.get("decoding", {}).get("name", "plain") != "plain")


def decoding_notes(models: list[Facts]) -> list[str]:
    """What was done while each model wrote, and what is not measured then.

    Args:
        models: those of `summary.json`.

    Returns:
        A sentence for each decoded model, and one for all of them; none where all wrote plainly.
    """
    decoded = [model for model in models if is_decoded(model)]
    notes = [f"{model['name']}: {_done(model['decoding'])}." for model in decoded]
    if not decoded:
        return []
    return [
        *notes,
        "Perplexity, prompts and scores of a decoded model are those of plain decoding; the KL to "
        "the reference is that of weights alone, and is left out.",
    ]


def _done(facts: Facts) -> str:
    kind = facts["name"]
    texts = facts.get("texts", {})
    learned = f"{texts.get('toxic')} toxic and {texts.get('civil')} civil texts of " + str(
        facts.get("examples")
    )
    if kind == "bad_words":
        origin = facts["words"] or f"those that mark toxic texts most, by {learned}"
        return f"{len(facts['banned_words'])} words were made impossible ({origin})"
    if kind == "civil_prefix":
        return f"the model read one line before each prompt: {facts['line'].rstrip('.')}"
    if kind == "best_of_n":
        return f"of {facts['n']} responses the one with the highest score of the reward was kept"
    if kind == "anti_expert":
        candidates = "" if facts["top_p"] is None else f" among the base's top-p {facts['top_p']:g}"
        return (
            f"logits z + {facts['alpha']:g} (z - z of {facts['adapter']}){candidates}, as in "
            "DExperts"
        )
    if kind == "direction":
        return (
            f"each state behind the last layer was moved by {facts['strength']:g} of the way from "
            f"the toxic to the civil mean, by {learned}"
        )
    return (
        f"{facts['rank']} directions were taken out of the MLP output matrices of layers "
        f"{facts['layers']}, by {learned}"
    )
