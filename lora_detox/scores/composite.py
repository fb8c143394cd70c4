"""Scorers made of others: a weighted sum, an ensemble, a score whose sign the prompt sets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lora_detox.errors import ScorerError
from lora_detox.scores.contract import check_takes_columns
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


class CompositeScorer:
    """score = sum of weight * score over named terms; toxicity is that of one of them.

    Args:
        terms: name -> scorer and weight, at least one.
        toxicity_from: name of the term whose toxicity counts.
        key: settings group of the scorer, for messages.

    Raises:
        ScorerError: if there are no terms, a weight is not finite, the name is unknown, or a
            scorer takes no columns.
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
        for term in terms.values():
            check_takes_columns(term.scorer)
        self._terms = dict(terms)
        self._toxicity_from = toxicity_from

    @property
    def scorer_id(self) -> str:
        """Weights and ids of the terms."""
        return " + ".join(
            f"{term.weight:g}*{term.scorer.scorer_id}" for term in self._terms.values()
        )

    def score(self, prompts: list[str], responses: list[str], **columns: Sequence[Any]) -> Scores:
        """Sum the terms.

        Args:
            prompts: B prompt texts.
            responses: B response texts.
            **columns: for the terms that read any.

        Returns:
            The sum; `parts` has each term's own score before its weight.

        Raises:
            ScorerError: if a term fails.
        """
        scored = {
            name: term.scorer.score(prompts, responses, **columns)
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


class EnsembleScorer:
    """Several classifiers as one: the least or the mean of their scores, the most of toxicity.

    Args:
        scorers: at least one; their scores are compared, so they should be of one kind.
        combine: "minimum" (a response is as good as its harshest scorer says) or "mean".

    Raises:
        ScorerError: no scorer, another way to combine, or a scorer that takes no columns.
    """

    def __init__(self, scorers: Sequence[Scorer], combine: str) -> None:
        if not scorers or combine not in {"minimum", "mean"}:
            raise ScorerError(
                f"an ensemble of {len(scorers)} scorers by {combine!r}: want one or more, and "
                "minimum or mean; change `reward.ensemble` or `reward.combine`"
            )
        for scorer in scorers:
            check_takes_columns(scorer)
        self._scorers, self._combine = list(scorers), combine

    @property
    def scorer_id(self) -> str:
        """The way of combining and the ids of the members."""
        return f"{self._combine}({', '.join(one.scorer_id for one in self._scorers)})"

    def score(self, prompts: list[str], responses: list[str], **columns: Sequence[Any]) -> Scores:
        """Ask every member.

        Args:
            prompts: B prompt texts.
            responses: B response texts.
            **columns: for members that read any.

        Returns:
            The combined score and toxicity; `parts` has each member's score.
        """
        members = [one.score(prompts, responses, **columns) for one in self._scorers]
        scores = torch.stack([one.score for one in members])
        toxicity = torch.stack([one.toxicity for one in members])
        least = self._combine == "minimum"
        return Scores(
            score=scores.min(dim=0).values if least else scores.mean(dim=0),
            toxicity=toxicity.max(dim=0).values if least else toxicity.mean(dim=0),
            parts={f"member_{place}": one for place, one in enumerate(scores)},
            scorer_id=self.scorer_id,
        )


class SignedScorer:
    """A score whose direction the prompt asks for, as in control by a prefix.

    Args:
        scorer: what scores.
        signs: beginning of a prompt -> factor on the score; a prompt with none of them has 1.

    Raises:
        ScorerError: the scorer takes no columns.
    """

    def __init__(self, scorer: Scorer, signs: Mapping[str, float]) -> None:
        check_takes_columns(scorer)
        self._scorer, self._signs = scorer, dict(signs)

    @property
    def scorer_id(self) -> str:
        """The scorer's id and the factors."""
        factors = ", ".join(f"{prefix} {factor:g}" for prefix, factor in self._signs.items())
        return f"{self._scorer.scorer_id} times ({factors})"

    def score(self, prompts: list[str], responses: list[str], **columns: Sequence[Any]) -> Scores:
        """Score, and turn the score where the prompt asks for it.

        Args:
            prompts: B prompt texts.
            responses: B response texts.
            **columns: for the scorer, where it reads any.

        Returns:
            The scorer's toxicity, and its score times the factor.
        """
        scores = self._scorer.score(prompts, responses, **columns)
        signs = [
            next((f for prefix, f in self._signs.items() if prompt.startswith(prefix)), 1.0)
            for prompt in prompts
        ]
        factors = torch.tensor(signs, dtype=scores.score.dtype)
        return Scores(
            score=scores.score * factors,
            toxicity=scores.toxicity,
            parts=scores.parts,
            scorer_id=self.scorer_id,
        )
