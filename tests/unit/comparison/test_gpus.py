"""Each process of a sweep has a GPU of its own, for as long as it lives."""

import os
import stat
import subprocess
import sys

import pytest

from lora_detox.comparison import gpus

TWO_JOBS = """
import os, sys
from pathlib import Path
from lora_detox.comparison.gpus import take_gpu
for number in (0, 5):
    take_gpu(Path(sys.argv[1]), ["3", "MIG-x"], number)
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


def started(folder):
    """A process of a sweep that has run two jobs, and its GPU."""
    command = [sys.executable, "-c", TWO_JOBS, str(folder)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    first, second = process.stdout.readline().strip(), process.stdout.readline().strip()
    assert first == second
    return process, first


def test_processes_share_the_gpus_and_a_dead_ones_is_free_again(tmp_path):
    processes = [started(tmp_path) for _ in range(3)]
    assert [gpu for _, gpu in processes] == ["3", "MIG-x", "3"]  # the third shares the first one
    processes[1][0].kill()
    processes[1][0].wait(30)
    processes.append(started(tmp_path))
    assert processes[-1][1] == "MIG-x"
    for process, _ in processes:
        process.communicate()


def test_without_gpus_nothing_is_set(tmp_path, monkeypatch):
    monkeypatch.delenv(gpus.VARIABLE, raising=False)
    gpus.take_gpu(tmp_path, [], 0)
    assert gpus.VARIABLE not in os.environ
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("0,2", ["0", "2"]), ("", []), ("-1", []), (" 1 , GPU-a", ["1", "GPU-a"])],
)
def test_the_variable_names_them(variable, expected, monkeypatch):
    monkeypatch.setenv(gpus.VARIABLE, variable)
    assert gpus.visible_gpus() == expected


@pytest.mark.parametrize(("answer", "expected"), [("echo 0; echo 1", ["0", "1"]), ("exit 9", [])])
def test_else_nvidia_smi_does(answer, expected, tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv(gpus.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gpus.visible_gpus() == expected
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert gpus.visible_gpus() == []
