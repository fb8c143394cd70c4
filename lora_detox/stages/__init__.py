"""What `stage=` names: one module each, with a function `run(settings)`."""

import importlib
import logging
from pathlib import Path

from lora_detox.choices import RolloutEngine, Stage, TrainerKind
from lora_detox.disk import naming_disk_faults
from lora_detox.errors import SettingsError
from lora_detox.fitting import naming_memory_faults, remembering
from lora_detox.processes import processes
from lora_detox.progress import phase
from lora_detox.settings import Settings
from lora_detox.settings.files import check_files
from lora_detox.signals import Interrupted, listening, requeue

TOGETHER = (Stage.detox, Stage.evaluate)
"""Stages whose work several processes divide."""


def run_stage(settings: Settings) -> tuple[float, ...]:
    """Run the stage that the settings name.

    Args:
        settings: composed and checked.

    Returns:
        Objectives of a sweep, all to minimise.

    Raises:
        DetoxError: see `run` of the stage.
        Interrupted: a signal has come; what can be kept is kept.
    """
    _check_processes(settings)
    check_files(settings)
    importlib.import_module("lora_detox.builders.rows").check_heads(settings)
    # While it is imported it speaks of kernels that a user can do nothing about.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    disk_faults = naming_disk_faults(Path(settings.run_dir))
    with listening(), disk_faults, naming_memory_faults(), remembering():
        try:
            light = settings.stage is Stage.compare  # it reads files alone
            with phase("starting" if light else "starting PyTorch and Transformers"):
                stage = importlib.import_module(f"lora_detox.stages.{settings.stage.value}")
            objectives: tuple[float, ...] = stage.run(settings)
        except Interrupted as stop:
            asks = settings.checkpoint.requeue and processes().is_first
            if stop.name == "SIGUSR1" and asks:
                stop.where += f", {requeue()}"
            raise
    return objectives


def _check_processes(settings: Settings) -> None:
    """What runs alone is not begun several times over."""
    count, kind = processes().size, settings.algorithm.trainer.kind
    if count == 1:
        return
    if settings.stage not in TOGETHER:
        raise SettingsError(
            f"stage={settings.stage.value} with {count} processes: it runs in one; start it by "
            "python -m lora_detox (docs/many_processes.md: what several processes divide)"
        )
    if settings.stage is Stage.detox and kind is not TrainerKind.native:
        raise SettingsError(
            f"algorithm={kind.value} with {count} processes: its trainer runs in one; start it by "
            "python -m lora_detox, or want a method of our own (algorithm=ppo, rloo, grpo, "
            "reinforce)"
        )
    if settings.rollout.engine is not RolloutEngine.local:
        raise SettingsError(
            f"rollout={settings.rollout.engine.value} with {count} processes: each would ask the "
            "server for every response; want rollout=local, or one process, and the GPUs for the "
            "server (--tensor-parallel-size)"
        )
