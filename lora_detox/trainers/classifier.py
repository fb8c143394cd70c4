"""Fine-tuning of a sequence classifier, whole or by LoRA, with Transformers' trainer."""

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from lora_detox.builders.labelled import LabelledTexts
from lora_detox.choices import ClassifierTraining, Dtype
from lora_detox.errors import ScorerError, SettingsError
from lora_detox.machine import autocast_gains
from lora_detox.model_files import NO_CODE
from lora_detox.policy.anatomy import layer_list
from lora_detox.progress import track
from lora_detox.report.jsonl import MetricsLog
from lora_detox.run.manifest import TRAINER_PREFIX, number_of
from lora_detox.run.origin import METRICS, Resumed, checkpoint_files, restore_rows
from lora_detox.run.room import check_room
from lora_detox.scores.loading import (
    agree_on_padding,
    check_finite,
    check_weight_files,
    classifier_keys,
    load_error,
    read_model_config,
)
from lora_detox.scores.windows import position_limit_of
from lora_detox.settings import RewardModelSettings, Settings
from lora_detox.trainers.arguments import (
    Row,
    complete_trainer,
    train_from_newest,
    trainer_arguments,
)
from lora_detox.trainers.lengths import grouped_by_length

_KEY = "reward_model"
CLASSIFIER = "classifier"
"""Folder of the run folder that the trained classifier is saved in."""


def classifier_labels(place: str, settings: Settings) -> tuple[int, dict[int, str]]:
    """Which output is civil, and the names: those of the classifier where it has them."""
    model = settings.reward_model
    if len(set(model.labels)) != 2:
        raise SettingsError(f"{_KEY}.labels: got {model.labels}, want two names: [civil, toxic]")
    civil, toxic = model.labels
    config = _config_of(place, settings)
    known = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    if has_trained_head(place, settings) and len(known) == 2 and not model.new_head:
        names = {name.lower(): index for index, name in known.items()}
        if civil.lower() in names and toxic.lower() in names:
            return names[civil.lower()], known
        raise ScorerError(
            f"{model.path} has the labels {', '.join(known.values())}, want those of "
            f"`{_KEY}.labels`={[civil, toxic]}; name its own there, the civil one first, or give "
            f"them up with `{_KEY}.new_head=true`"
        )
    ordered = [civil, toxic] if model.civil_index == 0 else [toxic, civil]
    return model.civil_index, dict(enumerate(ordered))


def _config_of(place: str, settings: Settings) -> Any:
    model = settings.reward_model
    return read_model_config(model.path, place, model.revision, classifier_keys(_KEY))


def has_trained_head(place: str, settings: Settings) -> bool:
    """Whether the start is a trained classifier rather than an encoder."""
    architectures = _config_of(place, settings).architectures or []
    return any("SequenceClassification" in name for name in architectures)


def fine_tune_classifier(
    place: str,
    labels: tuple[int, dict[int, str]],
    texts: LabelledTexts,
    settings: Settings,
    device: torch.device,
    begun: tuple[Resumed, Mapping[str, Any]],
) -> dict[str, Any]:
    """Fine-tune and save under `classifier/` of the run folder.

    Args:
        place: folder or hub id of the start.
        labels: from `classifier_labels`.
        texts: training texts with their labels.
        settings: `reward_model`, run folder and checkpoints are read.
        device: where it learns.
        begun: what it goes on from, and the record of its beginning for its checkpoints.

    Returns:
        Entries for the summary: optimizer steps, and the number of weights that learned.
    """
    civil, id2label = labels
    group, run_dir = settings.reward_model, Path(settings.run_dir)
    model, tokenizer = _trainable_classifier(place, id2label, group, device)
    limit = position_limit_of(model)
    most = group.max_tokens if limit is None else min(group.max_tokens, limit)
    rows = _rows(texts, tokenizer, civil, most)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    check_room(settings, _checkpoint_bytes(model))
    arguments = trainer_arguments(settings, group, len(rows), use_cpu=device.type == "cpu")
    arguments["bf16"] = _in_bf16(group, model, device)
    resumed, record = begun
    restore_rows(resumed, run_dir)
    with MetricsLog(run_dir / METRICS, keep_through=_steps_behind(settings, resumed)) as rows_log:
        log = _ClassifierLog(rows_log, record)
        trainer = (grouped_by_length(Trainer) if group.group_by_length else Trainer)(
            model=model,
            args=TrainingArguments(**arguments),
            train_dataset=Dataset.from_list(rows),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        train_from_newest(complete_trainer(trainer, settings, log), settings)
    steps = int(trainer.state.global_step)
    if group.training is ClassifierTraining.lora:
        model = model.merge_and_unload()
    model.eval().save_pretrained(run_dir / CLASSIFIER, safe_serialization=True)
    tokenizer.save_pretrained(run_dir / CLASSIFIER)
    del model, trainer
    gc.collect()
    return {"iterations": steps, "parameters": {"trainable": trainable}}


def _trainable_classifier(
    place: str, id2label: dict[int, str], group: RewardModelSettings, device: torch.device
) -> tuple[Any, Any]:
    """Model and tokenizer; all weights learn, or a LoRA adapter on every linear layer."""
    keys = classifier_keys(_KEY)
    check_weight_files(place, group.revision, keys)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=group.revision, **NO_CODE)
        model = AutoModelForSequenceClassification.from_pretrained(
            place,
            revision=group.revision,
            num_labels=2,
            id2label=id2label,
            label2id={name: index for index, name in id2label.items()},
            dtype=torch.float32,
            use_safetensors=True,
            **NO_CODE,
        )
    except Exception as error:
        raise load_error(group.path, _KEY, error) from error
    check_finite(model, group.path, keys)
    model = model.to(device)
    if group.new_head:
        _draw_new_head(model)
    agree_on_padding(model, tokenizer)
    model.config.pad_token_id = tokenizer.pad_token_id
    if group.training is ClassifierTraining.lora:
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=group.rank,
            lora_alpha=2 * group.rank,
            target_modules="all-linear",
        )
        model = get_peft_model(model, config)
    elif group.frozen_layers is not None:
        _freeze(model, group.frozen_layers)
    return model, tokenizer


