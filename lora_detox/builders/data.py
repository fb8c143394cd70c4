"""Settings -> prompts: rows read, filtered and split, then encoded as the policy reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lora_detox.chat import ChatFormat
from lora_detox.prompts import PromptRow, PromptSets
from lora_detox.prompts.batching import PromptSampler, fixed_batches, repeat_prompts
from lora_detox.prompts.templates import PromptTemplate, parse_template
from lora_detox.settings import Settings
from lora_detox.types import PromptBatch


def prompt_template(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
    """What stands around each prompt: `task.template`, with task.chat within the chat template."""
    task = settings.task
    return parse_template(
        task.template, chat=ChatFormat(tokenizer, task.system) if task.chat else None
    )


@dataclass(frozen=True, kw_only=True)
class EncodedPrompts:
    """Prompts as token ids, on the CPU.

    Attributes:
        train: draws the prompts of each iteration.
        validation: those that every state of training is compared on.
        test: those of before and after; in both a prompt stands as often as it is answered.
        audit: prompts about groups of people, answered before and after; None without an audit.
    """

    train: PromptSampler
    validation: PromptBatch
    test: PromptBatch
    audit: PromptBatch | None = None

    def to(self, device: torch.device) -> "EncodedPrompts":
        """Validation and test prompts on a device; those of an iteration follow one by one."""
        return EncodedPrompts(
            train=self.train,
            validation=self.validation.to(device),
            test=self.test.to(device),
            audit=None if self.audit is None else self.audit.to(device),
        )


def encode_prompts(
    settings: Settings,
    data: PromptSets,
    tokenizer: PreTrainedTokenizerBase,
    *,
    encoder_decoder: bool,
    audit: Sequence[PromptRow] = (),
) -> EncodedPrompts:
    """Encode training prompts by iteration, validation, test and audit prompts once and for all.

    Args:
        settings: composed and checked.
        data: rows of the three splits.
        tokenizer: of the policy, padded as its family needs.
        encoder_decoder: whether the tokenizer adds its special tokens to a prompt.
        audit: rows about groups of people, which are not cut to `data.query_tokens`.

    Returns:
        The prompts, with the template and the cuts of the settings.
    """
    group, algorithm, evaluation = settings.data, settings.algorithm, settings.evaluation
    common: dict[str, Any] = {
        "template": prompt_template(settings, tokenizer),
        "max_query_tokens": group.max_query_tokens,
        "query_tokens": None if group.query_tokens is None else tuple(group.query_tokens),
        "padding_side": tokenizer.padding_side,
        "add_special_tokens": encoder_decoder,
    }
    train = PromptSampler(
        data.train,
        tokenizer,
        batch_size=algorithm.rollout_batch_size // algorithm.responses_per_prompt,
        seed=settings.seed,
        **common,
    )
    (validation,), (test,) = (
        fixed_batches(rows, tokenizer, count=count, batch_size=count, **common)
        for rows, count in (
            (data.validation, evaluation.validation_prompts),
            (data.test, evaluation.test_prompts),
        )
    )
    return EncodedPrompts(
        train=train,
        validation=repeat_prompts(validation, evaluation.validation_samples),
        test=repeat_prompts(test, evaluation.samples_per_prompt),
        audit=_audit_batch(audit, tokenizer, common),
    )


def _audit_batch(
    rows: Sequence[PromptRow], tokenizer: PreTrainedTokenizerBase, common: Mapping[str, Any]
) -> PromptBatch | None:
    if not rows:
        return None
    whole = {**common, "query_tokens": None}  # whom a prompt is about may stand at its end
    return fixed_batches(rows, tokenizer, batch_size=len(rows), **whole)[0]
