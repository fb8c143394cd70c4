"""Hydra's callback for a multirun: a line per job, and sweep.html when all of them have ended.

Its methods run wherever a launcher runs a job, so that each job leaves a record in the folder of
the sweep, and the end reads these. Everything but Hydra is imported where it is needed.
"""

import os
import socket
import traceback
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

_open: list[Path] = []
"""Folders of sweeps whose page is still to be written."""
ERROR = "error.txt"
"""File of a job's folder: the traceback of an error that nobody foresaw."""
_ON_THIS_MACHINE = ("JoblibLauncher", "LocalLauncher")
"""Launchers that share this machine's GPUs among processes, which Slurm and Ray do themselves."""


class SweepCallback(Callback):
    """See the module; conf/config.yaml names it under `hydra.callbacks`.

    A launcher that runs jobs in other processes hands it to them as it is when the sweep begins.
    """

    def __init__(self) -> None:
        self._launched_by: tuple[str, int] | None = None
        self._gpus: list[str] = []

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder, as a sweep with a failed job ends without `on_multirun_end`."""
        from lora_detox.report.console import begin_multirun  # noqa: PLC0415

        begin_multirun()
        _open.append(Path(str(config.hydra.sweep.dir)))
        self._launched_by = _this_process()
        if str(config.hydra.launcher.get("_target_", "")).endswith(_ON_THIS_MACHINE):
            from lora_detox.comparison.gpus import visible_gpus  # noqa: PLC0415

            self._gpus = visible_gpus()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Give a job its GPU and its rule of pruning; leave a record in case it is killed."""
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        from lora_detox.comparison.gpus import take_gpu  # noqa: PLC0415
        from lora_detox.comparison.jobs import UNENDED, write_job  # noqa: PLC0415

        sweep = Path(str(config.hydra.sweep.dir)).absolute()
        host, process = self._launched_by or _this_process()
        beside = host == _this_process()[0] and process != _this_process()[1]
        if beside and config.device in ("auto", "cuda"):
            take_gpu(sweep, self._gpus, int(config.hydra.job.num))
        folder = str(config.hydra.runtime.output_dir)
        write_job(sweep, _job(config, folder, error=UNENDED))
        _set_rule(sweep, config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Print a job's line and leave its record."""
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        from lora_detox.comparison.jobs import fixed_overrides, job_line, write_job  # noqa: PLC0415
        from lora_detox.errors import DetoxError, PrunedError  # noqa: PLC0415
        from lora_detox.report.console import print_line  # noqa: PLC0415

        failed = job_return.status is JobStatus.FAILED
        error = job_return._return_value if failed else None
        composed = job_return.cfg
        folder = config.hydra.runtime.output_dir if composed is None else composed.run_dir
        pruned = isinstance(error, PrunedError)
        words = f"{error}" if pruned else _words(error)
        if error is not None and not isinstance(error, DetoxError):
            _leave_traceback(Path(str(folder)), error)
        job = _job(config, str(folder), error=None if error is None else words, pruned=pruned)
        sweep = Path(str(config.hydra.sweep.dir))
        write_job(sweep, job)
        print_line(job_line(job, fixed_overrides(sweep)))
        _set_rule(sweep, None)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the page."""
        end_sweeps()


def end_sweeps() -> None:
    """Write the pages of sweeps that have none yet: at their end, or where a job has failed."""
    if not _open:
        return
    from lora_detox.report.console import end_multirun  # noqa: PLC0415

    end_multirun()
    while _open:
        folder = _open.pop()
        from lora_detox.comparison.sweep_page import write_sweep  # noqa: PLC0415

        write_sweep(folder)


def failed_job(error: BaseException) -> str | None:
    """What to say of an error that ended a job of a multirun.

    Args:
        error: that Hydra handed on when all jobs had ended.

    Returns:
        A message with the file that has its traceback; None where no such job is known.
    """
    from lora_detox.comparison.jobs import first_line, read_jobs  # noqa: PLC0415

    for sweep in _open:
        for job in read_jobs(sweep):
            file = Path(job.folder) / ERROR
            if job.error == _words(error) and file.is_file():
                return (
                    f"job {job.number} failed with {first_line(job.error)}\n"
                    f"its traceback is in {file}; the other jobs are in the lines above"
                )
    return None


def _words(error: Any) -> str:
    return f"{type(error).__name__}: {error}"


def _leave_traceback(folder: Path, error: BaseException) -> None:
    """Keep the traceback of a failed job in its folder; a disk that is full keeps none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(traceback.format_exception(error))
        (folder / ERROR).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError:
        return


def _this_process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def _job(config: DictConfig, folder: str, *, error: str | None, pruned: bool = False) -> Any:
    """The record of a job."""
    from lora_detox.comparison.jobs import Job  # noqa: PLC0415

    return Job(
        number=int(config.hydra.job.num),
        folder=folder,
        stage=str(getattr(config.stage, "value", config.stage)),
        overrides=tuple(map(str, config.hydra.overrides.task)),
        error=error,
        pruned=pruned,
    )


def _set_rule(sweep: Path, config: DictConfig | None) -> None:
    """Prune the job by the rule of its study, which only a study's sweeper has."""
    from lora_detox.comparison.pruning import PruningRule, set_rule  # noqa: PLC0415

    prune = None if config is None else config.hydra.sweeper.get("prune")
    if prune is None or not prune.get("enabled"):
        set_rule(None)
        return
    values: Any = OmegaConf.to_container(prune)
    values.pop("enabled")
    set_rule(PruningRule(sweep=sweep, **values))
