"""Responses and their scores -> one `Evaluation`."""

import math
from collections.abc import Mapping, Sequence

from lora_detox.errors import ScorerError
from lora_detox.metrics import names
from lora_detox.metrics.boilerplate import common_openings, self_bleu
from lora_detox.metrics.diversity import distinct_n, is_empty, repetition, response_words, symbols
from lora_detox.metrics.overlap import rouge_per_response
from lora_detox.metrics.perplexity import reference_perplexity
from lora_detox.types import Evaluation


def measure_responses(
    *,
    prompts: list[str],
    responses: list[str],
    references: list[list[str]],
    toxicity: Sequence[float],
    judge_toxicity: Sequence[float] | None,
    scores: Sequence[float],
    response_tokens: Sequence[int | float],
    reference_nll: Sequence[float] | None,
) -> Evaluation:
    """Assemble every per-response and corpus metric of one policy.

    Args:
        prompts: B prompt texts; k responses to a prompt repeat it k times.
        responses: B response texts.
        references: B lists of references; ROUGE is measured only where there are any.
        toxicity: probability in [0, 1] by the reward's classifier [B].
        judge_toxicity: the same by the held-out judge [B]; None without a judge.
        scores: what the policy is rewarded with [B]; higher is better.
        response_tokens: real tokens of each response [B].
        reference_nll: sum of -ref_logprobs over the real tokens of each response [B], nats; None
            where the reference policy did not score them, then there is no perplexity.

    Returns:
        The evaluation; a metric that does not apply is absent.

    Raises:
        ScorerError: if a toxicity or score is not finite.
        ValueError: if a column does not have B rows.
    """
    columns: dict[str, Sequence[float] | None] = {
        names.TOXICITY: toxicity,
        names.JUDGE_TOXICITY: judge_toxicity,
        names.SCORE: scores,
        names.RESPONSE_TOKENS: response_tokens,
        names.REFERENCE_NLL: reference_nll,
    }
    per_response = {
        key: [float(value) for value in column]
        for key, column in columns.items()
        if column is not None
    }
    per_response[names.RESPONSE_WORDS] = [float(response_words(text)) for text in responses]
    per_response[names.REPETITION] = [repetition(text) for text in responses]
    per_response[names.EMPTY] = [float(is_empty(text)) for text in responses]
    per_response[names.SYMBOLS] = [symbols(text) for text in responses]
    _check_columns(prompts, {**per_response, "responses": responses, "references": references})
    _check_scored(per_response)
    if any(references):
        per_response.update(rouge_per_response(responses, references))
    return Evaluation(
        prompts=prompts,
        responses=responses,
        references=references,
        per_response=per_response,
        corpus=_corpus_metrics(responses, per_response),
    )


def _corpus_metrics(
    responses: list[str], per_response: Mapping[str, list[float]]
) -> dict[str, float]:
    corpus = {key: distinct_n(responses, n) for n, key in enumerate(names.DISTINCT_KEYS, start=1)}
    corpus[names.COMMON_OPENINGS] = common_openings(responses)
    corpus[names.SELF_BLEU] = self_bleu(responses)
    if names.REFERENCE_NLL in per_response:
        corpus[names.PERPLEXITY] = reference_perplexity(
            per_response[names.REFERENCE_NLL], per_response[names.RESPONSE_TOKENS]
        )
    return {key: value for key, value in corpus.items() if not math.isnan(value)}


def _check_columns(prompts: list[str], columns: Mapping[str, Sequence[object]]) -> None:
    for key, column in columns.items():
        if len(column) != len(prompts):
            raise ValueError(
                f"{key} has {len(column)} rows for {len(prompts)} prompts; "
                "every column needs one row per response"
            )


def _check_scored(per_response: Mapping[str, list[float]]) -> None:
    for key in (names.TOXICITY, names.JUDGE_TOXICITY, names.SCORE):
        bad = [
            row for row, value in enumerate(per_response.get(key, [])) if not math.isfinite(value)
        ]
        if bad:
            raise ScorerError(
                f"{key} is not finite for {len(bad)} responses, the first is row {bad[0]}; "
                "an unscored response must not count as clean. "
                "Check `reward.path` and `judge.path`."
            )
