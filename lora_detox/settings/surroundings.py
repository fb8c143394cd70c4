"""What settings need around them: optional packages, and a free folder for the run."""

import importlib.util
import os
from pathlib import Path

from lora_detox.errors import SettingsError
from lora_detox.settings.choices import QuantizationType, Stage, TaskKind
from lora_detox.settings.groups import Settings

TRACKERS = ("wandb", "trackio")


def check_packages(settings: Settings) -> None:
    """What is optional is installed, found out without importing it."""
    names = settings.tracker.names
    for name in names:
        if name not in {*TRACKERS, "tensorboard", "jsonl"}:
            raise SettingsError(
                f"tracker.names: got {name}, want {' or '.join(TRACKERS)} (metrics.jsonl and "
                "TensorBoard are always written)"
            )
    needed = [("tracker.names", name, "trackers") for name in names if name in TRACKERS]
    if settings.quantization.type is not QuantizationType.none:
        needed.append(("quantization", "bitsandbytes", "quantization"))
    if settings.stage is Stage.sft and settings.task.kind is TaskKind.continuation:
        needed.append(("stage=sft", "trl", "trl"))
    for key, package, extra in needed:
        if importlib.util.find_spec(package) is None:
            raise SettingsError(
                f"{key}: the package {package} is not installed; "
                f"pip install 'lora-detox[{extra}]', or leave it out"
            )


def check_run_dir(settings: Settings) -> None:
    """A folder that holds a run is for going on with that run alone."""
    run_dir = Path(settings.run_dir)
    marks = ("summary.json", "metrics.jsonl", "checkpoints", "adapter")
    held = [name for name in marks if (run_dir / name).exists()]
    if held and not settings.resume:
        raise SettingsError(
            f"hydra.run.dir: {os.path.relpath(run_dir)} already holds another run "
            f"({', '.join(held)}); name another folder, or resume=true to go on with that run"
        )
