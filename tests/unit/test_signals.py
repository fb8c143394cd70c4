"""Signals on real processes that import nothing heavy."""

import gc
import signal
import subprocess
import sys
import time

import pytest

from lora_detox import signals
from lora_detox.signals import EXIT_CODES, Interrupted, how_to_go_on, requeue

PROGRAM = """
import sys, time
from lora_detox.signals import Interrupted, deferring, end_if_asked, interruptible, listening
mode = sys.argv[1]
def wait():
    for _ in range(600):  # a signal just before one long sleep is looked at after it
        time.sleep(0.05)
try:
    with listening():
        if mode == "while deleting":
            class Slow:
                def __del__(self):
                    print("ready", flush=True)
                    time.sleep(1)  # ended by the signal, and what it raises is dropped
            one = Slow()
            del one
            wait()
        if mode == "at once":
            print("ready", flush=True)
            wait()
        with deferring():
            if mode == "own code":
                with interruptible():
                    print("ready", flush=True)
                    wait()
            print("ready", flush=True)
            for _ in range(600):
                time.sleep(0.05)
                if mode != "stuck":
                    end_if_asked()
except Interrupted as stop:
    print(stop)
    sys.exit(stop.exit_code)
"""


def begin(mode, before=None):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,  # noqa: PLW1509 (this process has no thread that holds a lock)
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("mode", ["at once", "own code", "waits"])
@pytest.mark.parametrize("name", EXIT_CODES)
def test_each_signal_has_its_exit_code_and_is_named(mode, name):
    process = begin(mode)
    process.send_signal(signal.Signals[name])
    out, said = process.communicate(timeout=20)
    assert (process.returncode, out) == (EXIT_CODES[name], f"stopped by {name}\n")
    assert (f"{name}: ending after this minibatch" in said) == (mode == "waits")


def test_a_signal_while_an_object_is_deleted_is_not_lost():
    process = begin("while deleting")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(timeout=20)
    assert (process.returncode, out, said) == (143, "stopped by SIGTERM\n", "")
    assert time.monotonic() - begun < 10


def test_other_errors_of_deleting_are_printed_as_ever(monkeypatch):
    class Broken:
        def __del__(self):
            raise ValueError("broken")

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    with signals.listening():
        Broken().__del__  # noqa: B018 (deleted here)
        gc.collect()
    assert [str(one.exc_value) for one in seen] == ["broken"]
    assert sys.unraisablehook == seen.append


def test_the_exit_codes_are_those_of_a_shell_and_of_a_temporary_failure():
    assert EXIT_CODES == {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 75}


def test_a_second_signal_ends_at_once_and_one_sent_twice_is_one():
    process = begin("stuck")
    for _ in range(2):  # as `timeout` does: to the process, and to its group
        process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - begun < 5


def test_what_a_process_was_started_to_ignore_stays_ignored():
    def as_nohup():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = begin("waits", as_nohup)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_handlers_are_put_back_and_the_inner_of_two_changes_nothing():
    before = signal.getsignal(signal.SIGTERM)
    with signals.listening():
        ours = signal.getsignal(signal.SIGTERM)
        with signals.listening():
            assert signal.getsignal(signal.SIGTERM) is ours
        with pytest.raises(Interrupted, match="stopped by SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    assert signals.asked_to_end() is None


def test_the_command_that_goes_on_is_one_line_for_a_shell():
    overrides = ["task=x", "resume=false", "+task.template=a {prompt}", "hydra.run.dir=old"]
    assert how_to_go_on(["python", "-m", "lora_detox"], overrides, "runs/a b") == (
        "python -m lora_detox task=x '+task.template=a {prompt}' resume=true "
        "'hydra.run.dir=runs/a b'"
    )


def test_requeueing_says_what_came_of_it(monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert requeue() == "not requeued: SLURM_JOB_ID is not set"
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requeue().startswith("not requeued: ")
    command = tmp_path / "scontrol"
    command.write_text('#!/bin/sh\n[ "$*" = "requeue 77" ] || { echo "no: $*" >&2; exit 1; }\n')
    command.chmod(0o755)
    assert requeue() == "requeued as Slurm job 77"
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    assert requeue() == "not requeued: no: requeue 78"
