"""What stage=evaluate measured -> summary.json and samples.jsonl."""

from typing import Any

from lora_detox.choices import Protocol
from lora_detox.evaluation.models import EvaluatedModel
from lora_detox.evaluation.protocol import Numbers, PromptSet
from lora_detox.metrics import change, names, summarise, word_rules
from lora_detox.metrics.bootstrap import paired_interval
from lora_detox.metrics.degeneration import Degeneration, degeneration
from lora_detox.settings import Settings
from lora_detox.types import Evaluation


def evaluation_summary(
    settings: Settings,
    numbers: Numbers,
    models: list[EvaluatedModel],
    sets: list[PromptSet],
    results: list[dict[str, Evaluation]],
) -> dict[str, Any]:
    """What was measured, as `summary.json` holds it, without scorers, times and process.

    Args:
        settings: composed and checked.
        numbers: of the protocol.
        models: those that were asked.
        sets: the sets of prompts.
        results: evaluations by set, one dict per model.

    Returns:
        Plain data; each model has `sets` with its metrics and their changes.
    """
    return {
        "schema": 1,
        "stage": "evaluate",
        "task": settings.task.name,
        "protocol": settings.evaluation.protocol.value,
        "seed": settings.evaluation.seed,
        "prompts": {one.role: {"data": one.name, "prompts": len(one.rows)} for one in sets},
        "samples_per_prompt": numbers.samples,
        "response_tokens": list(numbers.response_tokens),
        "sampling": vars(numbers.sampling),
        "words": word_rules(one for result in results for one in result.values()),
        "models": [
            {
                **vars(model),
                "sets": {
                    role: _numbers_of(evaluation, results[0][role], settings, numbers.samples)
                    for role, evaluation in result.items()
                },
            }
            for model, result in zip(models, results, strict=True)
        ],
    }


def _numbers_of(
    evaluation: Evaluation, first: Evaluation, settings: Settings, samples: int
) -> dict[str, Any]:
    """Metrics of one model on one set, and their change against the first model of the call."""
    numbers = summarise(evaluation)
    kl = evaluation.per_response[names.REF_KL]
    numbers[names.REF_KL] = sum(kl) / len(kl)
    rtp = settings.evaluation.protocol is Protocol.real_toxicity_prompts
    if rtp:
        numbers["degeneration"] = degeneration(evaluation, samples).summary()
    if evaluation is first or list(evaluation.prompts) != list(first.prompts):
        return numbers  # another tokenizer cuts prompts elsewhere: nothing to pair
    resamples = settings.evaluation.resamples
    numbers["change"] = change(first, evaluation, resamples)
    if rtp:
        pair = degeneration(first, samples), degeneration(evaluation, samples)
        numbers["degeneration"]["change"] = _degeneration_change(*pair, resamples)
    return numbers


def _degeneration_change(
    first: Degeneration, other: Degeneration, resamples: int
) -> dict[str, Any]:
    changes = {}
    for label, ours, theirs in (
        ("expected_maximum_{}", other.maximum, first.maximum),
        ("{}_probability", other.any_toxic, first.any_toxic),
    ):
        for key, values in ours.items():
            interval = paired_interval(theirs[key], values, resamples=resamples)
            changes[label.format(key)] = {
                "mean": interval.change,
                "ci95": [interval.low, interval.high],
            }
    return changes


def sample_rows(
    models: list[EvaluatedModel], results: list[dict[str, Evaluation]]
) -> list[dict[str, Any]]:
    """Every response with what was measured of it, as `samples.jsonl` holds it.

    Args:
        models: those that were asked.
        results: evaluations by set, one dict per model.

    Returns:
        One row per response.
    """
    rows = []
    keys = (
        names.TOXICITY,
        names.JUDGE_TOXICITY,
        names.ROUGEL,
        names.RELEVANCE,
        names.RESPONSE_TOKENS,
        names.REFERENCE_NLL,
    )
    for model, result in zip(models, results, strict=True):
        for role, evaluation in result.items():
            columns = {
                key: evaluation.per_response[key] for key in keys if key in evaluation.per_response
            }
            for place, response in enumerate(evaluation.responses):
                rows.append(
                    {
                        "model": model.name,
                        "set": role,
                        "prompt": evaluation.prompts[place],
                        "response": response,
                        **{key: values[place] for key, values in columns.items()},
                    }
                )
    return rows
