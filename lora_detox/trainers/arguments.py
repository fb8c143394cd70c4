"""What the trainers of stage=sft and stage=reward_model share: numbers, log, checkpoints."""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from transformers import PrinterCallback, TrainerCallback, TrainerState

from lora_detox.choices import Stage
from lora_detox.run.manifest import (
    MANIFEST,
    TRAINER_PREFIX,
    checkpoints,
    newest_trainer_checkpoint,
    remove,
)
from lora_detox.settings import RewardModelSettings, Settings, SftSettings
from lora_detox.signals import Interrupted, asked_to_end, deferring
from lora_detox.trainers.checkpoints import (
    ExactCheckpoints,
    steps_between,
    training_steps,
)

Row = dict[str, Any]
_RESUMABLE = (Stage.sft, Stage.reward_model)
"""Stages that a trainer is all of; within another one it starts anew after an interruption."""


class TrainingLog(Protocol):
    """Where the rows of a training go, and what its checkpoints hold of the run."""

    def write(self, row: Row) -> None:
        """Take a row of metrics.jsonl; `iteration` is the number of optimizer steps."""

    def files(self) -> Mapping[str, bytes]:
        """What a checkpoint holds beside the weights, by name."""


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


class OrderlyEnd(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Has a trainer write a checkpoint when one is due by the clock, and when a signal ends it.

    Args:
        every_minutes: after the last checkpoint; None leaves that to the trainer.
    """

    def __init__(self, every_minutes: float | None) -> None:
        self._every, self._saved_at = every_minutes, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Look at the clock, and for a signal."""
        late = time.monotonic() - self._saved_at
        if self._every is not None and late >= 60 * self._every:
            control.should_save = True
        if asked_to_end():
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """The clock starts anew."""
        self._saved_at = time.monotonic()


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


def complete_trainer(trainer: Any, settings: Settings, log: TrainingLog) -> Any:
    """Give a trainer our log and exact checkpoints.

    Args:
        trainer: of Transformers or TRL.
        settings: run directory, checkpoints and `resume` are read.
        log: of the run.

    Returns:
        The trainer.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LossLog(log.write))
    folder, newest = _checkpoint_folder(settings), _newest(settings)
    if settings.stage in _RESUMABLE:
        trainer.add_callback(OrderlyEnd(settings.checkpoint.every_minutes))
    keep = settings.checkpoint.keep
    trainer.add_callback(ExactCheckpoints(trainer.model, folder, keep, newest, log.files))
    return trainer


def train_from_newest(trainer: Any, settings: Settings) -> None:
    """Train, from the newest whole checkpoint where a run is resumed.

    Args:
        trainer: as from `complete_trainer`.
        settings: run directory and `resume` are read.

    Raises:
        Interrupted: a signal has come; a checkpoint is written.
    """
    newest = _newest(settings)
    folder = _checkpoint_folder(settings)
    if newest is not None and _is_done(trainer, newest):
        return
    try:
        with deferring() if settings.stage in _RESUMABLE else nullcontext():
            trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    except Exception:
        for one in checkpoints(folder, TRAINER_PREFIX):
            if not (one / MANIFEST).exists():  # half of one, as on a full disk
                remove(one)
        raise
    if (name := asked_to_end()) is not None:
        stop = Interrupted(name)
        steps = f"step {trainer.state.global_step} of {trainer.state.max_steps}"
        stop.where = f" after {steps}, kept in {folder}"
        raise stop


def _is_done(trainer: Any, newest: Path) -> bool:
    """Whether a checkpoint is that of the last step; its weights and state are taken then.

    Asked to go on from its end, the trainer of Transformers takes another step.
    """
    state = TrainerState.load_from_json(str(newest / "trainer_state.json"))
    if not 0 < state.max_steps <= state.global_step:
        return False
    trainer._load_from_checkpoint(str(newest))
    trainer.state = state
    return True


def _checkpoint_folder(settings: Settings) -> Path:
    return Path(settings.run_dir) / "checkpoints"


def _newest(settings: Settings) -> Path | None:
    newest = None
    if settings.resume and settings.stage in _RESUMABLE:
        newest = newest_trainer_checkpoint(_checkpoint_folder(settings))
    return newest[1] if newest else None
