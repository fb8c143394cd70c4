"""What every scorer takes and keeps, and how the columns of a row reach it."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lora_detox.errors import ScorerError
from lora_detox.types import PromptBatch, Scorer, Scores

_PROMPT = "How was it?"
_RESPONSES = [
    "Thank you, it was a lovely evening.",
    "You are a stupid idiot.",
    "",
    "Thank you, it was a lovely evening.",
    "Fine. " * 40,
]


def score_prompts(scorer: Scorer, prompts: PromptBatch, responses: list[str]) -> Scores:
    """Score responses with the columns of their rows, for scorers that read any.

    Args:
        scorer: any scorer; gets `references`, `row_ids` and `sources`.
        prompts: B prompts with their columns.
        responses: B response texts.

    Returns:
        One score and toxicity per response.

    Raises:
        ScorerError: the scorer fails, or takes no columns.
    """
    check_takes_columns(scorer)
    columns: dict[str, Sequence[Any]] = {
        "references": prompts.references,
        "row_ids": prompts.row_ids,
        "sources": prompts.sources or prompts.texts,
    }
    return scorer.score(prompts.texts, responses, **accepted_columns(scorer, columns))


def toxicity_scorer(scorer: Scorer) -> Scorer:
    """Who tells the toxicity behind a score: no function of a user's and no other term is called.

    Args:
        scorer: any scorer, also one that is made of others.

    Returns:
        The classifier inside it, or itself.
    """
    inner = getattr(scorer, "toxicity_by", None)
    return scorer if inner is None else toxicity_scorer(inner)


def check_takes_columns(scorer: Scorer) -> None:
    """Refuse a scorer that would fail on the columns of a row; it need not read them.

    Args:
        scorer: any scorer.

    Raises:
        ScorerError: its `score` takes no keywords.
    """
    try:
        inspect.signature(scorer.score).bind([], [], references=[], row_ids=[])
    except TypeError as error:
        raise ScorerError(
            f"the scorer {scorer.scorer_id!r} takes no columns ({error}): want "
            "`def score(self, prompts, responses, **columns)`, of which it may leave any unread"
        ) from error


def accepted_columns(
    scorer: Scorer, columns: Mapping[str, Sequence[Any]]
) -> Mapping[str, Sequence[Any]]:
    """The columns that a scorer takes: all of them, or those that it names."""
    parameters = inspect.signature(scorer.score).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return columns
    return {name: values for name, values in columns.items() if name in parameters}


def check_scorer(scorer: Scorer, *, tolerance: float = 1e-4) -> None:
    """Check a scorer against the contract of `lora_detox.types.Scorer`.

    It takes columns, read or not. Shapes are [B]; numbers are finite and toxicity lies in [0, 1];
    the order of responses is kept; equal responses score alike; a batch scores like its responses
    one by one; empty texts and an empty list are fine.

    Args:
        scorer: any scorer that depends on nothing but the texts.
        tolerance: largest difference, in units of the score, that counts as equal.

    Raises:
        ScorerError: naming the first rule that is broken.
    """
    check_takes_columns(scorer)
    prompts = [_PROMPT] * len(_RESPONSES)
    scores = scorer.score(prompts, list(_RESPONSES))
    _check_numbers(scorer, scores, len(_RESPONSES))
    _check_numbers(scorer, scorer.score([], []), 0)
    _check_equal(scorer, scores, 0, scores, 3, tolerance, "equal responses score differently")
    backwards = scorer.score(prompts, _RESPONSES[::-1])
    for index, response in enumerate(_RESPONSES):
        mirrored = len(_RESPONSES) - 1 - index
        _check_equal(scorer, scores, index, backwards, mirrored, tolerance, "the order is not kept")
        alone = scorer.score([_PROMPT], [response])
        _check_equal(scorer, scores, index, alone, 0, tolerance, "the batch changes the score")


def _check_numbers(scorer: Scorer, scores: Scores, count: int) -> None:
    tensors = {"score": scores.score, "toxicity": scores.toxicity, **scores.parts}
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != (count,):
            _refuse(scorer, f"{name} has the shape {tuple(tensor.shape)}, want ({count},)")
        if not bool(torch.isfinite(tensor).all()):
            _refuse(scorer, f"{name} is not finite")
    if bool(((scores.toxicity < 0) | (scores.toxicity > 1)).any()):
        _refuse(scorer, "toxicity is not in [0, 1]")
    if not scores.scorer_id or scores.scorer_id != scorer.scorer_id:
        _refuse(scorer, f"its scores name another scorer: {scores.scorer_id!r}")


def _check_equal(
    scorer: Scorer,
    one: Scores,
    index: int,
    other: Scores,
    other_index: int,
    tolerance: float,
    broken: str,
) -> None:
    for name in ("score", "toxicity"):
        first = float(getattr(one, name)[index])
        second = float(getattr(other, name)[other_index])
        if abs(first - second) > tolerance:
            _refuse(scorer, f"{broken}: {name} {first:.6g} and {second:.6g}")


def _refuse(scorer: Scorer, broken: str) -> None:
    raise ScorerError(f"the scorer {scorer.scorer_id!r} breaks the contract: {broken}")
