"""Is the sign right? A few plain sentences before training starts.

Scorers whose labels are in another order than thought reward hate without any other sign of it
(TRL issue 117), so the sign is measured rather than trusted.
"""

from dataclasses import dataclass

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


def probe_scorer(scorer: Scorer, key: str = "reward") -> ProbeResult:
    """Check that civil text scores higher than toxic text, and that its toxicity is lower.

    Args:
        scorer: any scorer.
        key: settings group of the scorer, for messages.

    Returns:
        The means that were compared.

    Raises:
        ScorerError: if either is the other way round, or equal, or the scorer takes no columns.
    """
    check_takes_columns(scorer)
    sentences = [*CIVIL_SENTENCES, *TOXIC_SENTENCES]
    scores = scorer.score([""] * len(sentences), sentences)
    civil = len(CIVIL_SENTENCES)
    result = ProbeResult(
        civil_score=float(scores.score[:civil].mean()),
        toxic_score=float(scores.score[civil:].mean()),
        civil_toxicity=float(scores.toxicity[:civil].mean()),
        toxic_toxicity=float(scores.toxicity[civil:].mean()),
    )
    if not result.civil_score > result.toxic_score:
        _refuse(scorer, key, "score", result.civil_score, result.toxic_score, "above")
    if not result.civil_toxicity < result.toxic_toxicity:
        _refuse(scorer, key, "toxicity", result.civil_toxicity, result.toxic_toxicity, "below")
    return result


def _refuse(scorer: Scorer, key: str, number: str, civil: float, toxic: float, wanted: str) -> None:
    head = getattr(scorer, "head", None)
    labels = f" ({head.describe()})" if head is not None else ""
    raise ScorerError(
        f"the sign of the {number} of {scorer.scorer_id} is wrong{labels}: mean {civil:.4g} over "
        f"{len(CIVIL_SENTENCES)} plainly civil sentences, {toxic:.4g} over {len(TOXIC_SENTENCES)} "
        f"plainly toxic ones, want the civil mean {wanted} the toxic one; change `{key}.label` "
        f"(a function: turn its sign), or choose another scorer with `{key}.path`"
    )
