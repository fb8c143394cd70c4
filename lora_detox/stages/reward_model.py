"""stage=reward_model: fine-tune a sequence classifier that then serves as reward or judge."""

import gc
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, TaskType, get_peft_model
from rich.console import Console
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from lora_detox.builders.labelled import LabelledTexts, labelled_splits, test_set
from lora_detox.clock import Clock
from lora_detox.environment import device_name, peak_memory, prepare_process, versions
from lora_detox.errors import ScorerError, SettingsError
from lora_detox.machine import resolve_device
from lora_detox.metrics.classification import classification_figures, identity_gap
from lora_detox.prompts.progress import with_progress
from lora_detox.report.jsonl import MetricsLog, plain, write_json_atomic, write_text_atomic
from lora_detox.report.tables import Table, print_table, write_page
from lora_detox.report.wording import number
from lora_detox.run.checkpoint import newest_trainer_checkpoint
from lora_detox.run.resume import check_same_settings
from lora_detox.scores import ClassifierScorer, probe_scorer
from lora_detox.scores.loading import load_error, resolve_classifier
from lora_detox.settings import ClassifierTraining, Settings, settings_yaml
from lora_detox.trainers.arguments import complete_trainer, train_from_newest, trainer_arguments
from lora_detox.trainers.checkpoints import kept_figures

_KEY = "reward_model"
_COLUMNS = (
    ("n", "texts", 0),
    ("accuracy", "accuracy", 3),
    ("f1", "F1", 3),
    ("auc", "AUC", 3),
    ("calibration_error", "calibration error", 3),
    ("false_positive_rate", "false positives", 3),
)


def run(settings: Settings) -> tuple[float, ...]:
    """Measure, fine-tune, save, and measure what was saved through the scorer that will use it.

    Args:
        settings: composed and checked.

    Returns:
        1 - AUC on the test split of `data`, to minimise.

    Raises:
        DetoxError: what cannot work, before weights load; or a saved classifier that does not
            tell insults from courtesies.
    """
    prepare_process(settings.threads)
    torch.manual_seed(settings.seed)
    check_same_settings(settings, Path(settings.run_dir))
    clock, device, run_dir = Clock(), resolve_device(settings.device), Path(settings.run_dir)
    place = resolve_classifier(settings.reward_model.path, _KEY, settings.reward_model.revision)
    civil, id2label = _labels(place, settings)
    splits = labelled_splits(settings)
    sets = {"test": splits["test"]} | {
        name: test_set(name, path, settings)
        for name, path in settings.reward_model.test_sets.items()
    }
    before = _before(place, id2label[civil], sets, settings, device)
    write_text_atomic(run_dir / "config.yaml", settings_yaml(settings))
    folder = run_dir / "classifier"
    with clock("update"):
        facts = _train(place, (civil, id2label), splits["train"], settings, device, folder)
    after = _figures(str(folder), id2label[civil], sets, settings, device)
    scorer = ClassifierScorer(str(folder), label=id2label[civil], device=device, key=_KEY)
    probe = probe_scorer(scorer, _KEY) if settings.reward.probe else None
    summary = {
        "schema": 1,
        "stage": "reward_model",
        "path": settings.reward_model.path,
        "data": settings.data.path,
        "seed": settings.seed,
        "labels": {str(index): name for index, name in id2label.items()},
        "civil": id2label[civil],
        "training": settings.reward_model.training.value,
        "examples": {name: len(split.texts) for name, split in splits.items()},
        "before": before,
        "after": after,
        **({} if probe is None else {"probe": vars(probe)}),
        "scorer": scorer.scorer_id,
        **facts,
        "seconds": {"total": clock.elapsed(), **clock.total},
        "peak_memory_bytes": peak_memory(device),
        "device": device_name(device),
        "versions": versions(),
    }
    _write(settings, plain(summary), folder)
    return (1 - float(after["test"].get("auc", 0.0)),)


def _before(
    place: str, civil: str, sets: dict[str, LabelledTexts], settings: Settings, device: torch.device
) -> dict[str, Any]:
    """Figures of the classifier as it starts, none where its head is new; kept for a resume."""
    kept = Path(settings.run_dir) / "checkpoints" / "before.json"
    before = kept_figures(kept) if settings.resume else None
    if before is None:
        keeps_head = _has_labels(place) and not settings.reward_model.new_head
        before = _figures(place, civil, sets, settings, device) if keeps_head else {}
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(kept, before)
    return before


def _labels(place: str, settings: Settings) -> tuple[int, dict[int, str]]:
    """Which output is civil, and the names: those of the classifier where it has them."""
    model = settings.reward_model
    if len(set(model.labels)) != 2:
        raise SettingsError(f"{_KEY}.labels: got {model.labels}, want two names: [civil, toxic]")
    civil, toxic = model.labels
    try:
        config: Any = AutoConfig.from_pretrained(place, revision=model.revision)
    except Exception as error:
        raise load_error(model.path, _KEY, error) from error
    known = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    if _has_labels(place) and len(known) == 2 and not model.new_head:
        names = {name.lower(): index for index, name in known.items()}
        if civil.lower() in names and toxic.lower() in names:
            return names[civil.lower()], known
        raise ScorerError(
            f"{model.path} has the labels {', '.join(known.values())}, want those of "
            f"`{_KEY}.labels`={[civil, toxic]}; name its own there, the civil one first, or give "
            f"them up with `{_KEY}.new_head=true`"
        )
    return 0, {0: civil, 1: toxic}


