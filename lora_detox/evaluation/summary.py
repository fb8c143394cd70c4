"""What stage=evaluate measured -> summary.json and samples.jsonl."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lora_detox.builders.policy import trusted_code
from lora_detox.choices import DecodingKind, Protocol
from lora_detox.evaluation.frontier import chosen_strength, excess_of, level_intervals
from lora_detox.evaluation.models import EvaluatedModel
from lora_detox.evaluation.protocol import Numbers, PromptSet
from lora_detox.metrics import names
from lora_detox.metrics.bootstrap import paired_interval
from lora_detox.metrics.degeneration import Degeneration, degeneration
from lora_detox.metrics.summary import change, summarise, word_rules
from lora_detox.settings import Settings
from lora_detox.types import Evaluation


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model said.

    Attributes:
        model: who was asked.
        strength: of its adapter; None where no strengths are set, or it has no adapter.
        sets: evaluations by set.
        decoding: how it wrote, as `summary.json` says it.
        audit: what it answered to audit prompts; None where it was not audited at this strength.
    """

    model: EvaluatedModel
    strength: float | None
    sets: dict[str, Evaluation]
    decoding: dict[str, Any]
    audit: Evaluation | None = None


def evaluation_summary(
    settings: Settings, numbers: Numbers, sets: list[PromptSet], results: Sequence[Answers]
) -> dict[str, Any]:
    """What was measured, as `summary.json` holds it, without scorers, times and process.

    Args:
        settings: composed and checked.
        numbers: of the protocol.
        sets: the sets of prompts.
        results: of each model in the order of the call, at one strength after the other.

    Returns:
        Plain data; each model has `sets` with its metrics and their changes, and with
        `evaluation.strengths` the same for each of them in `frontier` (docs/decisions/0016).
    """
    asked = {one.model.path for one in results}
    return {
        "schema": 1,
        "stage": "evaluate",
        "task": settings.task.name,
        **(trusted_code(settings.policy) if settings.policy.path in asked else {}),
        "protocol": settings.evaluation.protocol.value,
        "seed": settings.evaluation.seed,
        "prompts": {one.role: {"data": one.name, "prompts": len(one.rows)} for one in sets},
        "samples_per_prompt": numbers.samples,
        "response_tokens": list(numbers.response_tokens),
        "sampling": vars(numbers.sampling),
        "words": word_rules(one for result in results for one in result.sets.values()),
        "models": [
            _model_entry(
                [one for one in results if one.model is model],
                results[0],
                settings,
                numbers.samples,
            )
            for model in {id(one.model): one.model for one in results}.values()
        ],
    }


def _model_entry(
    points: list[Answers], first: Answers, settings: Settings, samples: int
) -> dict[str, Any]:
    """One model's part, its changes measured against strength 0 of it, or else the first row."""
    base = next((one for one in points if one.strength == 0), first)
    measured = [
        {
            role: _numbers_of(one, base.sets[role], settings, samples) | _cost(one, point.model)
            for role, one in point.sets.items()
        }
        for point in points
    ]
    model = points[0].model
    facts = {**vars(model), "decoding": points[0].decoding}
    strengths = [point.strength for point in points if point.strength is not None]
    if not strengths:
        return {**facts, "sets": measured[0]}
    shown = strengths.index(shown_strength(strengths))
    frontier: list[dict[str, Any]] = [
        {"strength": strength, "sets": one}
        for strength, one in zip(strengths, measured, strict=True)
    ]
    for point in frontier:
        point["excess"] = excess_of(point, frontier, settings)
    return {
        **facts,
        "strength": strengths[shown],
        "sets": measured[shown],
        "frontier": frontier,
        "choice": chosen_strength(model, frontier, settings),
    }


def shown_strength(strengths: Sequence[float]) -> float:
    """The strength whose numbers stand for an adapter: 1, or the farthest from 0."""
    return 1.0 if 1.0 in strengths else max(strengths, key=abs)


def _numbers_of(
    evaluation: Evaluation, first: Evaluation, settings: Settings, samples: int
) -> dict[str, Any]:
    """Metrics of one model on one set, and their change against another evaluation of it."""
    numbers = summarise(evaluation)
    kl = evaluation.per_response[names.REF_KL]
    numbers[names.REF_KL] = sum(kl) / len(kl)
    resamples = settings.evaluation.resamples
    if settings.evaluation.strengths:
        numbers["ci95"] = level_intervals(evaluation, resamples)
    rtp = settings.evaluation.protocol is Protocol.real_toxicity_prompts
    if rtp:
        numbers["degeneration"] = degeneration(evaluation, samples).summary()
    if evaluation is first or list(evaluation.prompts) != list(first.prompts):
        return numbers  # another tokenizer cuts prompts elsewhere: nothing to pair
    numbers["change"] = change(first, evaluation, resamples)
    if rtp:
        pair = degeneration(first, samples), degeneration(evaluation, samples)
        numbers["degeneration"]["change"] = _degeneration_change(*pair, resamples)
    return numbers


def _cost(evaluation: Evaluation, model: EvaluatedModel) -> dict[str, Any]:
    """Tokens and time of the responses; the KL is not known where more than weights decided."""
    seconds = evaluation.cost[names.GENERATION_SECONDS]
    cost: dict[str, Any] = {
        **evaluation.cost,
        names.SECONDS_PER_RESPONSE: seconds / len(evaluation.responses),
    }
    plain = model.decoding.name is DecodingKind.plain
    return cost if plain else {**cost, names.REF_KL: None}


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


def sample_rows(results: Sequence[Answers], *, audit: bool = False) -> list[dict[str, Any]]:
    """Every response with what was measured of it, as `samples.jsonl` holds it.

    Args:
        results: of each model, at one strength after the other.
        audit: the responses to audit prompts in the place of those to the sets.

    Returns:
        One row per response; with `strength` where strengths are set, and with `columns` where the
        data has further ones.
    """
    rows = []
    keys = (
        names.TOXICITY,
        names.JUDGE_TOXICITY,
        names.ROUGEL,
        names.RELEVANCE,
        names.SIMILARITY,
        names.FLUENCY,
        names.JOINT,
        names.JUDGE_JOINT,
        names.RESPONSE_TOKENS,
        names.REFERENCE_NLL,
    )
    at_strengths = any(one.strength is not None for one in results)
    for one in results:
        asked: dict[str, Any] = {"model": one.model.name}
        if at_strengths:
            asked["strength"] = one.strength
        audits = {} if one.audit is None else {"audit": one.audit}
        for role, evaluation in (audits if audit else one.sets).items():
            columns = {
                key: evaluation.per_response[key] for key in keys if key in evaluation.per_response
            }
            carried = evaluation.columns if any(evaluation.columns) else None
            for place, response in enumerate(evaluation.responses):
                rows.append(
                    {
                        **asked,
                        "set": role,
                        "prompt": evaluation.prompts[place],
                        **({} if carried is None else {"columns": carried[place]}),
                        "response": response,
                        **{key: values[place] for key, values in columns.items()},
                    }
                )
    return rows
