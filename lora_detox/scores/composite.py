"""A weighted sum of scorers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lora_detox.errors import ScorerError
from lora_detox.scores.columns import Columns, ColumnScorer, score_with_columns
from lora_detox.types import Scorer, Scores


@dataclass(frozen=True, kw_only=True)
class ScoreTerm:
    """One scorer in a sum.

    Attributes:
        scorer: what scores.
        weight: multiplies its score; finite.
    """

    scorer: Scorer
    weight: float


class CompositeScorer(ColumnScorer):
    """score = sum of weight * score over named terms; toxicity is that of one of them.

    Args:
        terms: name -> scorer and weight, at least one.
        toxicity_from: name of the term whose toxicity counts.
        key: settings group of the scorer, for messages.

    Raises:
        ScorerError: if there are no terms, a weight is not finite, or the name is unknown.
    """

    def __init__(
        self, terms: Mapping[str, ScoreTerm], *, toxicity_from: str, key: str = "reward"
    ) -> None:
        if toxicity_from not in terms:
            raise ScorerError(
                f"no term `{toxicity_from}` to take the toxicity from; want one of: "
                f"{', '.join(terms) or 'none is given'}; change `{key}.toxicity_from`"
            )
        wrong = [name for name, term in terms.items() if not math.isfinite(term.weight)]
        if wrong:
            raise ScorerError(
                f"the weight of {', '.join(wrong)} is not finite; change `{key}.terms`"
            )
        self._terms = dict(terms)
        self._toxicity_from = toxicity_from

    @property
    def scorer_id(self) -> str:
        """Weights and ids of the terms."""
        return " + ".join(
            f"{term.weight:g}*{term.scorer.scorer_id}" for term in self._terms.values()
        )

    def score_columns(self, prompts: list[str], responses: list[str], columns: Columns) -> Scores:
        """Sum the terms.

        Args:
            prompts: B prompt texts.
            responses: B response texts.
            columns: for the terms that read any.

        Returns:
            The sum; `parts` has each term's own score before its weight.

        Raises:
            ScorerError: if a term fails.
        """
        scored = {
            name: score_with_columns(term.scorer, prompts, responses, columns)
            for name, term in self._terms.items()
        }
        total: Float[Tensor, "B"] = torch.zeros(len(responses))
        for name, term in self._terms.items():
            total = total + term.weight * scored[name].score
        return Scores(
            score=total,
            toxicity=scored[self._toxicity_from].toxicity,
            parts={name: scores.score for name, scores in scored.items()},
            scorer_id=self.scorer_id,
        )