def _freeze(model: Any, count: int) -> None:
    """Keep the embeddings and the lowest layers as they are.

    Args:
        model: a sequence classifier.
        count: of layers, from the embeddings up; 0 freezes these alone.

    Raises:
        SettingsError: the encoder has no list of that many layers.
    """
    encoder = getattr(model, model.base_model_prefix)
    frozen = [getattr(encoder, "embeddings", None) or encoder.get_input_embeddings()]
    if count:
        try:
            owner, name = layer_list(encoder)
        except ValueError as error:
            raise SettingsError(f"{_KEY}.frozen_layers={count}: {error}; want 0 or null") from error
        layers = getattr(owner, name)
        if count > len(layers):
            raise SettingsError(f"{_KEY}.frozen_layers: got {count}, want at most {len(layers)}")
        frozen += layers[:count]
    for module in frozen:
        module.requires_grad_(False)


def _in_bf16(group: RewardModelSettings, model: Any, device: torch.device) -> bool:
    """Whether products are in bf16 (autocast)."""
    if group.dtype is Dtype.auto:
        return autocast_gains(device, model.config.hidden_size)
    return group.dtype is Dtype.bfloat16


def _rows(texts: LabelledTexts, tokenizer: Any, civil: int, most: int) -> list[dict[str, Any]]:
    """Ids and label of each text."""
    labels = [1 - civil if toxic else civil for toxic in texts.toxic]
    shown = track(texts.texts, "tokenizing", len(texts.texts))
    encoded = (tokenizer(text, truncation=True, max_length=most)["input_ids"] for text in shown)
    return [{"input_ids": i, "labels": label} for i, label in zip(encoded, labels, strict=True)]


def _checkpoint_bytes(model: Any) -> int:
    """Of a trainer's checkpoint: the model, and AdamW's moments and a copy of what learns."""
    sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()]
    return sum(size + 3 * size * learns for size, learns in sizes)


class _ClassifierLog:
    """metrics.jsonl of a classifier's training, with what its checkpoints hold of the run."""

    def __init__(self, rows: MetricsLog, record: Mapping[str, Any]) -> None:
        self._rows, self._record = rows, record

    def write(self, row: Row) -> None:
        self._rows.write(row)

    def files(self) -> dict[str, bytes]:
        return checkpoint_files(self._record, self._rows)


def _steps_behind(settings: Settings, resumed: Resumed) -> int | None:
    """Optimizer steps whose rows of metrics.jsonl stay when a run is resumed."""
    if not settings.resume:
        return None
    return -1 if resumed.checkpoint is None else number_of(resumed.checkpoint, TRAINER_PREFIX)


def _draw_new_head(model: Any) -> None:
    """Draw the weights above the encoder anew."""
    for name, child in model.named_children():
        if name != model.base_model_prefix:
            for module in child.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
