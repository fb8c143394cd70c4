"""Where the numbers of each iteration go besides `metrics.jsonl`.

TensorBoard always; wandb and trackio where asked, and imported only then. Only the main process
should open trackers: a second writer of the same run hangs or doubles the curves.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch.utils.tensorboard.writer import SummaryWriter

from lora_detox.errors import SettingsError

OPTIONAL_TRACKERS = ("wandb", "trackio")


@runtime_checkable
class Tracker(Protocol):
    """Takes the numbers of an iteration to where a person looks at them."""

    def log(self, iteration: int, values: dict[str, float]) -> None:
        """Record the numbers of one iteration."""

    def close(self) -> None:
        """Write out what is left."""


class TensorBoardTracker:
    """Event files for `tensorboard --logdir`.

    Args:
        directory: where the event files go.
        keep_through: after a resume, the last iteration that the checkpoint holds; later points
            are hidden. None keeps every point.
    """

    def __init__(self, directory: Path, *, keep_through: int | None = None) -> None:
        purge_step = None if keep_through is None else keep_through + 1
        self._writer = SummaryWriter(str(directory), purge_step=purge_step)

    def log(self, iteration: int, values: dict[str, float]) -> None:
        """Record the numbers of one iteration as scalars."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, iteration)
        self._writer.flush()

    def close(self) -> None:
        """Write out what is left."""
        self._writer.close()


class RunTracker:
    """wandb or trackio, which share `init`, `log` and `finish`.

    Args:
        package: `wandb` or `trackio`.
        project: name of the project there.
        run_name: name of the run there.
        settings: shown beside the run.

    Raises:
        SettingsError: if the package is not installed.
    """

    def __init__(
        self, package: str, *, project: str, run_name: str, settings: Mapping[str, Any]
    ) -> None:
        self._library = _import_tracker(package)
        self._library.init(project=project, name=run_name, config=dict(settings))

    def log(self, iteration: int, values: dict[str, float]) -> None:
        """Record the numbers of one iteration."""
        self._library.log(values, step=iteration)

    def close(self) -> None:
        """End the run there."""
        self._library.finish()


def open_trackers(
    names: Sequence[str],
    *,
    directory: Path,
    project: str,
    run_name: str,
    settings: Mapping[str, Any],
    keep_through: int | None = None,
) -> list[Tracker]:
    """Open TensorBoard and every tracker that was asked for.

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
        _import_tracker(name)
    trackers: list[Tracker] = [TensorBoardTracker(directory, keep_through=keep_through)]
    for name in optional:
        trackers.append(RunTracker(name, project=project, run_name=run_name, settings=settings))
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
            numbers[f"{prefix}{key}"] = float(value)
    return numbers


def _import_tracker(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise SettingsError(
            f"tracker is {package!r}, but that package cannot be imported ({error}); "
            "`pip install 'lora-detox[trackers]'`, or leave it out. Key: `tracker`"
        ) from error
