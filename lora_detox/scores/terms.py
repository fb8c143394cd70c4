"""Terms of a composite reward besides toxicity: overlap with references, length, common words.

They say nothing of toxicity, so theirs is 0; the composite takes it from its classifier.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from lora_detox.errors import ScorerError
from lora_detox.text.rouge import best_f
from lora_detox.text.words import loose_words, split_words
from lora_detox.types import Scores


class TextTerm:
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

    def score(self, prompts: list[str], responses: list[str], **columns: Sequence[Any]) -> Scores:
        """Score each response.

        Args:
            prompts: B prompt texts.
            responses: B response texts.
            **columns: `references`, a list for each response, where there are any; `sources`, the
                prompts without their template.

        Returns:
            The numbers; toxicity is 0.
        """
        references = columns.get("references") or [[] for _ in responses]
        rows = zip(columns.get("sources") or prompts, responses, references, strict=True)
        score = torch.tensor([self._number(*row) for row in rows], dtype=torch.float32)
        return Scores(
            score=score,
            toxicity=torch.zeros(len(responses)),
            parts={self._name: score},
            scorer_id=self.scorer_id,
        )


def text_term(name: str, length_words: int) -> TextTerm:
    """A term by its name in `reward.terms`.

    Args:
        name: "rouge", "length" or "similarity" (without an encoder; see `meaning`).
        length_words: words that the length term aims at.

    Returns:
        The term: ROUGE-L F against the best reference, in [0, 1]; -|ln(words / length_words)|, at
        most 0; cosine of the word counts of prompt and response, in [0, 1].

    Raises:
        ScorerError: there is no such term.
    """
    if name == "rouge":
        return TextTerm(name, lambda _, response, references: _rouge(response, references))
    if name == "length":
        return TextTerm(name, lambda _, response, __: _length(response, length_words))
    if name == "similarity":
        return TextTerm(name, lambda prompt, response, _: _cosine(prompt, response))
    raise ScorerError(
        f"no term `{name}`; want toxicity, rouge, length, similarity or fluency; change "
        "`reward.terms`"
    )


def _rouge(response: str, references: list[str]) -> float:
    return best_f(("rougeL",), references, response)["rougeL"] if references else 0.0


def _length(response: str, wanted: int) -> float:
    return -abs(math.log(max(1, len(split_words(response))) / wanted))


def _cosine(prompt: str, response: str) -> float:
    one, other = (Counter(loose_words(text)) for text in (prompt, response))
    norm = math.sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))
    return sum(count * other[word] for word, count in one.items()) / norm if norm else 0.0
