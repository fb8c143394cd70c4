"""Transformers' own processors in the order of its `generate`: what sampling is compared with."""

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lora_detox.types import Sampling


def library_logits(logits: Tensor, position: int, sampling: Sampling, eos_token_id: int) -> Tensor:
    """Raw logits [N, V] before the token at `position` -> those that the library draws from."""
    steps = LogitsProcessorList()
    if sampling.min_new_tokens:
        steps.append(
            MinNewTokensLengthLogitsProcessor(0, sampling.min_new_tokens, eos_token_id, "cpu")
        )
    if sampling.temperature != 1:
        steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    written = torch.zeros(len(logits), position, dtype=torch.long)
    return steps(written, logits.clone())
