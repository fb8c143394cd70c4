"""Fresh processes, started from the top of the checkout, so that its packages are found."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
"""Top of the checkout."""


def run_stage(overrides: list[str], folder: Path, *, threads: int | None = None) -> dict[str, Any]:
    """`python -m lora_detox` with some overrides, in a fresh process.

    Args:
        overrides: of the run.
        folder: absolute path of the run directory.
        threads: of OpenMP; None leaves them as they are.

    Returns:
        What summary.json of the run holds.

    Raises:
        SystemExit: the process failed; the message ends with what it wrote last.
    """
    command = [sys.executable, "-m", "lora_detox", *overrides, f"hydra.run.dir={folder}"]
    _output(command, threads)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary


def printed_json(command: list[str]) -> dict[str, Any]:
    """The JSON that a command prints as its last line.

    Args:
        command: what is run.

    Returns:
        The JSON.

    Raises:
        SystemExit: the process failed; the message ends with what it wrote last.
    """
    result: dict[str, Any] = json.loads(_output(command).strip().splitlines()[-1])
    return result


def environment(threads: int | None) -> dict[str, str]:
    """The environment of a process with some OpenMP threads; None leaves them as they are."""
    return {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}


def _output(command: list[str], threads: int | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-800:]}{done.stderr[-2000:]}")
    return done.stdout
