"""A queue of runs, to be stopped and continued: finished ones are skipped, failed ones listed."""

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lora_detox.errors import SettingsError
from lora_detox.run_lock import RUN_FILES, claimed
from recipes.lab.process import ROOT, environment


@dataclass(frozen=True, kw_only=True)
class Step:
    """One process of a run.

    Attributes:
        command: what is run, from the top of the checkout.
        done: file that is there once it is finished.
    """

    command: list[str]
    done: Path

    def clear(self) -> None:
        """Remove what a stopped run left in its folder, where it cannot go on from it.

        Raises:
            SettingsError: another process is at work there.
        """
        folder = self.done.parent
        if f"hydra.run.dir={folder}" not in self.command or "resume=true" in self.command:
            return
        left = [folder / name for name in RUN_FILES if (folder / name).exists()]
        if not left:
            return
        with claimed(folder, resume=True):
            for path in left:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def going_on(folder: Path) -> list[str]:
    """The override with which a stopped run goes on; none where it left no checkpoint.

    Args:
        folder: of the run.
    """
    return ["resume=true"] if any((folder / "checkpoints").glob("*")) else []


@dataclass(frozen=True, kw_only=True)
class Run:
    """One method with one seed.

    Attributes:
        name: as the queue prints it.
        folder: where everything of it is written; `failed.json` there says that it failed.
        steps: its processes, in order.
    """

    name: str
    folder: Path
    steps: list[Step]

    @property
    def finished(self) -> bool:
        """Whether every step has left its file."""
        return all(step.done.is_file() for step in self.steps)


def execute(run: Run, *, retry: bool) -> str:
    """Do what is left of a run.

    Args:
        run: what to do.
        retry: begin again what failed before.

    Returns:
        `done`, `there` (was finished), `stopped` (by a signal, to be continued), or `failed`; the
        log holds why.
    """
    failed = run.folder / "failed.json"
    if run.finished:
        return "there"
    if failed.is_file() and not retry:
        return "failed"
    failed.unlink(missing_ok=True)
    run.folder.mkdir(parents=True, exist_ok=True)
    for step in run.steps:
        if step.done.is_file():
            continue
        try:
            step.clear()
        except SettingsError as error:  # another process is at work there
            return _failed(run, 1, str(error))
        with (run.folder / "log.txt").open("a", encoding="utf-8") as log:
            code = subprocess.run(
                step.command,
                cwd=ROOT,
                env=environment(threads=1),
                stdout=log,
                stderr=log,
                check=False,
            ).returncode
        if code < 0:
            return "stopped"
        if code or not step.done.is_file():
            lines = (run.folder / "log.txt").read_text(encoding="utf-8", errors="replace")
            return _failed(run, code, (lines.strip().splitlines() or ["no message"])[-1])
    return "done"


def _failed(run: Run, code: int, why: str) -> str:
    content = {"code": code, "message": why[:500]}
    (run.folder / "failed.json").write_text(json.dumps(content), encoding="utf-8")
    return "failed"


def execute_all(runs: Sequence[Run], *, jobs: int, retry: bool) -> int:
    """Do every run, `jobs` at a time, one thread each; one line for each.

    Args:
        runs: in the order in which they are begun.
        jobs: how many at a time.
        retry: begin again what failed before.

    Returns:
        The exit status of the queue: 1 where a run failed, else 0.
    """

    def one(run: Run) -> str:
        start = time.perf_counter()
        result = execute(run, retry=retry)
        why = f": {_why(run)}" if result == "failed" else ""
        seconds = time.perf_counter() - start
        print(f"{result:8} {run.name}  {seconds:.0f} s{why}", flush=True)
        return result

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        results = list(pool.map(one, runs))
    failed = [run for run, result in zip(runs, results, strict=True) if result == "failed"]
    if not failed:
        return 0
    print(
        f"{len(failed)} of {len(runs)} failed, the first in {failed[0].folder}: log.txt there says "
        "more, --retry begins them again"
    )
    return 1


def _why(run: Run) -> str:
    """What a failed run said last."""
    failure = json.loads((run.folder / "failed.json").read_text(encoding="utf-8"))
    return str(failure["message"])