def _has_labels(place: str) -> bool:
    """Whether the start is a trained classifier rather than an encoder."""
    architectures = AutoConfig.from_pretrained(place).architectures or []
    return any("SequenceClassification" in name for name in architectures)


def _figures(
    path: str,
    civil: str,
    sets: dict[str, LabelledTexts],
    settings: Settings,
    device: torch.device,
) -> dict[str, Any]:
    scorer = ClassifierScorer(
        path, label=civil, batch_size=settings.reward.batch_size, device=device, key=_KEY
    )
    found: dict[str, Any] = {}
    for name, one in sets.items():
        toxicity = scorer.score([""] * len(one.texts), one.texts).toxicity.tolist()
        found[name] = classification_figures(toxicity, one.toxic)
        gap = identity_gap(
            toxicity, one.toxic, one.identities, least=settings.reward_model.identity_least
        )
        if gap is not None:
            found[name]["identity_gap"] = gap
    return found


def _train(
    place: str,
    labels: tuple[int, dict[int, str]],
    texts: LabelledTexts,
    settings: Settings,
    device: torch.device,
    folder: Path,
) -> dict[str, Any]:
    """Fine-tune and save; returns steps and the number of weights that learned."""
    model_settings, (civil, id2label) = settings.reward_model, labels
    tokenizer = AutoTokenizer.from_pretrained(place, revision=model_settings.revision)
    model = AutoModelForSequenceClassification.from_pretrained(
        place,
        revision=model_settings.revision,
        num_labels=2,
        id2label=id2label,
        label2id={name: index for index, name in id2label.items()},
        dtype=torch.float32,
        use_safetensors=True,
    ).to(device)
    if model_settings.new_head:
        _forget_head(model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    if model_settings.training is ClassifierTraining.lora:
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=model_settings.rank,
            lora_alpha=2 * model_settings.rank,
            target_modules="all-linear",
        )
        model = get_peft_model(model, config)
    rows = _rows(texts, tokenizer, civil, model_settings.max_tokens)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    use_cpu = device.type == "cpu"
    arguments = trainer_arguments(settings, model_settings, len(rows), use_cpu=use_cpu)
    with MetricsLog(
        Path(settings.run_dir) / "metrics.jsonl", keep_through=_behind(settings)
    ) as log:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(**arguments),
            train_dataset=Dataset.from_list(rows),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        train_from_newest(complete_trainer(trainer, settings, log.write), settings)
    steps = int(trainer.state.global_step)
    if model_settings.training is ClassifierTraining.lora:
        model = model.merge_and_unload()
    model.eval().save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    del model, trainer
    gc.collect()
    return {"iterations": steps, "parameters": {"trainable": trainable}}


def _rows(texts: LabelledTexts, tokenizer: Any, civil: int, most: int) -> list[dict[str, Any]]:
    """Ids and label of each text."""
    labels = [1 - civil if toxic else civil for toxic in texts.toxic]
    said = with_progress(texts.texts, "tokenizing", len(texts.texts))
    encoded = (tokenizer(text, truncation=True, max_length=most)["input_ids"] for text in said)
    return [{"input_ids": i, "labels": label} for i, label in zip(encoded, labels, strict=True)]


def _behind(settings: Settings) -> int | None:
    """Optimizer steps whose rows of metrics.jsonl stay when a run is resumed."""
    newest = newest_trainer_checkpoint(Path(settings.run_dir) / "checkpoints")
    return (newest[0] if newest else -1) if settings.resume else None


def _forget_head(model: Any) -> None:
    """Draw the weights above the encoder anew."""
    for name, child in model.named_children():
        if name != model.base_model_prefix:
            for module in child.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()


def _write(settings: Settings, summary: dict[str, Any], folder: Path) -> None:
    run_dir, rows = Path(settings.run_dir), []
    for when in ("before", "after"):
        for name, figures in summary[when].items():
            gap = figures.get("identity_gap") or {}
            cells = [number(figures.get(key), digits) for key, _, digits in _COLUMNS]
            rows.append([name, when, *cells, number(gap.get("gap"), 3)])
    table = Table(
        columns=["set", "when", *(label for _, label, _ in _COLUMNS), "identity gap"], rows=rows
    )
    notes = [
        "Toxic is the positive class, from a probability of 0.5 on. The identity gap is the "
        "largest minus the smallest false-positive rate over identities that civil texts mention.",
        f"Use it: reward=local reward.path={folder} reward.label={summary['civil']}",
    ]
    write_page(
        run_dir / "report.html",
        title="Reward model",
        tables=[table],
        notes=notes,
        settings_yaml=settings_yaml(settings),
    )
    write_json_atomic(run_dir / "summary.json", summary)
    print_table(table, notes, run_dir, Console(highlight=False))
