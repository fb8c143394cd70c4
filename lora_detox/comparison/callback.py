"""Hydra's callback for a multirun: a line per job, and sweep.html when all of them have ended.

Its methods run wherever a launcher runs a job, so that each job leaves a record in the folder of
the sweep, and the end reads these. Everything but Hydra is imported where it is needed.
"""

from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

_open: list[Path] = []
"""Folders of sweeps whose page is still to be written."""


class SweepCallback(Callback):
    """See the module; conf/config.yaml names it under `hydra.callbacks`."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder, as a sweep with a failed job ends without `on_multirun_end`."""
        _open.append(Path(str(config.hydra.sweep.dir)))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Print a job's line and leave its record."""
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        from lora_detox.comparison.jobs import Job, fixed_overrides, job_line, write_job  # noqa: PLC0415
        from lora_detox.report.console import print_line  # noqa: PLC0415

        failed = job_return.status is JobStatus.FAILED
        error = job_return._return_value if failed else None
        composed = job_return.cfg
        folder = config.hydra.runtime.output_dir if composed is None else composed.run_dir
        job = Job(
            number=int(config.hydra.job.num),
            folder=str(folder),
            stage=str(getattr(config.stage, "value", config.stage)),
            overrides=tuple(map(str, config.hydra.overrides.task)),
            error=None if error is None else f"{type(error).__name__}: {error}",
        )
        sweep = Path(str(config.hydra.sweep.dir))
        write_job(sweep, job)
        print_line(job_line(job, fixed_overrides(sweep)))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the page."""
        end_sweeps()


def end_sweeps() -> None:
    """Write the pages of sweeps that have none yet: at their end, or where a job has failed."""
    while _open:
        folder = _open.pop()
        from lora_detox.comparison.sweep_page import write_sweep  # noqa: PLC0415

        write_sweep(folder)
