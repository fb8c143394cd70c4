"""The only home of metric key strings, and what each number means to a reader.

The keys stand in `Evaluation`, `metrics.jsonl`, `summary.json` and every tracker.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Better(StrEnum):
    """The direction in which a metric improves."""

    LOWER = "lower"
    HIGHER = "higher"
    NEITHER = "neither"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number that this project reports.

    Attributes:
        key: name in files and trackers.
        label: name for people.
        unit: of the number, empty for plain ratios.
        better: the direction in which it improves.
        digits: decimals worth showing.
    """

    key: str
    label: str
    unit: str
    better: Better
    digits: int


TOXICITY: Final = "toxicity"
JUDGE_TOXICITY: Final = "judge_toxicity"
SCORE: Final = "score"
ROUGE1: Final = "rouge1"
ROUGE2: Final = "rouge2"
ROUGEL: Final = "rougeL"
ROUGELSUM: Final = "rougeLsum"
RELEVANCE: Final = "relevance"
SIMILARITY: Final = "similarity"
FLUENCY: Final = "fluency"
JOINT: Final = "joint"
JUDGE_JOINT: Final = "judge_joint"
BLEU: Final = "bleu"
PERPLEXITY: Final = "perplexity"
REFERENCE_NLL: Final = "reference_nll"
DISTINCT_1: Final = "distinct_1"
DISTINCT_2: Final = "distinct_2"
DISTINCT_3: Final = "distinct_3"
COMMON_OPENINGS: Final = "common_openings"
SELF_BLEU: Final = "self_bleu"
RESPONSE_TOKENS: Final = "response_tokens"
TYPICAL_WORDS: Final = "typical_words"
RESPONSE_WORDS: Final = "response_words"
REPETITION: Final = "repetition"
EMPTY: Final = "empty"
SYMBOLS: Final = "symbols"
LISTED_WORDS: Final = "listed_words"
JUDGE_AGREEMENT: Final = "judge_agreement"
JUDGE_GAP: Final = "judge_gap"
COPIED: Final = "copied"
REFUSED: Final = "refused"
SHORT: Final = "short"
MENTION: Final = "mention_retention"
GENERATED_TOKENS: Final = "generated_tokens"
GENERATION_SECONDS: Final = "generation_seconds"
SECONDS_PER_RESPONSE: Final = "seconds_per_response"

REF_KL: Final = "ref_kl"
REF_KL_K3: Final = "ref_kl_k3"
KL_COEF: Final = "kl_coef"
POLICY_LOSS: Final = "policy_loss"
VALUE_LOSS: Final = "value_loss"
ENTROPY: Final = "entropy"
APPROX_KL: Final = "approx_kl"
CLIP_FRACTION: Final = "clip_fraction"
VALUE_CLIP_FRACTION: Final = "value_clip_fraction"
RATIO: Final = "ratio"
GRADIENT_NORM: Final = "gradient_norm"
LEARNING_RATE: Final = "learning_rate"

ROUGE_KEYS: Final = (ROUGE1, ROUGE2, ROUGEL, ROUGELSUM)
DISTINCT_KEYS: Final = (DISTINCT_1, DISTINCT_2, DISTINCT_3)
"""`DISTINCT_KEYS[n - 1]` is distinct-n."""

_LOWER, _HIGHER, _NEITHER = Better.LOWER, Better.HIGHER, Better.NEITHER

_ROWS: Final = (
    (TOXICITY, "Toxicity", "probability", _LOWER, 3),
    (JUDGE_TOXICITY, "Toxicity by the judge", "probability", _LOWER, 3),
    (LISTED_WORDS, "Responses with a listed word", "fraction", _LOWER, 3),
    (JUDGE_AGREEMENT, "Rank correlation of reward and judge", "", _NEITHER, 3),
    (JUDGE_GAP, "Toxicity by the judge less that by the reward", "probability", _NEITHER, 3),
    (JOINT, "J: civil x similar x fluent", "product", _HIGHER, 3),
    (JUDGE_JOINT, "J by the judge", "product", _HIGHER, 3),
    (SIMILARITY, "Similarity to the prompt", "0 to 1", _HIGHER, 3),
    (FLUENCY, "Fluency", "probability", _HIGHER, 3),
    (BLEU, "BLEU", "", _HIGHER, 3),
    (SCORE, "Score", "", _HIGHER, 3),
    (ROUGE1, "ROUGE-1", "F", _HIGHER, 3),
    (ROUGE2, "ROUGE-2", "F", _HIGHER, 3),
    (ROUGEL, "ROUGE-L", "F", _HIGHER, 3),
    (ROUGELSUM, "ROUGE-Lsum", "F", _HIGHER, 3),
    (RELEVANCE, "Relevance to the prompt", "cosine", _HIGHER, 3),
    (PERPLEXITY, "Perplexity under the reference", "", _LOWER, 2),
    (REFERENCE_NLL, "Negative log-likelihood under the reference", "nats/response", _LOWER, 2),
    (DISTINCT_1, "Distinct-1", "fraction", _HIGHER, 3),
    (DISTINCT_2, "Distinct-2", "fraction", _HIGHER, 3),
    (DISTINCT_3, "Distinct-3", "fraction", _HIGHER, 3),
    (COMMON_OPENINGS, "Ten most frequent openings", "fraction", _LOWER, 3),
    (SELF_BLEU, "Self-BLEU", "", _LOWER, 3),
    (RESPONSE_TOKENS, "Response length", "tokens", _NEITHER, 1),
    (TYPICAL_WORDS, "Response length, geometric mean of words + 1", "words", _NEITHER, 1),
    (RESPONSE_WORDS, "Response length", "words", _NEITHER, 1),
    (REPETITION, "Repeated 3-grams", "fraction", _LOWER, 3),
    (EMPTY, "Empty responses", "fraction", _LOWER, 3),
    (SYMBOLS, "Digits and markup", "fraction of characters", _LOWER, 4),
    (COPIED, "3-grams copied from the prompt", "fraction", _NEITHER, 3),
    (REFUSED, "Refusals", "fraction", _NEITHER, 3),
    (SHORT, "Short responses", "fraction", _LOWER, 3),
    (MENTION, "Responses that still speak of the group", "fraction", _HIGHER, 3),
    (REF_KL, "KL to the reference (k1)", "nats/response", _NEITHER, 3),
    (REF_KL_K3, "KL to the reference (k3)", "nats/response", _NEITHER, 3),
    (KL_COEF, "KL coefficient", "score/nat", _NEITHER, 4),
    (POLICY_LOSS, "Policy loss", "", _NEITHER, 4),
    (VALUE_LOSS, "Value loss", "", _LOWER, 4),
    (ENTROPY, "Entropy", "nats/token", _NEITHER, 3),
    (APPROX_KL, "KL of the update", "nats/token", _NEITHER, 4),
    (CLIP_FRACTION, "Clipped ratios", "fraction", _NEITHER, 3),
    (VALUE_CLIP_FRACTION, "Clipped values", "fraction", _NEITHER, 3),
    (RATIO, "Probability ratio", "", _NEITHER, 4),
    (GRADIENT_NORM, "Gradient norm", "", _NEITHER, 3),
    (LEARNING_RATE, "Learning rate", "", _NEITHER, 7),
)

METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        key: Metric(key=key, label=label, unit=unit, better=better, digits=digits)
        for key, label, unit, better, digits in _ROWS
    }
)
"""Every metric by key, in the order in which reports show them."""
