"""`Evaluation` -> the numbers of `summary.json`, and the change between two of them."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from lora_detox.metrics import names
from lora_detox.metrics.agreement import paired_correlation_interval
from lora_detox.metrics.bleu import bleu_counts, paired_bleu_interval
from lora_detox.metrics.bootstrap import (
    RESAMPLES,
    Interval,
    paired_distinct_interval,
    paired_interval,
    paired_openings_interval,
    paired_perplexity_interval,
    prompt_groups,
)
from lora_detox.text.kinds import compared_by, counted_by
from lora_detox.types import Evaluation

_SPREAD_KEYS = (names.TOXICITY, names.JUDGE_TOXICITY)
_MEAN_KEYS = (
    *names.ROUGE_KEYS,
    names.RELEVANCE,
    names.SIMILARITY,
    names.FLUENCY,
    names.JOINT,
    names.JUDGE_JOINT,
    names.RESPONSE_TOKENS,
    names.RESPONSE_WORDS,
    names.REPETITION,
    names.EMPTY,
    names.SYMBOLS,
    names.LISTED_WORDS,
    names.JUDGE_GAP,
    names.COPIED,
)
_CORPUS_KEYS = (
    names.BLEU,
    names.PERPLEXITY,
    *names.DISTINCT_KEYS,
    names.COMMON_OPENINGS,
    names.SELF_BLEU,
    names.JUDGE_AGREEMENT,
)


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """Reduce an evaluation to what `before` and `after` of `summary.json` hold.

    Args:
        evaluation: one policy on fixed prompts.

    Returns:
        `toxicity` and `judge_toxicity` as {"mean", "std" (population), "n"}, every other metric as
        a plain number, in the order of `names.METRICS`. A metric that does not apply is absent.
    """
    summary: dict[str, Any] = {}
    for key in (*_SPREAD_KEYS, *_MEAN_KEYS):
        values = np.asarray(evaluation.per_response.get(key, []), dtype=np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        mean = float(values.mean())
        spread = key in _SPREAD_KEYS
        summary[key] = (
            {"mean": mean, "std": float(values.std()), "n": len(values)} if spread else mean
        )
    for key in _CORPUS_KEYS:
        value = evaluation.corpus.get(key, math.nan)
        if not math.isnan(value):
            summary[key] = float(value)
    return {key: summary[key] for key in names.METRICS if key in summary}


def change(
    before: Evaluation, after: Evaluation, resamples: int = RESAMPLES
) -> dict[str, dict[str, Any]]:
    """What moved between two evaluations of the same prompts, with 95 % intervals.

    Args:
        before: the policy at the start.
        after: the policy at the end.
        resamples: bootstrap draws behind each interval, at least 1; distinct-n has a jackknife.

    Returns:
        {metric: {"mean": after - before, "ci95": [low, high]}} for every metric that `summarise`
        gives for both; `ci95` holds NaN where there are too few responses for an interval, and for
        self-BLEU, whose responses are each other's references: prompts cannot be drawn alone.

    Raises:
        ValueError: if the prompts are not the same in the same order.
    """
    if list(before.prompts) != list(after.prompts):
        raise ValueError(
            f"before has {len(before.prompts)} prompts, after {len(after.prompts)}, and they are "
            "not the same in the same order; only evaluations of the same prompts compare"
        )
    in_after = summarise(after)
    groups = prompt_groups(before.prompts)
    intervals = {
        key: _interval(key, before, after, groups, resamples)
        for key in summarise(before)
        if key in in_after
    }
    return {
        key: {"mean": interval.change, "ci95": [interval.low, interval.high]}
        for key, interval in intervals.items()
    }


def word_rules(evaluations: Iterable[Evaluation]) -> dict[str, str]:
    """By which rules the texts of evaluations were read, for `words` of `summary.json`.

    Args:
        evaluations: of any policies and prompts.

    Returns:
        `compared`: what ROUGE compares in responses and references; `counted`: what word counts,
        distinct-n and repetition count in responses.
    """
    responses, references = [], []
    for evaluation in evaluations:
        responses += evaluation.responses
        references += [one for listed in evaluation.references for one in listed]
    return {"compared": compared_by(responses + references), "counted": counted_by(responses)}


def _interval(
    key: str, before: Evaluation, after: Evaluation, groups: list[int], resamples: int
) -> Interval:
    if key in names.DISTINCT_KEYS:
        n = names.DISTINCT_KEYS.index(key) + 1
        return paired_distinct_interval(before.responses, after.responses, n, groups=groups)
    if key == names.COMMON_OPENINGS:
        return paired_openings_interval(before.responses, after.responses, groups=groups)
    if key == names.SELF_BLEU:
        return Interval(after.corpus[key] - before.corpus[key], math.nan, math.nan)
    draws: dict[str, Any] = {"groups": groups, "resamples": resamples}
    if key == names.BLEU:
        both = [bleu_counts(one.responses, one.references) for one in (before, after)]
        return paired_bleu_interval(*both, **draws)
    of_pairs: dict[str, tuple[Callable[..., Interval], Callable[[Evaluation], Any]]] = {
        names.JUDGE_AGREEMENT: (paired_correlation_interval, _toxicities),
        names.PERPLEXITY: (paired_perplexity_interval, _nll_and_tokens),
    }
    if key in of_pairs:
        interval, pair_of = of_pairs[key]
        return interval(pair_of(before), pair_of(after), **draws)
    return paired_interval(before.per_response[key], after.per_response[key], **draws)


def _nll_and_tokens(evaluation: Evaluation) -> tuple[list[float], list[float]]:
    per_response = evaluation.per_response
    return per_response[names.REFERENCE_NLL], per_response[names.RESPONSE_TOKENS]


def _toxicities(evaluation: Evaluation) -> tuple[list[float], list[float]]:
    per_response = evaluation.per_response
    return per_response[names.TOXICITY], per_response[names.JUDGE_TOXICITY]
