"""Does a text score alone as in a padded batch?

Classifiers that read the last token, or count positions from the left, may read padding instead.
"""

import logging

import torch

from lora_detox.errors import ScorerError
from lora_detox.scores.classifier import ClassifierScorer
from lora_detox.types import Scorer, Scores

LOG = logging.getLogger(__name__)

_SHORT = "Yes."
_LONG = "You are a stupid idiot and I would like to meet you at the station at noon."
_FLOAT32_TOLERANCE = 1e-3
"""Other shapes sum in another order: about 1e-5 in practice."""
_HALF_TOLERANCE = 0.05
"""bfloat16 keeps 8 bits, a relative error of 0.4 % per step, which adds up over the layers."""


def check_padding(scorer: ClassifierScorer, key: str, path_key: str | None = None) -> None:
    """Compare a short and a long text, each scored alone, with both in one padded batch.

    Scores may differ by the tolerance times the larger of 1 and their size, toxicity by the
    tolerance. A scorer that reads every text alone has nothing to compare.

    Args:
        scorer: a classifier.
        key: settings group of the scorer, for messages.
        path_key: setting that names the classifier, for messages; None is `{key}.path`.

    Raises:
        ScorerError: the batch changes a score or toxicity, or the classifier cannot read it.
    """
    texts = _texts_in_one_batch(scorer)
    if texts is None:
        return
    remedy = (
        f"set `{key}.batch_size=1`, which reads every text alone and is right, or change "
        f"`{path_key or f'{key}.path'}` to a classifier whose tokenizer has a padding token"
    )
    alone = [scorer.score([""], [text]) for text in texts]
    try:
        together = scorer.score([""] * len(texts), texts)
    except ScorerError as error:
        raise ScorerError(
            f"{scorer.scorer_id} scores texts alone but fails on a padded batch ({error}); {remedy}"
        ) from error
    tolerance = _FLOAT32_TOLERANCE if scorer.dtype == torch.float32 else _HALF_TOLERANCE
    difference = _difference(alone, together, texts, tolerance)
    if difference is not None:
        raise ScorerError(f"padding changes what {scorer.scorer_id} reads: {difference}; {remedy}")


def warn_of_batch_effects(scorer: Scorer, key: str) -> None:
    """Warn where a function's score of a text depends on the other texts of the call.

    It may do so on purpose (random numbers, comparisons within a group), so it is never refused.
    The scorer is called twice.

    Args:
        scorer: a function, or a sum with one in it.
        key: settings group of the scorer, for the message.
    """
    try:
        alone = scorer.score([""], [_SHORT])
        together = scorer.score(["", ""], [_SHORT, _LONG])
    except ScorerError as error:
        LOG.warning("`%s.function` was not compared alone and in a batch: %s", key, error)
        return
    difference = _difference([alone], together, [_SHORT], _HALF_TOLERANCE)
    if difference is not None:
        LOG.warning(
            "the score of %s depends on the other texts of the call: %s; if that is not meant, "
            "change `%s.function`",
            scorer.scorer_id,
            difference,
            key,
        )


def _texts_in_one_batch(scorer: ClassifierScorer) -> list[str] | None:
    """A short and a long text that one padded forward holds; None where there is no such pair."""
    words = _LONG.split()
    for count in (len(words), 8, 4, 2):
        texts = [_SHORT, " ".join(words[:count])]
        if scorer.pads(texts):
            return texts
    return None


def _difference(
    alone: list[Scores], together: Scores, texts: list[str], tolerance: float
) -> str | None:
    """The first number that differs by more than the tolerance, in words."""
    for name in ("score", "toxicity"):
        for place, text in enumerate(texts):
            one = float(getattr(alone[place], name)[0])
            other = float(getattr(together, name)[place])
            if not abs(one - other) <= tolerance * max(1.0, abs(one)):
                return f"the {name} of {text!r} is {one:.5g} alone and {other:.5g} in a batch"
    return None
