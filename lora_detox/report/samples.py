"""The table of samples of a page: texts side by side with their scores, as data for page.js."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_detox.report.jsonl import plain
from lora_detox.visible import visible_values

MOST_SAMPLES = 5000
"""Of a page; the file beside it has the rest."""
TOXIC_FROM = 0.5
"""Toxicity by any classifier from which a text is folded."""


@dataclass(frozen=True, kw_only=True)
class ScoreColumn:
    """A number that each response has.

    Attributes:
        key: of the metric.
        label: name for people.
        digits: decimals worth showing.
        better: lower | higher | neither.
        ordered: whether it has a column that samples can be ordered by; all stand below the text.
    """

    key: str
    label: str
    digits: int = 3
    better: str = "lower"
    ordered: bool = True


SCORES = (
    ScoreColumn(key="toxicity", label="toxicity"),
    ScoreColumn(key="judge_toxicity", label="judge"),
    ScoreColumn(key="rougeL", label="ROUGE-L", better="higher"),
    ScoreColumn(key="relevance", label="relevance", better="higher"),
    ScoreColumn(key="joint", label="J", better="higher"),
    ScoreColumn(key="judge_joint", label="J by the judge", better="higher", ordered=False),
    ScoreColumn(key="similarity", label="similarity", better="higher", ordered=False),
    ScoreColumn(key="fluency", label="fluency", better="higher", ordered=False),
    ScoreColumn(key="perplexity", label="perplexity", digits=1),
    ScoreColumn(key="response_tokens", label="tokens", digits=0, better="neither"),
)
"""Scores of `samples.jsonl`, in the order in which they are shown."""
_MOST_NATS = 50.0
"""Per token, beyond which a perplexity is no number to look at."""
_TOXICITIES = ("toxicity", "judge_toxicity")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One prompt with what was answered.

    Attributes:
        prompt: text.
        responses: one of each side.
        scores: key -> one number of each side, None where not known.
        further: names and texts beside it, such as references.
    """

    prompt: str
    responses: Sequence[str]
    scores: Mapping[str, Sequence[float | None]]
    further: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class SampleTable:
    """What the macro `samples` of parts.html.j2 shows.

    Attributes:
        sides: headings of the responses, such as Before and After, or names of models.
        scores: columns; those that no sample has are left out by `sample_table`.
        rows: samples, largest changes of the first score first.
        left_out: samples that are not in `rows`.
        signed: whether a change has a sign (two sides: second - first); of more sides it is the
            largest difference between any two.
        toxic_from: toxicity from which a text is folded.
    """

    sides: Sequence[str]
    scores: Sequence[ScoreColumn]
    rows: Sequence[Sample]
    left_out: int = 0
    signed: bool = True
    toxic_from: float = field(default=TOXIC_FROM)

    @property
    def change_word(self) -> str:
        """What the numbers of a column are."""
        return "Change" if self.signed else "Spread"

    def json(self) -> str:
        """The data for page.js: ASCII without a character that could end the element around it."""
        value = {
            "sides": list(self.sides),
            "signed": self.signed,
            "scores": [vars(score) for score in self.scores],
            "rows": [self._row(sample) for sample in self.rows],
        }
        text = json.dumps(plain(visible_values(value)), allow_nan=False, separators=(",", ":"))
        for character in "<>&":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return text

    def _row(self, sample: Sample) -> dict[str, Any]:
        toxic = [self._is_toxic(sample, place) for place in range(len(self.sides))]
        rounded = [
            [None if one is None else round(one, score.digits + 1) for one in numbers]
            for score in self.scores
            for numbers in [sample.scores.get(score.key, [None] * len(self.sides))]
        ]
        return {
            "prompt": sample.prompt,
            "responses": list(sample.responses),
            "toxic": [any(toxic), *toxic],
            "scores": rounded,
            "changes": [change_of(sample, score.key) for score in self.scores],
            "further": [list(one) for one in sample.further],
        }

    def _is_toxic(self, sample: Sample, place: int) -> bool:
        numbers = (sample.scores[key][place] for key in _TOXICITIES if key in sample.scores)
        return any(number is not None and number >= self.toxic_from for number in numbers)


def sample_table(
    sides: Sequence[str], samples: Sequence[Sample], scores: Sequence[ScoreColumn] = SCORES
) -> SampleTable | None:
    """The table of a page.

    Args:
        sides: headings of the responses.
        samples: as in the data.
        scores: what each response has; a score that no sample has is left out.

    Returns:
        The `MOST_SAMPLES` samples with the largest changes of the first score, in the order of the
        data; None without samples.
    """
    if not samples:
        return None
    held = [score for score in scores if any(_is_known(one, score.key) for one in samples)]
    kept = list(range(len(samples)))
    if len(samples) > MOST_SAMPLES:
        size = [abs(change_of(one, held[0].key) or 0.0) if held else 0.0 for one in samples]
        kept = sorted(sorted(kept, key=lambda row: -size[row])[:MOST_SAMPLES])
    return SampleTable(
        sides=sides,
        scores=held,
        rows=[samples[row] for row in kept],
        left_out=len(samples) - len(kept),
        signed=len(sides) == 2,
    )


def change_of(sample: Sample, key: str) -> float | None:
    """Second side - first of a score; of more sides the largest difference; None if not known."""
    numbers = [one for one in sample.scores.get(key, ()) if one is not None]
    if len(numbers) < 2 or (len(sample.responses) == 2 and len(numbers) != 2):
        return None
    if len(sample.responses) == 2:
        return numbers[1] - numbers[0]
    return max(numbers) - min(numbers)


def before_and_after(rows: Sequence[Mapping[str, Any]]) -> SampleTable | None:
    """The table of a run.

    Args:
        rows: of `samples.jsonl`.

    Returns:
        Sides Before and After; None without rows.
    """
    samples = [
        Sample(
            prompt=row["prompt"],
            responses=(row["before"], row["after"]),
            scores=_scores(row),
            further=further_of(row),
        )
        for row in rows
    ]
    return sample_table(("Before", "After"), samples)


def _scores(row: Mapping[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    scores = {
        score.key: (row[f"{score.key}_before"], row[f"{score.key}_after"])
        for score in SCORES
        if f"{score.key}_before" in row and f"{score.key}_after" in row
    }
    if "reference_nll_before" in row and "reference_nll_after" in row:
        scores["perplexity"] = (_perplexity(row, "before"), _perplexity(row, "after"))
    return scores


def _perplexity(row: Mapping[str, Any], side: str) -> float | None:
    """exp(nats per token) of one response under the reference; None where it has no token."""
    nats, tokens = row[f"reference_nll_{side}"], row.get(f"response_tokens_{side}")
    if nats is None or not tokens:
        return None
    return math.exp(min(nats / tokens, _MOST_NATS))


def further_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """References and further columns of a row of `samples.jsonl`, as names and texts."""
    references = [("Reference", str(one)) for one in row.get("references") or ()]
    return references + [
        (str(name), str(value))
        for name, value in (row.get("columns") or {}).items()
        if value is not None
    ]


def _is_known(sample: Sample, key: str) -> bool:
    return any(number is not None for number in sample.scores.get(key, ()))
