"""Scorers that read more of a row than its prompt: its references, its id."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from lora_detox.types import PromptBatch, Scorer, Scores

Columns = Mapping[str, Sequence[Any]]


class ColumnScorer(ABC):
    """A scorer that also takes columns, one entry per response; without them it has none."""

    @property
    @abstractmethod
    def scorer_id(self) -> str:
        """What scores, for reports."""

    @abstractmethod
    def score_columns(self, prompts: list[str], responses: list[str], columns: Columns) -> Scores:
        """Score responses.

        Args:
            prompts: B prompt texts.
            responses: B response texts.
            columns: `references` and others, B entries each; may be empty.

        Returns:
            One score and toxicity per response.

        Raises:
            ScorerError: if it fails.
        """

    def score(self, prompts: list[str], responses: list[str]) -> Scores:
        """Score without columns; see `score_columns`."""
        return self.score_columns(prompts, responses, {})


def score_with_columns(
    scorer: Scorer, prompts: list[str], responses: list[str], columns: Columns
) -> Scores:
    """Score with the columns where the scorer reads any.

    Args:
        scorer: any scorer.
        prompts: B prompt texts.
        responses: B response texts.
        columns: as in ColumnScorer.

    Returns:
        What the scorer says.
    """
    if isinstance(scorer, ColumnScorer):
        return scorer.score_columns(prompts, responses, columns)
    return scorer.score(prompts, responses)


def score_prompts(scorer: Scorer, prompts: PromptBatch, responses: list[str]) -> Scores:
    """Score responses with the columns of their rows, where the scorer reads any.

    Args:
        scorer: any scorer; a ColumnScorer gets `references` and `row_ids` too.
        prompts: B prompts with their columns.
        responses: B response texts.

    Returns:
        What the scorer says.
    """
    columns: Columns = {"references": prompts.references, "row_ids": prompts.row_ids}
    return score_with_columns(scorer, prompts.texts, responses, columns)
