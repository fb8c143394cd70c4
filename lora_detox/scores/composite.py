"""Scorers made of others: a sum, a product, an ensemble, a score whose sign the prompt sets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lora_detox.errors import ScorerError
from lora_detox.scores.contract import accepted_columns, check_takes_columns
from lora_detox.types import Scorer, Scores

_ROUNDING = 1e-3
"""By how much a factor may exceed 1 in half precision."""


@dataclass(frozen=True, kw_only=True)
class ScoreTerm:
    """One scorer in a sum or a product.

    Attributes:
        scorer: what scores.
        weight: multiplies its score in a sum, and is its exponent in a product; finite.
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
    def toxicity_by(self) -> Scorer:
        """Who tells the toxicity."""
        return self._terms[self._toxicity_from].scorer

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
            name: term.scorer.score(prompts, responses, **accepted_columns(term.scorer, columns))
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


STYLE = "style"
"""The factor of a product that is a classifier's 1 - toxicity."""


class ProductScorer:
    """score = product of factor ** weight; a response is as good as its worst part lets it be.

    With weights 1 and the terms similarity and fluency it is the J of ParaDetox (Logacheva et al.
    2022) for each response, with probabilities in the place of decisions.

    Args:
        style: a classifier, whose 1 - toxicity is the first factor.
        terms: name -> scorer and weight of each further factor, a number in [0, 1].
        key: settings group of the scorer, for messages.

    Raises:
        ScorerError: if a weight is below 0 or not finite, or a scorer takes no columns.
    """

    def __init__(
        self, style: ScoreTerm, terms: Mapping[str, ScoreTerm], *, key: str = "reward"
    ) -> None:
        self._terms = {STYLE: style, **terms}
        self._key = key
        for name, term in self._terms.items():
            if not 0 <= term.weight < math.inf:
                raise ScorerError(
                    f"the weight of {name} is {term.weight:g}: in a product it is an exponent, "
                    f"want 0 or more; change `{key}.terms`"
                )
            check_takes_columns(term.scorer)

    @property
    def toxicity_by(self) -> Scorer:
        """Who tells the toxicity."""
        return self._terms[STYLE].scorer

    @property
    def scorer_id(self) -> str:
        """Ids and exponents of the factors."""
        return " * ".join(
            f"({'1 - toxicity by ' if name == STYLE else ''}{term.scorer.scorer_id})"
            + ("" if term.weight == 1 else f"^{term.weight:g}")
            for name, term in self._terms.items()
        )

    def score(self, prompts: list[str], responses: list[str], **columns: Sequence[Any]) -> Scores:
        """Multiply the factors.

        Args:
            prompts: B prompt texts.
            responses: B response texts.
            **columns: for the terms that read any.

        Returns:
            The product in [0, 1], with the classifier's toxicity; `parts` and `factors` have each
            factor before its exponent.

        Raises:
            ScorerError: if a term fails, or gives a number outside [0, 1].
        """
        scored = {
            name: term.scorer.score(prompts, responses, **accepted_columns(term.scorer, columns))
            for name, term in self._terms.items()
        }
        toxicity = scored[STYLE].toxicity
        factors = {
            name: 1 - toxicity if name == STYLE else self._checked(name, scores.score)
            for name, scores in scored.items()
        }
        product: Float[Tensor, "B"] = torch.ones(len(responses))
        for name, factor in factors.items():
            product = product * factor ** self._terms[name].weight
        return Scores(
            score=product,
            toxicity=toxicity,
            parts=factors,
            factors=factors,
            scorer_id=self.scorer_id,
        )

    def _checked(self, name: str, factor: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        inside = bool(((factor >= 0) & (factor <= 1 + _ROUNDING)).all())  # not so for NaN
        if not inside:
            raise ScorerError(
                f"the factor {name} ({self._terms[name].scorer.scorer_id}) has numbers outside 0 "
                f"to 1, the least {float(factor.min()):.3g}; change `{self._key}.terms` or "
                f"`{self._key}.terms_combine`"
            )
        return factor.clamp(max=1.0)


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
        members = [
            one.score(prompts, responses, **accepted_columns(one, columns)) for one in self._scorers
        ]
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
    def toxicity_by(self) -> Scorer:
        """Who tells the toxicity."""
        return self._scorer

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
        taken = accepted_columns(self._scorer, columns)
        scores = self._scorer.score(prompts, responses, **taken)
        signs = [
            next((f for prefix, f in self._signs.items() if prompt.startswith(prefix)), 1.0)
            for prompt in prompts
        ]
        factors = torch.tensor(signs, dtype=scores.score.dtype)
        return Scores(
            score=scores.score * factors,
            toxicity=scores.toxicity,
            parts=scores.parts,
            factors=scores.factors,
            scorer_id=self.scorer_id,
        )
