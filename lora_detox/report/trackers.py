"""Where the numbers of each iteration go besides `metrics.jsonl`.

TensorBoard always; wandb and trackio where the settings name them, and imported only then. They are
accelerate's trackers, which speak on the main process alone.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.tracking import (
    GeneralTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
)

from lora_detox.errors import SettingsError
from lora_detox.visible import visible, visible_values

OPTIONAL_TRACKERS = {"wandb": WandBTracker, "trackio": TrackioTracker}


def open_trackers(
    names: Sequence[str],
    *,
    directory: Path,
    project: str,
    run_name: str,
    settings: Mapping[str, Any],
    keep_through: int | None = None,
) -> list[GeneralTracker]:
    """Open TensorBoard and every tracker that is named.

    Args:
        names: of `wandb` and `trackio`; `tensorboard` and `jsonl` may stand there too, they are
            always on.
        directory: where TensorBoard's event files go.
        project: name of the project in wandb or trackio.
        run_name: name of the run there.
        settings: shown beside the run there.
        keep_through: after a resume, the last iteration that the checkpoint holds.

    Returns:
        The open trackers.

    Raises:
        SettingsError: if a name is not known or its package is not installed; nothing is open then.
    """
    optional = [name for name in dict.fromkeys(names) if name not in {"tensorboard", "jsonl"}]
    for name in optional:
        if name not in OPTIONAL_TRACKERS:
            raise SettingsError(
                f"tracker is {name!r}, which is not known; use {', '.join(OPTIONAL_TRACKERS)} "
                "(TensorBoard and metrics.jsonl are always written). Key: `tracker`"
            )
        _check_import(name)
    # A resumed run hides what was written after its checkpoint.
    purge = {} if keep_through is None else {"purge_step": keep_through + 1}
    trackers = [TensorBoardTracker("", directory, **purge)]
    for name in optional:
        make = OPTIONAL_TRACKERS[name]
        shown = {"name": run_name, "config": dict(settings)}
        trackers.append(make(visible(project), **visible_values(shown)))
    for tracker in trackers:
        tracker.start()
    return trackers


def flat_numbers(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row of `metrics.jsonl` under one level of keys, as trackers take them.

    Args:
        row: may hold mappings, which become `outer/inner`; a {"mean", "std", "n"} becomes its mean.
        prefix: put before every key.

    Returns:
        Key -> number; texts, None and lists are left out.
    """
    numbers: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            if "mean" in value:
                numbers.update(flat_numbers({key: value["mean"]}, prefix))
            else:
                numbers.update(flat_numbers(value, f"{prefix}{key}/"))
        elif isinstance(value, (int, float)):
            numbers[visible(f"{prefix}{key}")] = float(value)
    return numbers


def _check_import(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise SettingsError(
            f"tracker is {package!r}, but that package cannot be imported ({error}); "
            "`pip install 'lora-detox[trackers]'`, or leave it out. Key: `tracker`"
        ) from error
