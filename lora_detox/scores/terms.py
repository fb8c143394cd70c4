"""Terms of a composite reward besides toxicity: overlap with references, length, similarity.

They say nothing of toxicity, so theirs is 0; the composite takes it from its classifier.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from rouge_score.rouge_scorer import RougeScorer

from lora_detox.errors import ScorerError
from lora_detox.scores.columns import Columns, ColumnScorer, score_with_columns
from lora_detox.types import Scorer, Scores

_WORD = re.compile(r"\w+")


class TextTerm(ColumnScorer):
    """A number of each response, in [0, 1] or below 0, higher is better.

    Args:
        name: as in `reward.terms`.
        number: prompt, response and references -> the number.
    """

    def __init__(self, name: str, number: Callable[[str, str, list[str]], float]) -> None:
        self._name, self._number = name, number

    @property
    def scorer_id(self) -> str:
        """The name of the term."""
        return self._name

    def score_columns(self, prompts: list[str], responses: list[str], columns: Columns) -> Scores:
        """Score each response.

        Args:
            prompts: B prompt texts.
            responses: B response texts.
            columns: `references`, a list for each response, where there are any.

        Returns:
            The numbers; toxicity is 0.
        """
        references = columns.get("references") or [[] for _ in responses]
        rows = zip(prompts, responses, references, strict=True)
        score = torch.tensor([self._number(*row) for row in rows], dtype=torch.float32)
        return Scores(
            score=score,
            toxicity=torch.zeros(len(responses)),
            parts={self._name: score},
            scorer_id=self.scorer_id,
        )


class EnsembleScorer(ColumnScorer):
    """Several classifiers as one: the least or the mean of their scores, the most of toxicity.

    Args:
        scorers: at least one; their scores are compared, so they should be of one kind.
        combine: "minimum" (a response is as good as its harshest scorer says) or "mean".
    """

    def __init__(self, scorers: Sequence[Scorer], combine: str) -> None:
        if not scorers or combine not in {"minimum", "mean"}:
            raise ScorerError(
                f"an ensemble of {len(scorers)} scorers by {combine!r}: want one or more, and "
                "minimum or mean; change `reward.ensemble` or `reward.combine`"
            )
        self._scorers, self._combine = list(scorers), combine

    @property
    def scorer_id(self) -> str:
        """The way of combining and the ids of the members."""
        return f"{self._combine}({', '.join(one.scorer_id for one in self._scorers)})"

    def score_columns(self, prompts: list[str], responses: list[str], columns: Columns) -> Scores:
        """Ask every member.

        Args:
            prompts: B prompt texts.
            responses: B response texts.
            columns: for members that read any.

        Returns:
            The combined score and toxicity; `parts` has each member's score.
        """
        asked = [score_with_columns(one, prompts, responses, columns) for one in self._scorers]
        scores = torch.stack([one.score for one in asked])
        toxicity = torch.stack([one.toxicity for one in asked])
        least = self._combine == "minimum"
        return Scores(
            score=scores.min(dim=0).values if least else scores.mean(dim=0),
            toxicity=toxicity.max(dim=0).values if least else toxicity.mean(dim=0),
            parts={f"member_{place}": one for place, one in enumerate(scores)},
            scorer_id=self.scorer_id,
        )


class SignedScorer(ColumnScorer):
    """A score whose direction the prompt asks for, as in control by a prefix.

    Args:
        scorer: what scores.
        signs: beginning of a prompt -> factor on the score; a prompt with none of them has 1.
    """

    def __init__(self, scorer: Scorer, signs: Mapping[str, float]) -> None:
        self._scorer, self._signs = scorer, dict(signs)

    @property
    def scorer_id(self) -> str:
        """The scorer's id and the factors."""
        factors = ", ".join(f"{prefix} {factor:g}" for prefix, factor in self._signs.items())
        return f"{self._scorer.scorer_id} times ({factors})"

    def score_columns(self, prompts: list[str], responses: list[str], columns: Columns) -> Scores:
        """Score, and turn the score where the prompt asks for it.

        Args:
            prompts: B prompt texts.
            responses: B response texts.
            columns: for the scorer, where it reads any.

        Returns:
            The scorer's toxicity, and its score times the factor.
        """
        scores = score_with_columns(self._scorer, prompts, responses, columns)
        found = [
            next((f for prefix, f in self._signs.items() if prompt.startswith(prefix)), 1.0)
            for prompt in prompts
        ]
        factors = torch.tensor(found, dtype=scores.score.dtype)
        return Scores(
            score=scores.score * factors,
            toxicity=scores.toxicity,
            parts=scores.parts,
            scorer_id=self.scorer_id,
        )


def text_term(name: str, length_words: int) -> TextTerm:
    """A term by its name in `reward.terms`.

    Args:
        name: "rouge", "length" or "similarity".
        length_words: words that the length term aims at.

    Returns:
        The term: ROUGE-L F against the best reference, in [0, 1]; -|ln(words / length_words)|, at
        most 0; cosine of the word counts of prompt and response, in [0, 1].

    Raises:
        ScorerError: there is no such term.
    """
    if name == "rouge":
        rouge = RougeScorer(["rougeL"], use_stemmer=True)
        return TextTerm(name, lambda _, response, references: _rouge(rouge, response, references))
    if name == "length":
        return TextTerm(name, lambda _, response, __: _length(response, length_words))
    if name == "similarity":
        return TextTerm(name, lambda prompt, response, _: _cosine(prompt, response))
    raise ScorerError(
        f"no term `{name}`; want toxicity, rouge, length or similarity; change `reward.terms`"
    )


def _rouge(scorer: Any, response: str, references: list[str]) -> float:
    if not references:
        return 0.0
    return float(scorer.score_multi(references, response)["rougeL"].fmeasure)


def _length(response: str, wanted: int) -> float:
    return -abs(math.log(max(1, len(response.split())) / wanted))


def _cosine(prompt: str, response: str) -> float:
    one, other = (Counter(_WORD.findall(text.lower())) for text in (prompt, response))
    norm = math.sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))
    return sum(count * other[word] for word, count in one.items()) / norm if norm else 0.0
