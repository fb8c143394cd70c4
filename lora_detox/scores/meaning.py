"""Terms of a rewrite: does a response keep the meaning of its prompt, and is it fluent?

Both are numbers in [0, 1] and say nothing of toxicity. The third part of a good rewrite, a civil
style, is that of the reward's own classifier (Logacheva et al. 2022, "ParaDetox").
"""

from collections.abc import Sequence
from typing import Any

import torch

from lora_detox.errors import ScorerError
from lora_detox.scores.classifier import ClassifierScorer
from lora_detox.scores.encoder import Encoder
from lora_detox.scores.loading import check_classifier
from lora_detox.types import Scorer, Scores


class SimilarityScorer:
    """Cosine of each prompt, without its template, and its response; 0 where it is below.

    Args:
        encoder: embeds both, each alone.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def scorer_id(self) -> str:
        """The encoder's id."""
        return f"similarity by {self._encoder.encoder_id}"

    def score(self, prompts: list[str], responses: list[str], **columns: Sequence[Any]) -> Scores:
        """Compare each response with what it answers.

        Args:
            prompts: B prompt texts.
            responses: B response texts, empty ones allowed.
            **columns: `sources`, the prompts without their template; where there are none the
                prompts are compared as they are.

        Returns:
            Numbers in [0, 1], 0 where either text is empty; toxicity is 0.

        Raises:
            ScorerError: the encoder fails.
        """
        sources = list(columns.get("sources") or prompts)
        cosine = self._encoder.relevance(sources, responses, keep_prompts=True)
        score = cosine.clamp(min=0.0)
        return Scores(
            score=score,
            toxicity=torch.zeros(len(responses)),
            parts={"similarity": score},
            scorer_id=self.scorer_id,
        )


class FluencyScorer:
    """Probability of the fluent label of a classifier; an empty response has 0.

    Args:
        classifier: whose score is that probability.
    """

    def __init__(self, classifier: ClassifierScorer) -> None:
        self._classifier = classifier

    @property
    def scorer_id(self) -> str:
        """The classifier's id."""
        return f"fluency by {self._classifier.scorer_id}"

    def score(self, prompts: list[str], responses: list[str], **columns: Sequence[Any]) -> Scores:
        """Read each response alone.

        Args:
            prompts: B prompt texts, not read.
            responses: B response texts, empty ones allowed.
            **columns: not read.

        Returns:
            Numbers in [0, 1]; toxicity is 0.

        Raises:
            ScorerError: the classifier fails.
        """
        fluent = self._classifier.score(prompts, responses).score
        blank = torch.tensor([not text.strip() for text in responses], dtype=torch.bool)
        score = fluent.masked_fill(blank, 0.0)
        return Scores(
            score=score,
            toxicity=torch.zeros(len(responses)),
            parts={"fluency": score},
            scorer_id=self.scorer_id,
        )


def check_fluency(path: str, label: str, key: str, revision: str | None = None) -> None:
    """Find a fluency classifier and its label, from its configuration only.

    Args:
        path: a local folder or a hub id.
        label: of fluent text, by name or index.
        key: settings group of it, for messages.
        revision: branch, tag or commit on the hub.

    Raises:
        ScorerError: it is missing, has no such label, or labels that do not exclude each other.
    """
    head = check_classifier(path, label, key, revision)
    if head.civil_index is None:
        raise ScorerError(
            f"the labels of {path} do not exclude each other ({head.describe()}); want a fluency "
            f"classifier with a fluent and another label; change `{key}.path`"
        )


def probe_fluency(scorer: Scorer, key: str, texts: Sequence[str]) -> None:
    """Check that sentences are more fluent than the same words backwards.

    Args:
        scorer: of fluency.
        key: settings group of the classifier, for the message.
        texts: plain sentences in its language.

    Raises:
        ScorerError: they are not, so that the reward would teach word salad.
    """
    broken = [_backwards(text) for text in texts]
    both = [*texts, *broken]
    whole, turned = scorer.score([""] * len(both), both).score.split(len(texts))
    if float(whole.mean()) > float(turned.mean()):
        return
    raise ScorerError(
        f"the fluency of {scorer.scorer_id} does not tell sentences from their words backwards: "
        f"mean {float(whole.mean()):.3g} and {float(turned.mean()):.3g}, want the first above the "
        f"second; change `{key}.label` or `{key}.path` (`reward.probe_texts` holds sentences of "
        "another language than English; `reward.probe=false` goes on without this check)"
    )


def _backwards(text: str) -> str:
    """The words in the opposite order; the characters where there is a single word."""
    words = text.split()
    return " ".join(words[::-1]) if len(words) > 1 else text[::-1]
