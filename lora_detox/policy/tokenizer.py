"""The policy's tokenizer, as its family and its batches need it."""

import os

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from lora_detox.errors import SettingsError
from lora_detox.policy.families import family_of
from lora_detox.policy.preflight import BackbonePlan


def load_tokenizer(plan: BackbonePlan, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """The policy's tokenizer, padded as its family needs, with a pad token."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        os.path.expanduser(plan.path), revision=plan.revision
    )
    tokenizer.padding_side = family_of(config).padding_side
    if tokenizer.eos_token_id is None:
        raise SettingsError(
            f"policy.path: the tokenizer of {plan.path} has no end-of-sequence token"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
