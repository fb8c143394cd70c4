"""What `stage=` names: one module each, with a function `run(settings)`."""

import importlib
import logging
from pathlib import Path

from lora_detox.choices import Stage
from lora_detox.disk import naming_disk_faults
from lora_detox.fitting import naming_memory_faults, remembering
from lora_detox.progress import phase
from lora_detox.settings import Settings
from lora_detox.settings.files import check_files
from lora_detox.signals import Interrupted, listening, requeue


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
    check_files(settings)
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
            if stop.name == "SIGUSR1" and settings.checkpoint.requeue:
                stop.where += f", {requeue()}"
            raise
    return objectives
