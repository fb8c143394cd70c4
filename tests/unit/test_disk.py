"""Disks that are full, gone or in the way, by the limits of the system where it has them."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lora_detox import disk
from lora_detox.disk import check_space, disk_error, naming_disk_faults, writing, written_whole
from lora_detox.errors import DiskError, SettingsError
from lora_detox.report.jsonl import MetricsLog, read_jsonl, write_json_atomic
from lora_detox.run.checkpoint import restore_newest, save_checkpoint
from lora_detox.run.room import check_room
from lora_detox.settings import CheckpointSettings, Settings
from lora_detox.settings.preflight import check_run_dir
from tests.runs import no_file_larger_than


def training(size=4000):
    parameters = {"a": torch.nn.Parameter(torch.randn(size))}
    return parameters, torch.optim.AdamW(parameters.values())


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("limit", [1000, 100])  # within the tensors; within the manifest too
def test_a_checkpoint_that_finds_no_room_leaves_the_earlier_ones_and_nothing_else(tmp_path, limit):
    parameters, optimizer = training()
    save_checkpoint(tmp_path / "c", 1, parameters, optimizer, {}, keep=1)
    before = contents(tmp_path)
    with (
        no_file_larger_than(limit),
        pytest.raises(
            DiskError,
            match=r"cannot write .*iteration_000002: File too large; [\d.]+ [GM]iB free there",
        ),
    ):
        save_checkpoint(tmp_path / "c", 2, parameters, optimizer, {}, keep=1)
    assert contents(tmp_path) == before
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["iteration_000001"]
    assert restore_newest(tmp_path / "c", parameters, optimizer)[0] == 1


def test_a_row_that_finds_no_room_is_not_half_there(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write({"iteration": 1})
        with no_file_larger_than(40), pytest.raises(DiskError, match=r"metrics.jsonl: File too"):
            log.write({"iteration": 2, "note": "x" * 100})
        assert (tmp_path / "metrics.jsonl").read_text() == '{"iteration": 1}\n'
        log.write({"iteration": 2})
    assert [row["iteration"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2]


def test_a_file_that_finds_no_room_stays_as_it_was(tmp_path):
    path = tmp_path / "summary.json"
    write_json_atomic(path, {"a": 1})
    before = contents(tmp_path)
    with no_file_larger_than(10), pytest.raises(DiskError, match=r"cannot write .*summary.json"):
        write_json_atomic(path, {"a": "x" * 100})
    assert contents(tmp_path) == before


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "notes.txt").write_text("mine")
    (tmp_path / "adapter" / "weights").write_text("old")
    before = contents(tmp_path)

    def write(weights):
        with written_whole(tmp_path) as part:
            (part / "adapter").mkdir()
            (part / "adapter" / "config").write_text("new")
            (part / "adapter" / "weights").write_bytes(weights)

    with no_file_larger_than(10), pytest.raises(DiskError):
        write(b"x" * 100)
    assert contents(tmp_path) == before
    write(b"new")
    assert {p.name: c for p, c in contents(tmp_path).items()} == {
        "config": b"new",
        "notes.txt": b"mine",
        "weights": b"new",
    }


def test_a_run_directory_that_is_gone_is_told_and_not_made_again(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    parameters, optimizer = training(4)
    with MetricsLog(run_dir / "metrics.jsonl") as log:
        shutil.rmtree(run_dir)
        gone = r"No such file or directory; .*: bring the folder back"
        with pytest.raises(DiskError, match=rf"metrics.jsonl: {gone}"):
            log.write({"iteration": 1})
    with pytest.raises(DiskError, match=rf"iteration_000001: {gone}"):
        save_checkpoint(run_dir / "checkpoints", 1, parameters, optimizer, {}, keep=1)
    with pytest.raises(DiskError, match=gone), written_whole(run_dir):
        pass
    assert not run_dir.exists()


def test_a_full_device_is_told_with_its_path(tmp_path):
    full = Path("/dev/full")
    with (
        pytest.raises(DiskError, match=r"/dev/full: No space left on device; .*room"),
        writing(full),
    ):
        full.write_text("x")
    for error in (  # as torch.save and safetensors tell it
        RuntimeError("[enforce fail at inline_container.cc:626] . unexpected pos 64 vs 0"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
        ValueError("Error while serializing: IoError(Os { code: 28, kind: StorageFull })"),
    ):
        with pytest.raises(DiskError, match=r"cannot write .*a"), writing(tmp_path / "a"):
            raise error


def test_only_what_a_disk_answers_or_a_run_owns_is_a_fault_of_the_disk(tmp_path):
    for error in (OSError("no hub"), ConnectionError(111, "refused"), ValueError("a bug")):
        with pytest.raises(type(error)), naming_disk_faults(tmp_path):
            raise error
    with pytest.raises(FileNotFoundError), naming_disk_faults(tmp_path / "run"):
        (tmp_path / "data.jsonl").read_text()
    run_dir = tmp_path / "run"
    with pytest.raises(DiskError, match=r"write .*run/tensorboard"), naming_disk_faults(run_dir):
        (run_dir / "tensorboard").mkdir()
    quota = r"cannot write .*run: Disk quota exceeded; .*keep=1"
    with pytest.raises(DiskError, match=quota), naming_disk_faults(run_dir):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def test_every_reason_has_a_remedy(tmp_path):
    assert "hydra.run.dir" in str(disk_error(tmp_path, OSError(errno.EROFS, "")))
    assert "ulimit -f" in str(disk_error(tmp_path, OSError(errno.EFBIG, "")))
    assert "look after the disk" in str(disk_error(tmp_path, OSError(errno.EIO, "")))


def test_room_is_looked_for_before_training(tmp_path, monkeypatch):
    settings = Settings(run_dir=str(tmp_path / "run"), checkpoint=CheckpointSettings(every=1))
    check_room(settings, 2**20)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    check_room(settings, 2**28)  # 3 checkpoints of 256 MiB
    with pytest.raises(
        DiskError, match=r"has 1.0 GiB free, and room for 3 checkpoints needs .*1.5"
    ):
        check_room(settings, 2**29)
    settings.checkpoint = CheckpointSettings(every=0, every_minutes=None)
    check_room(settings, 2**29)
    with pytest.raises(DiskError, match=r"its result needs about 2.0 GiB; make room"):
        check_room(settings, 2**31)
    check_space(tmp_path, 2**30, "x")


@pytest.mark.parametrize("name", ["checkpoints", "adapter", "tensorboard", ""])
def test_a_file_in_the_place_of_a_folder_is_refused_at_once(tmp_path, name):
    run_dir = tmp_path / "run"
    if name:
        run_dir.mkdir()
    (run_dir / name).write_text("a file")
    with pytest.raises(SettingsError, match=r"hydra.run.dir: .* is no folder; move it away, or"):
        check_run_dir(Settings(run_dir=str(run_dir), resume=True))
    with pytest.raises(SettingsError, match=r"hydra.run.dir: .* is no folder; move it away, or"):
        check_run_dir(Settings(run_dir=str(run_dir / name / "deeper"), resume=True))


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "summary.json"])
def test_a_folder_in_the_place_of_a_file_is_refused_at_once(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(SettingsError, match=rf"{name} is no file; move it away, or name another"):
        check_run_dir(Settings(run_dir=str(tmp_path), resume=True))


def test_a_folder_that_cannot_be_written_to_is_refused_at_once():
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    places = [m[1] for m in mounts if "ro" in m[3].split(",") and Path(m[1]).is_dir()]
    if not places:
        pytest.skip("nothing is mounted read-only here")
    with pytest.raises(SettingsError, match=r"cannot be written to; name another hydra.run.dir"):
        check_run_dir(Settings(run_dir=f"{places[0]}/run"))
