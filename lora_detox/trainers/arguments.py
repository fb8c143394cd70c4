"""What the trainers of stage=sft and stage=reward_model share: numbers, log, checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PrinterCallback, TrainerCallback

from lora_detox.choices import Stage
from lora_detox.run.checkpoint import newest_trainer_checkpoint
from lora_detox.settings import RewardModelSettings, Settings, SftSettings
from lora_detox.trainers.checkpoints import (
    ExactCheckpoints,
    steps_between,
    training_steps,
)

Row = dict[str, Any]
_RESUMABLE = (Stage.sft, Stage.reward_model)
"""Stages that a trainer is all of; within another one it starts anew after an interruption."""


class LossLog(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Shows how far a trainer is, and hands what it logs on as rows of metrics.jsonl.

    Args:
        record: called with each row; `iteration` is the number of optimizer steps.
    """

    def __init__(self, record: Callable[[Row], None]) -> None:
        self._record = record

    def on_log(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Pass on the loss, the learning rate and the gradient norm."""
        logs = keywords.get("logs") or {}
        names = {"loss": "loss", "grad_norm": "gradient_norm", "learning_rate": "learning_rate"}
        numbers = {ours: float(logs[theirs]) for theirs, ours in names.items() if theirs in logs}
        if numbers and state.global_step:
            loss = f"loss {numbers['loss']:.3f}" if "loss" in numbers else ""
            line = f"{state.global_step}/{state.max_steps}  {loss}"
            Console(highlight=False).print(line, markup=False)
            self._record({"iteration": int(state.global_step), **numbers})


def trainer_arguments(
    settings: Settings,
    group: SftSettings | RewardModelSettings,
    examples: int,
    *,
    accumulation: int = 1,
    use_cpu: bool,
) -> dict[str, Any]:
    """What every trainer is told, from settings.

    Args:
        settings: seed, run directory and checkpoints are read.
        group: `sft` or `reward_model`.
        examples: in the training set.
        accumulation: forward passes per optimizer step.
        use_cpu: whether the model is on a CPU.

    Returns:
        Keywords of TrainingArguments.
    """
    every = settings.checkpoint.every if settings.stage in _RESUMABLE else 0
    steps = training_steps(
        examples,
        epochs=group.epochs,
        batch=group.batch_size * accumulation,
        max_steps=group.max_steps,
    )
    return {
        "output_dir": str(Path(settings.run_dir) / "checkpoints"),
        "num_train_epochs": group.epochs,
        "max_steps": group.max_steps or -1,
        "learning_rate": group.learning_rate,
        "lr_scheduler_type": group.schedule.value,
        "warmup_steps": group.warmup_steps,
        "weight_decay": group.weight_decay,
        "per_device_train_batch_size": group.batch_size,
        "gradient_accumulation_steps": accumulation,
        "logging_steps": group.log_every,
        "save_strategy": "steps" if every else "no",
        "save_steps": steps_between(every, steps) if every else 1,
        "report_to": [],
        "seed": settings.seed,
        "data_seed": settings.seed,
        "use_cpu": use_cpu,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def complete_trainer(trainer: Any, settings: Settings, record: Callable[[Row], None]) -> Any:
    """Give a trainer our log and exact checkpoints.

    Args:
        trainer: of Transformers or TRL.
        settings: run directory, checkpoints and `resume` are read.
        record: takes rows of metrics.jsonl.

    Returns:
        The trainer.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LossLog(record))
    folder, newest = _checkpoint_folder(settings), _newest(settings)
    trainer.add_callback(ExactCheckpoints(trainer.model, folder, settings.checkpoint.keep, newest))
    return trainer


def train_from_newest(trainer: Any, settings: Settings) -> None:
    """Train, from the newest whole checkpoint where a run is resumed.

    Args:
        trainer: as from `complete_trainer`.
        settings: run directory and `resume` are read.
    """
    newest = _newest(settings)
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))


def _checkpoint_folder(settings: Settings) -> Path:
    return Path(settings.run_dir) / "checkpoints"


def _newest(settings: Settings) -> Path | None:
    newest = None
    if settings.resume and settings.stage in _RESUMABLE:
        newest = newest_trainer_checkpoint(_checkpoint_folder(settings))
    return newest[1] if newest else None
