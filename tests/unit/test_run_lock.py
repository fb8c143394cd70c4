"""One run, one directory, whoever starts it and however the other one ended."""

import errno
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from lora_detox import api, run_lock
from lora_detox.errors import SettingsError
from lora_detox.run_lock import FILE, claimed

HOLD = """
import sys, time
from pathlib import Path
from lora_detox.run_lock import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield folder, process
    process.kill()
    process.wait()


def test_the_second_one_is_told_who_has_it_and_takes_over_when_that_one_is_dead(other):
    folder, process = other
    taken = rf"hydra\.run\.dir: .*run is in use by process {process.pid} on {socket.gethostname()}"
    with pytest.raises(SettingsError, match=taken):  # before anything else is said of the settings
        api.run(["task=gptj_continuation", "resume=true"], folder)
    assert [one.name for one in folder.iterdir()] == [FILE]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / FILE).exists()
    with claimed(folder) as place:
        assert place == folder
        assert json.loads((folder / FILE).read_text())["pid"] == os.getpid()
    assert not (folder / FILE).exists()


def test_a_default_name_gives_way(other):
    folder, _ = other
    with claimed(folder, fresh=True) as place:
        assert place.name == "run-2"
        with claimed(folder, fresh=True) as third:
            assert third.name == "run-3"
    assert not place.exists()  # nothing was left in it
    (folder.parent / "run-2").mkdir()
    (folder.parent / "run-2" / "config.yaml").touch()
    with claimed(folder, fresh=True) as place:
        assert place.name == "run-3"


def test_who_has_it_may_ask_again_and_others_of_the_process_may_not(tmp_path):
    folder = tmp_path / "run"
    with claimed(folder), claimed(folder) as again:
        assert again == folder
    assert not folder.exists()
    context = multiprocessing.get_context("fork")
    with claimed(folder):
        child = context.Process(target=_claims, args=(folder,))
        child.start()
        child.join()
        assert child.exitcode == 3


def _claims(folder):
    try:
        with claimed(folder):
            os._exit(0)
    except SettingsError:
        os._exit(3)


def test_a_child_that_lives_on_holds_nothing(tmp_path):
    """A worker that was forked by a run that was killed."""
    script = HOLD.replace(
        'print("held", flush=True)',
        "import os; child = os.fork(); print(child or 'held', flush=True) if child else None",
    )
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True
    )
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        os.kill(child, 0)  # is there
        for left in reversed(range(100)):  # it lets go as soon as it runs, which may be later
            try:
                with claimed(folder):
                    break
            except SettingsError:
                assert left, "the child holds the folder"
                time.sleep(0.1)
    finally:
        os.kill(child, signal.SIGKILL)


def test_many_starts_of_one_moment_get_a_folder_each(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, names = context.Barrier(8), context.Queue()
    workers = [
        context.Process(target=_takes, args=(tmp_path / "run", barrier, names)) for _ in range(8)
    ]
    for one in workers:
        one.start()
    taken = sorted(names.get(timeout=60) for _ in workers)
    for one in workers:
        one.join()
    assert taken == sorted(["run", *(f"run-{number}" for number in range(2, 9))])


def _takes(folder, barrier, names):
    barrier.wait()
    with claimed(folder, fresh=True) as place:
        (place / "config.yaml").touch()
        names.put(place.name)


def test_without_locks_of_the_system_a_dead_process_is_taken_over(tmp_path, monkeypatch):
    def refuses(descriptor, how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuses)
    folder, gone = tmp_path / "run", subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder.mkdir()
    words = {"pid": gone.pid, "host": socket.gethostname(), "since": "then"}
    (folder / FILE).write_text(json.dumps(words))
    with claimed(folder):
        assert json.loads((folder / FILE).read_text())["pid"] == os.getpid()
    (folder / FILE).write_text(json.dumps({**words, "host": "elsewhere"}))
    with pytest.raises(SettingsError, match=f"process {gone.pid} on elsewhere since then"):
        claimed(folder).__enter__()
    (folder / FILE).write_text(json.dumps({**words, "pid": os.getppid()}))
    with pytest.raises(SettingsError, match=f"process {os.getppid()} on "):
        claimed(folder).__enter__()


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(SettingsError, match=r"hydra\.run\.dir: .*run is no folder"):
        claimed(tmp_path / "run").__enter__()


@pytest.mark.slow
def test_two_commands_of_one_second_have_a_folder_each(tmp_path):
    command = [sys.executable, "-m", "lora_detox", "stage=plan", "threads=1"]
    name = "hydra.run.dir=runs/same"  # what both would be called; without it, by the clock
    first, second = (
        subprocess.Popen([*command, name], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    said = [one.communicate()[1] for one in (first, second)]
    codes = sorted((first.returncode, second.returncode))
    assert codes == [0, 2]
    assert any("in use by process" in one or "already holds" in one for one in said)
