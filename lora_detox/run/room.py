"""Whether a run's disk has room for what the run will write."""

from pathlib import Path

from lora_detox.disk import check_space
from lora_detox.settings import Settings

_REST = 16 * 2**20
"""Bytes for everything that does not grow with the weights: rows, samples, report."""


def check_room(settings: Settings, checkpoint: int) -> None:
    """There is room for the checkpoints that stay, the one being written, and the result.

    Args:
        settings: run directory and checkpoints are read.
        checkpoint: bytes of one.

    Raises:
        DiskError: there is less.
    """
    group = settings.checkpoint
    count = group.keep + 1 if group.every or group.every_minutes else 1
    what = f"room for {count} checkpoints" if count > 1 else "its result"
    check_space(Path(settings.run_dir), count * checkpoint + _REST, what)
