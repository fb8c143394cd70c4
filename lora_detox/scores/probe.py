"""Is the sign right? A few plain sentences before training starts.

Scorers whose labels are in another order than thought reward hate without any other sign of it
(TRL issue 117), so the sign is measured rather than trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lora_detox.errors import ScorerError
from lora_detox.scores.contract import check_takes_columns
from lora_detox.types import Scorer

TOXIC_SENTENCES = (
    "You are a stupid idiot and I hate you.",
    "Shut up, you pathetic moron.",
    "You are a useless, disgusting fool.",
    "What a dumb loser, nobody can stand your ugly face.",
    "Get lost, you worthless piece of garbage.",
    "You stupid jerk, you make everyone sick.",
)
CIVIL_SENTENCES = (
    "Thank you very much for your help today.",
    "I would like to meet you at the station at noon.",
    "The library opens at nine in the morning.",
    "Your garden looks lovely this spring.",
    "We talked about the plans for the weekend.",
    "Please let me know if you have any questions.",
)
_TOLD_APART = 0.8
"""Fraction of pairs in order from which on toxicity tells six civil from six toxic sentences: by
chance as many are in order once in twenty times (Mann-Whitney)."""


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Means over the probe sentences.

    Attributes:
        civil_score: mean score of the civil sentences.
        toxic_score: mean score of the toxic sentences, lower.
        civil_toxicity: mean toxicity of the civil sentences, in [0, 1].
        toxic_toxicity: mean toxicity of the toxic sentences, in [0, 1], higher.
    """

    civil_score: float
    toxic_score: float
    civil_toxicity: float
    toxic_toxicity: float


def probe_scorer(
    scorer: Scorer, key: str = "reward", texts: tuple[list[str], list[str]] | None = None
) -> ProbeResult:
    """Check that civil text scores higher than toxic text, and that its toxicity is lower.

    A wrong sign turns nearly every pair of a civil and a toxic sentence round. Where pairs are in
    order as by chance, the scorer does not know the language of the sentences.

    Args:
        scorer: any scorer.
        key: settings group of the scorer, for messages.
        texts: civil and toxic texts in the language of the scorer; None takes English sentences.

    Returns:
        The means that were compared.

    Raises:
        ScorerError: if either is the other way round, or the scorer does not tell civil from toxic
            texts, or it takes no columns.
    """
    check_takes_columns(scorer)
    civil, toxic = texts or (list(CIVIL_SENTENCES), list(TOXIC_SENTENCES))
    sentences = [*civil, *toxic]
    scores = scorer.score([""] * len(sentences), sentences)
    probe = _Probe(scorer, key, own_texts=texts is not None)
    score = probe.check("score", scores.score.split([len(civil), len(toxic)]))
    toxicity = probe.check("toxicity", scores.toxicity.split([len(civil), len(toxic)]))
    return ProbeResult(
        civil_score=score[0],
        toxic_score=score[1],
        civil_toxicity=toxicity[0],
        toxic_toxicity=toxicity[1],
    )


class _Probe:
    """One probe of one scorer, and what it says when it fails."""

    def __init__(self, scorer: Scorer, key: str, *, own_texts: bool) -> None:
        self._scorer, self._key, self._own_texts = scorer, key, own_texts

    def check(self, number: str, values: Sequence[Float[Tensor, "N"]]) -> tuple[float, float]:
        """Means over civil and toxic texts, if they differ as they should."""
        civil, toxic = values
        means = float(civil.mean()), float(toxic.mean())
        above = number == "score"
        right = means[0] > means[1] if above else means[0] < means[1]
        order = _fraction_above(civil, toxic) if above else _fraction_above(toxic, civil)
        if right and (above or order >= _TOLD_APART):
            return means
        head = getattr(self._scorer, "head", None)
        labels = f" ({head.describe()})" if head is not None else ""
        counts = f"{len(civil)} plainly civil sentences", f"{len(toxic)} plainly toxic ones"
        measured = f"mean {means[0]:.4g} over {counts[0]}, {means[1]:.4g} over {counts[1]}"
        remedy = (
            f"change `{self._key}.label` (a function: turn its sign), or choose another scorer "
            f"with `{self._key}.path`"
        )
        if order <= 1 - _TOLD_APART:
            raise ScorerError(
                f"the sign of the {number} of {self._scorer.scorer_id} is wrong{labels}: "
                f"{measured}, want the civil mean {'above' if above else 'below'} the toxic one; "
                f"{remedy}"
            )
        raise ScorerError(
            f"the {number} of {self._scorer.scorer_id} does not tell civil from toxic "
            f"text{labels}: {measured}; {self._language()}; where it should know them, {remedy}; "
            f"`{self._key}.probe=false` goes on without this check"
        )

    def _language(self) -> str:
        if self._own_texts:
            return f"the sentences are those of `{self._key}.probe_texts`"
        return (
            "the sentences are English: for a classifier of another language give some in it with "
            f"`{self._key}.probe_texts={{civil: [TEXT, ...], toxic: [TEXT, ...]}}`, or a YAML or "
            "JSON file of that"
        )


def _fraction_above(high: Float[Tensor, "N"], low: Float[Tensor, "M"]) -> float:
    """Of the pairs that differ, in how many the first is above the second; 1/2 if none differs."""
    above, below = (high[:, None] > low[None]).sum(), (high[:, None] < low[None]).sum()
    return float(above / (above + below)) if above + below else 0.5
