"""Trainers of stage=sft: Transformers' for encoder-decoders, TRL's for decoders."""

import sys
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from torch import nn
from transformers import (
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from lora_detox.builders.examples import Example
from lora_detox.policy.policy import LoraPolicy
from lora_detox.settings import Settings
from lora_detox.trainers.arguments import TrainingLog, complete_trainer, trainer_arguments
from lora_detox.trainers.lengths import grouped_by_length


def make_trainer(
    policy: LoraPolicy, examples: list[Example], settings: Settings, log: TrainingLog
) -> Any:
    """The trainer of the policy's family, over the adapter alone.

    Args:
        policy: whose adapter learns.
        examples: as from `training_examples`.
        settings: numbers of `sft`.
        log: of the run.

    Returns:
        A Transformers trainer, ready to train.
    """
    arguments = trainer_arguments(
        settings,
        settings.sft,
        len(examples),
        accumulation=settings.sft.gradient_accumulation,
        use_cpu=policy.device.type == "cpu",
    ) | {
        "max_grad_norm": settings.sft.max_grad_norm,
        "bf16": False,  # the policy's dtype is set where it is loaded
        "fp16": False,
        "remove_unused_columns": False,
    }
    if not sys.stderr.isatty():  # a log file would hold every state of their bars
        disable_progress_bars()
    make = _seq2seq_trainer if policy.backbone.config.is_encoder_decoder else _decoder_trainer
    trainer = make(policy, Dataset.from_list(examples), settings, arguments)
    return complete_trainer(trainer, settings, log)


def _kind(trainer: Any, settings: Settings) -> Any:
    return grouped_by_length(trainer) if settings.sft.group_by_length else trainer


def _seq2seq_trainer(
    policy: LoraPolicy, examples: Dataset, settings: Settings, arguments: dict[str, Any]
) -> Any:
    return _kind(Seq2SeqTrainer, settings)(
        model=policy.model,
        args=Seq2SeqTrainingArguments(**arguments, label_names=["labels"]),
        train_dataset=examples,
        data_collator=DataCollatorForSeq2Seq(policy.tokenizer, model=policy.backbone),
    )


def _decoder_trainer(
    policy: LoraPolicy, examples: Dataset, settings: Settings, arguments: dict[str, Any]
) -> Any:
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415 - slow to import

    return _kind(SFTTrainer, settings)(
        model=policy.model,
        args=SFTConfig(
            **arguments,
            completion_only_loss=True,
            max_length=None,
            packing=False,
            gradient_checkpointing=settings.policy.gradient_checkpointing,
        ),
        train_dataset=examples,
        processing_class=policy.tokenizer,
    )


@torch.no_grad()
def mean_loss(policy: LoraPolicy, examples: list[Example], batch_size: int) -> float:
    """Cross-entropy per target token, nats, over all examples.

    Args:
        policy: in evaluation mode.
        examples: as from `training_examples`.
        batch_size: examples per forward pass.

    Returns:
        The mean over tokens, however the examples are batched.
    """
    total, tokens = 0.0, 0
    pad = policy.pad_token_id
    for first in range(0, len(examples), batch_size):
        batch = examples[first : first + batch_size]
        ids = _padded([one["input_ids"] for one in batch], pad)
        mask = _padded([[1] * len(one["input_ids"]) for one in batch], 0)
        if "labels" in batch[0]:
            labels = _padded([one["labels"] for one in batch], -100)
        else:
            taken = _padded([one["completion_mask"] for one in batch], 0)
            labels = ids.masked_fill(taken == 0, -100)
        inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        logits = policy.model(**{k: v.to(policy.device) for k, v in inputs.items()}).logits
        if "labels" not in batch[0]:  # a decoder predicts the next token
            logits, labels = logits[:, :-1], labels[:, 1:]
        loss = nn.functional.cross_entropy(
            logits.float().flatten(0, 1), labels.to(policy.device).flatten(), reduction="sum"
        )
        total, tokens = total + float(loss), tokens + int((labels != -100).sum())
    return total / max(1, tokens)


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
