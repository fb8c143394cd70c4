"""ROUGE of each response against one or several references, by the `rouge_score` library.

`rouge` wraps this as an `evaluate` metric; it stands apart because `evaluate` imports slowly.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from rouge_score.rouge_scorer import RougeScorer

from lora_detox.metrics.names import ROUGE_KEYS

# Where a sentence ends: closing punctuation, perhaps a quote or bracket, then white space.
_SENTENCE_END = re.compile(r"(?<=[.!?])(?P<closing>[\"')\]]?)\s+")


@lru_cache(maxsize=1)
def _scorer() -> Any:
    return RougeScorer(list(ROUGE_KEYS), use_stemmer=True)


def sentences_on_lines(text: str) -> str:
    """Put each sentence on its own line, as ROUGE-Lsum expects.

    A text that has several lines already is taken as split by its author.
    """
    stripped = text.strip()
    return stripped if "\n" in stripped else _SENTENCE_END.sub(r"\g<closing>\n", stripped)


def rouge_per_response(
    responses: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, list[float]]:
    """F of ROUGE-1, -2, -L and -Lsum of each response, Porter-stemmed.

    With several references each key takes the reference where its own F is highest (Lin 2004).

    Args:
        responses: response texts.
        references: for each response its references.

    Returns:
        Key -> one F in [0, 1] per response; NaN where a response has no reference.

    Raises:
        ValueError: if there is not one list of references per response.
    """
    if len(responses) != len(references):
        raise ValueError(
            f"got {len(responses)} responses and {len(references)} lists of references; "
            "each response needs its own list"
        )
    rows = [_best_f(response, refs) for response, refs in zip(responses, references, strict=True)]
    return {key: [row[key] for row in rows] for key in ROUGE_KEYS}


def _best_f(response: str, references: Sequence[str]) -> dict[str, float]:
    if not references:
        return dict.fromkeys(ROUGE_KEYS, float("nan"))
    scorer = _scorer()
    # The word n-grams and the LCS of ROUGE-L do not see line ends, so one text serves all keys.
    targets = [sentences_on_lines(reference) for reference in references]
    best = scorer.score_multi(targets, sentences_on_lines(response))
    return {key: float(best[key].fmeasure) for key in ROUGE_KEYS}
