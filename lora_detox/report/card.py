"""README.md of an exported adapter: metadata that the Hub reads, and text that a person reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from lora_detox.report.contents import findings_of
from lora_detox.report.next_steps import LoadedAs, usage_of
from lora_detox.report.templates import template
from lora_detox.report.wording import MetricWording, mean_of
from lora_detox.text.kinds import ENGLISH, reads_english
from lora_detox.visible import visible

_TASKS = {
    True: ("summarization", "Summarization", "AutoModelForSeq2SeqLM"),
    False: ("text-generation", "Text generation", "AutoModelForCausalLM"),
}
IN_INDEX = ("toxicity", "judge_toxicity", "rouge1", "rouge2", "rougeL", "perplexity", "distinct_2")
"""Metrics that the card's metadata has."""
SCORER_OF = {"toxicity": "reward", "judge_toxicity": "judge"}
"""Roles of the scorers that measure some of them."""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card says besides the figures.

    Attributes:
        name: of the adapter: the repository or the folder.
        base: hub id or folder of the base.
        base_revision: its commit, None where there is none.
        base_on_hub: False where the base is a folder, which only this machine has.
        encoder_decoder: whether the base has an encoder.
        data: hub id or name of the prompts' data set.
        data_on_hub: whether `data` is a hub id.
        license: of the adapter, None states none.
        settings: shown settings, name and value.
        merged: what merging changed in the logits; None where nothing was merged.
        strength: of the adapter, as it is in the weights.
        measured: whether the figures are of this strength; else they are of strength 1.
        serving: programs, whether they serve the adapter (yes, no, unknown), and how or why not.
    """

    name: str
    base: str
    base_revision: str | None
    base_on_hub: bool
    encoder_decoder: bool
    data: str
    data_on_hub: bool
    license: str | None
    settings: Sequence[tuple[str, str]]
    merged: Mapping[str, Any] | None = None
    strength: float = 1.0
    measured: bool = True
    serving: Sequence[tuple[str, str, str]] = ()


def model_card(
    facts: CardFacts, summary: Mapping[str, Any], metrics: Mapping[str, MetricWording]
) -> str:
    """The card of an adapter.

    Args:
        facts: what is exported.
        summary: the `summary.json` dict of the run.
        metrics: how each metric is shown (`metrics.names.METRICS`).

    Returns:
        README.md with YAML metadata in front.
    """
    has_change, findings = bool(summary.get("change")), findings_of(summary, metrics)
    text = template("model_card.md.j2").render(
        facts=facts,
        loading=_loading(facts, summary).lines(),
        headline=findings.headline if has_change else [],
        rows=findings.rows if has_change else [],
        summary=summary,
        english=_is_english(summary),
        word_notes=findings.word_notes,
        further=findings.further,
        scorers=list((summary.get("scorers") or {}).items()),
        count=((summary.get("after") or {}).get("toxicity") or {}).get("n"),
        trainable=(summary.get("parameters") or {}).get("trainable"),
        kl=mean_of(summary.get("ref_kl")),
    )
    return visible(f"---\n{card_data(facts, summary, metrics).to_yaml()}\n---\n{text}")


def _loading(facts: CardFacts, summary: Mapping[str, Any]) -> LoadedAs:
    return LoadedAs(
        auto=_TASKS[facts.encoder_decoder][2],
        base=facts.base,
        adapter=facts.name,
        tokenizer=facts.base,
        revision=facts.base_revision,
        dtype=(summary.get("parameters") or {}).get("base_dtype"),
        quantization=str(summary.get("quantization", "none")),
        usage=usage_of(summary),
    )


def card_data(
    facts: CardFacts, summary: Mapping[str, Any], metrics: Mapping[str, MetricWording]
) -> ModelCardData:
    """The metadata block: base_model, library_name, datasets, tags and a model-index."""
    task = _TASKS[facts.encoder_decoder][0]
    return ModelCardData(
        base_model=facts.base,
        library_name="peft",
        pipeline_tag=task,
        license=facts.license,
        language="en" if _is_english(summary) else None,
        datasets=[facts.data] if facts.data_on_hub else None,
        tags=["lora", "detoxification", "lora_detox", "peft"],
        base_model_relation="adapter",
        model_name=facts.name,
        eval_results=_eval_results(facts, summary, metrics) or None,
    )


def _is_english(summary: Mapping[str, Any]) -> bool:
    """As far as the letters of its texts say; runs without `words` are older."""
    return reads_english((summary.get("words") or {}).get("compared", ENGLISH))


def _eval_results(
    facts: CardFacts, summary: Mapping[str, Any], metrics: Mapping[str, MetricWording]
) -> list[EvalResult]:
    """Each metric twice, before and after, with the scorer that measured it in its name.

    None where the figures are of another strength than the weights.
    """
    if not facts.measured:
        return []
    strength = "" if facts.strength == 1 else f", at strength {facts.strength:g}"
    task, task_name, _ = _TASKS[facts.encoder_decoder]
    scorers = summary.get("scorers") or {}
    results = []
    for key in IN_INDEX:
        for side in ("before", "after"):
            value = mean_of((summary.get(side) or {}).get(key))
            if value is None or key not in metrics:
                continue
            scorer = SCORER_OF.get(key, "")
            by = f" by {scorers[scorer]}" if scorer in scorers else ""
            results.append(
                EvalResult(
                    task_type=task,
                    task_name=task_name,
                    dataset_type=facts.data,
                    dataset_name=f"{facts.data}, held-out prompts",
                    dataset_split="test",
                    metric_type=key,
                    metric_name=f"{metrics[key].label}{by}, {side} training"
                    + (strength if side == "after" else ""),
                    metric_value=round(value, 6),
                )
            )
    return results
