"""What `stage=` names: one module each, with a function `run(settings)`."""

import importlib
import logging

from lora_detox.progress import phase
from lora_detox.settings import Settings


def run_stage(settings: Settings) -> tuple[float, ...]:
    """Run the stage that the settings name.

    Args:
        settings: composed and checked.

    Returns:
        Objectives of a sweep, all to minimise.

    Raises:
        DetoxError: see `run` of the stage.
    """
    # While it is imported it speaks of kernels that a user can do nothing about.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with phase("starting PyTorch and Transformers"):
        stage = importlib.import_module(f"lora_detox.stages.{settings.stage.value}")
    objectives: tuple[float, ...] = stage.run(settings)
    return objectives
