"""What every scorer keeps, as one check for the tests of this and of other people's scorers."""

import torch

from lora_detox.errors import ScorerError
from lora_detox.types import Scorer, Scores

_PROMPT = "How was it?"
_RESPONSES = [
    "Thank you, it was a lovely evening.",
    "You are a stupid idiot.",
    "",
    "Thank you, it was a lovely evening.",
    "Fine. " * 40,
]


def check_scorer(scorer: Scorer, *, tolerance: float = 1e-4) -> None:
    """Check a scorer against the contract of `lora_detox.types.Scorer`.

    Shapes are [B]; numbers are finite and toxicity lies in [0, 1]; the order of responses is kept;
    equal responses score alike; a batch scores like its responses one by one; empty texts and an
    empty list are fine.

    Args:
        scorer: any scorer that depends on nothing but the texts.
        tolerance: largest difference, in units of the score, that counts as equal.

    Raises:
        ScorerError: naming the first rule that is broken.
    """
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
