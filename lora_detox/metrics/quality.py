"""What a rollout shows of quality: what budget and collapse guard are driven by."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lora_detox.metrics import kl, names
from lora_detox.metrics.diversity import distinct_n, lettered_words, repetition, symbols
from lora_detox.metrics.overlap import rouge_per_response
from lora_detox.metrics.perplexity import reference_perplexity
from lora_detox.types import Rollout


@dataclass(frozen=True, kw_only=True)
class RolloutQuality:
    """Measures of one rollout.

    Attributes:
        measures: names of `metrics.names` to means over the rollout; what does not apply is absent.
        per_response: names of those that are means over responses to one number of each [B]:
            digits and markup, ROUGE-L with references, relevance and similarity where they were
            measured.
    """

    measures: dict[str, float]
    per_response: dict[str, Float[Tensor, "B"]]


def rollout_quality(
    rollout: Rollout,
    relevance: Float[Tensor, "B"] | None = None,
    similarity: Float[Tensor, "B"] | None = None,
) -> RolloutQuality:
    """Measure the responses that training sampled.

    Args:
        rollout: B responses.
        relevance: cosine of each response and its prompt [B]; None where it is not measured.
        similarity: the reward's number of that, in [0, 1] [B]; None where it is not bound.

    Returns:
        ROUGE-L where there are references, the perplexity under the reference elsewhere.
    """
    mask, texts, references = rollout.response_mask, rollout.response_texts, rollout.prompts
    lengths = mask.sum(dim=1).tolist()
    k1 = kl.response_sums(kl.k1(rollout.logprobs, rollout.ref_logprobs), mask).mean()
    distinct = distinct_n(texts, 2)
    measures = {
        names.REF_KL: float(k1),
        names.RESPONSE_TOKENS: sum(lengths) / len(lengths),
        names.TYPICAL_WORDS: math.exp(
            sum(math.log1p(lettered_words(t)) for t in texts) / len(texts)
        ),
        names.DISTINCT_2: 0.0 if math.isnan(distinct) else distinct,  # NaN: not one bigram
        names.REPETITION: sum(map(repetition, texts)) / len(texts),
    }
    signs = torch.tensor([symbols(text) for text in texts], device=mask.device)
    per_response = {names.SYMBOLS: signs}
    if any(references.references):
        rouge_l = rouge_per_response(texts, references.references)[names.ROUGEL]
        per_response[names.ROUGEL] = torch.tensor(rouge_l, device=mask.device).nan_to_num(0.0)
    else:
        nll = (-rollout.ref_logprobs * mask).sum(dim=1).tolist()
        measures[names.PERPLEXITY] = reference_perplexity(nll, lengths)
    for name, nearness in ((names.RELEVANCE, relevance), (names.SIMILARITY, similarity)):
        if nearness is not None:
            per_response[name] = nearness.to(mask.device)
    means = {name: float(values.mean()) for name, values in per_response.items()}
    return RolloutQuality(measures={**measures, **means}, per_response=per_response)
