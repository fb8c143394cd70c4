"""ROUGE of each response against one or several references, in any language.

`rouge` wraps this as an `evaluate` metric; it stands apart because `evaluate` imports slowly.
"""

import re
from collections.abc import Sequence

from lora_detox.metrics.names import ROUGE_KEYS
from lora_detox.text.rouge import best_f

# Where a sentence ends: closing punctuation, perhaps a quote or bracket, then white space.
_SENTENCE_END = re.compile(r"(?<=[.!?])(?P<closing>[\"')\]]?)\s+")
# Full stops, question and exclamation marks of Chinese, Hindi, Urdu, Arabic, Amharic, Armenian,
# Burmese, Khmer and Tibetan, some of which have no space after them; then what closes a quote.
_ENDS = "\u3002\uff01\uff1f\uff61\u0964\u0965\u06d4\u061f\u1362\u1367\u0589\u104b\u17d4\u0f0d"
_CLOSING = "\"')\\]\u300d\u300f\u201d\u2019\u00bb\uff09\u3011\u300b"
_SENTENCE_END_ELSEWHERE = re.compile(
    rf"(?<=[{_ENDS}])(?![{_ENDS}])(?P<closing>[{_CLOSING}]*)\s*(?=\S)"
)


def sentences_on_lines(text: str) -> str:
    """Put each sentence on its own line, as ROUGE-Lsum expects.

    A text that has several lines already is taken as split by its author.
    """
    stripped = text.strip()
    if "\n" in stripped:
        return stripped
    lines = _SENTENCE_END.sub(r"\g<closing>\n", stripped)
    return lines if lines.isascii() else _SENTENCE_END_ELSEWHERE.sub(r"\g<closing>\n", lines)


def rouge_per_response(
    responses: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, list[float]]:
    """F of ROUGE-1, -2, -L and -Lsum of each response; English words are Porter-stemmed.

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
    # The word n-grams and the LCS of ROUGE-L do not see line ends, so one text serves all keys.
    targets = [sentences_on_lines(reference) for reference in references]
    return best_f(ROUGE_KEYS, targets, sentences_on_lines(response))
