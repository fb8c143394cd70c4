"""The files that a run writes while it goes: settings, metrics.jsonl and what trackers keep."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_detox.report.jsonl import MetricsLog, write_text_atomic
from lora_detox.report.trackers import flat_numbers, open_trackers
from lora_detox.settings import Settings, settings_yaml


class RunRecord:
    """Rows of a run, to metrics.jsonl and every tracker.

    Args:
        settings: written as config.yaml.
        run_dir: where to.
        first_iteration: of a resumed run; rows after it are cut off.
    """

    def __init__(self, settings: Settings, run_dir: Path, first_iteration: int) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text_atomic(run_dir / "config.yaml", settings_yaml(settings))
        keep = (first_iteration or -1) if settings.resume else None
        self._log = MetricsLog(run_dir / "metrics.jsonl", keep_through=keep)
        self._trackers = open_trackers(
            settings.tracker.names,
            directory=run_dir / "tensorboard",
            project=settings.tracker.project,
            run_name=run_dir.name,
            settings=asdict(settings),
            keep_through=keep,
        )

    def write(self, row: dict[str, Any]) -> None:
        """Write a row of metrics.jsonl and tell the trackers."""
        self._log.write(row)
        for tracker in self._trackers:
            tracker.log(flat_numbers(row), step=row["iteration"])

    def close(self) -> None:
        """Close the files."""
        self._log.close()
        for tracker in self._trackers:
            tracker.finish()
