"""The files that a run writes while it goes: settings, metrics.jsonl and what trackers keep."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_detox.report.jsonl import MetricsLog, write_text_atomic
from lora_detox.report.trackers import flat_numbers, open_trackers
from lora_detox.run.origin import METRICS, Resumed, checkpoint_files, restore_rows
from lora_detox.settings import Settings, settings_yaml
from lora_detox.types import Evaluation


class NoRecord:
    """What a process keeps that is not the first of its run: nothing."""

    def write(self, row: dict[str, Any]) -> None:
        """The first process writes the same row."""

    def keep_start(self, evaluation: Evaluation, audit: Evaluation | None) -> None:
        """The first process keeps the same evaluations."""

    def files(self) -> dict[str, bytes]:
        """The first process has them."""
        return {}

    def close(self) -> None:
        """There are no files."""


class RunRecord:
    """Rows of a run, to metrics.jsonl and every tracker.

    Args:
        settings: written as config.yaml.
        run_dir: where to.
        first_iteration: of a resumed run; rows after it are cut off.
        resumed: whose rows come first.
        record: what the run was begun with, for its checkpoints.
    """

    def __init__(
        self,
        settings: Settings,
        run_dir: Path,
        first_iteration: int,
        resumed: Resumed,
        record: Mapping[str, Any],
    ) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._record = dict(record)
        write_text_atomic(run_dir / "config.yaml", settings_yaml(settings))
        restore_rows(resumed, run_dir)
        keep = (first_iteration or -1) if settings.resume else None
        self._log = MetricsLog(run_dir / METRICS, keep_through=keep)
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

    def keep_start(self, evaluation: Evaluation, audit: Evaluation | None) -> None:
        """Have the start's evaluation and audit in every checkpoint from now on."""
        self._record["start"] = asdict(evaluation)
        self._record["start_audit"] = None if audit is None else asdict(audit)

    def files(self) -> dict[str, bytes]:
        """What a checkpoint holds of the run, by name; metrics.jsonl is put on the disk."""
        return checkpoint_files(self._record, self._log)

    def close(self) -> None:
        """Close the files."""
        self._log.close()
        for tracker in self._trackers:
            tracker.finish()
