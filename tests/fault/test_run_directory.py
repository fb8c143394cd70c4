"""A run directory that somebody changed: what differs is named, what is lost comes back."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from lora_detox.api import compose_settings, run
from lora_detox.errors import DataError, DiskError, SettingsError
from lora_detox.export.finished_run import read_run
from lora_detox.run import state
from lora_detox.run.manifest import seal
from lora_detox.run.origin import changes, find_resumed
from lora_detox.settings import CheckpointSettings
from tests.fault.test_resume import result_of
from tests.runs import SMOKE, no_file_larger_than, write_run

pytestmark = pytest.mark.training

OPTIONS = [
    *SMOKE,
    "task=gptj_continuation",
    "data=local",
    "data.fields.prompt=prompt",
    "data.fields.references=null",
    "data.fields.toxicity=null",
    "algorithm.iterations=3",
    "checkpoint.keep=9",
    "evaluation.validation_prompts=4",
    "evaluation.test_prompts=4",
    "evaluation.resamples=20",
]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A finished run on a data file of its own, its result, and the options that made it."""
    folder = tmp_path_factory.mktemp("begun")
    rows = [{"prompt": f"they said number {n} is a fool and"} for n in range(60)]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [*OPTIONS, f"data.path={data}"]
    run(options, folder / "run")
    return folder / "run", options, data


@pytest.fixture
def cut(begun, tmp_path):
    """The same as if it had been killed after its second checkpoint."""
    folder = tmp_path / "cut"
    shutil.copytree(begun[0], folder)
    for name in ("summary.json", "report.html", "samples.jsonl"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints" / "iteration_000003")
    return folder


@pytest.fixture(scope="module")
def composed(begun):
    return compose_settings([*begun[1], "resume=true"], begun[0])


@pytest.fixture
def settings(composed, cut):
    return replace(composed, run_dir=str(cut))


@pytest.mark.slow
def test_a_checkpoint_is_enough_to_go_on_from(begun, cut, capsys):
    """Everything beside the checkpoints is lost or garbage, and a killed process left files."""
    (cut / "config.yaml").unlink()
    (cut / "metrics.jsonl").write_bytes(b"\xff garbage\n[1]\n")
    (cut / ".metrics.jsonl.4242.tmp").write_text("{")
    (cut / ".mine.tmp").write_text("not one of ours")
    (cut / "checkpoints" / ".part-iteration_000003-4242").mkdir()
    (cut / "checkpoints" / ".part-iteration_000003-4243").write_text("a file")
    run([*begun[1], "resume=true"], cut)
    assert result_of(cut) == result_of(begun[0])
    assert sorted(p.name for p in cut.glob("**/.*")) == [".mine.tmp"]
    assert "metrics.jsonl is not as it was" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on_and_its_start_is_measured_anew(begun, cut):
    """Its checkpoints hold weights alone, and its config.yaml lacks a key that came later."""
    as_of_an_earlier_version(cut)
    leave_out(cut / "config.yaml", "  greedy: false\n")
    run([*begun[1], "resume=true"], cut)
    assert result_of(cut) == result_of(begun[0])


def as_of_an_earlier_version(cut):
    for checkpoint in (cut / "checkpoints").iterdir():
        (checkpoint / "run.json").unlink()
        (checkpoint / "metrics.jsonl").unlink()
        seal(checkpoint)


def leave_out(file, left_out):
    lines = file.read_text().splitlines(keepends=True)
    assert left_out in lines
    file.write_text("".join(line for line in lines if line != left_out))


def test_of_an_earlier_version_a_later_key_must_have_its_default(settings, cut):
    as_of_an_earlier_version(cut)
    whole = (cut / "config.yaml").read_text()
    leave_out(cut / "config.yaml", "  resamples: 20\n")
    with pytest.raises(SettingsError, match=r"evaluation.resamples: was unknown, now 20"):
        find_resumed(settings)
    (cut / "config.yaml").unlink()
    with pytest.raises(SettingsError, match=r"has lost its config.yaml.*put the file back"):
        find_resumed(settings)
    (cut / "config.yaml").write_text("a: [1, 2")
    with pytest.raises(SettingsError, match=r"cannot read .*config.yaml .*; put the file back"):
        find_resumed(settings)
    (cut / "config.yaml").write_text(whole)
    assert find_resumed(settings).start() is None


def test_a_changed_data_file_is_refused_with_the_splits_that_differ(begun, cut):
    text = begun[2].read_text()
    try:
        begun[2].write_text(text.replace("number 7 is", "number 7 was"))
        with pytest.raises(DataError, match=r"other rows \(.*was \d+ rows \(\w+\), now \d+ rows"):
            run([*begun[1], "resume=true"], cut)
        begun[2].write_text(text[: text.index('{"prompt": "they said number 50')])
        with pytest.raises(DataError, match=r"train: was 50 rows .*, now 42 rows .*put those of"):
            run([*begun[1], "resume=true"], cut)
    finally:
        begun[2].write_text(text)


def test_changed_weights_of_the_policy_are_refused(begun, cut):
    checkpoint = cut / "checkpoints" / "iteration_000002"
    record = json.loads((checkpoint / "run.json").read_text())
    (name,) = [name for name in record["parts"] if name.startswith("frozen weights")]
    record["parts"][name] = "0" * 32
    (checkpoint / "run.json").write_text(json.dumps(record))
    seal(checkpoint)
    with pytest.raises(DataError, match=r"other models \(frozen weights \(float32\): was 0000"):
        run([*begun[1], "resume=true"], cut)


def test_a_changed_config_is_refused_and_garbage_has_a_remedy(settings, cut):
    file = cut / "config.yaml"
    text = file.read_text()
    file.write_text(text.replace("\nseed: 0", "\nseed: 5"))
    with pytest.raises(SettingsError, match=r"config.yaml is not what .*seed: was 0, now 5"):
        find_resumed(settings)
    with pytest.raises(SettingsError, match=r"begun with other settings \(seed: was 0, now 5\)"):
        find_resumed(replace(settings, seed=5))
    for garbage in (b"\x00\xff\x00", b"a: [1, 2", b"just words", b"", b"- 1\n- 2\n", b"{{{{"):
        file.write_bytes(garbage)
        with pytest.raises(SettingsError, match=r"cannot read .*config.yaml .*; remove it"):
            find_resumed(settings)
    file.unlink()
    assert find_resumed(settings).start() is not None
    assert (
        find_resumed(replace(settings, checkpoint=CheckpointSettings(every=7))).checkpoint
        is not None
    )
    with pytest.raises(SettingsError, match=r"begun with other settings \(seed: was 0, now 5\)"):
        find_resumed(replace(settings, seed=5))


def test_what_is_passed_over_is_named_and_a_new_beginning_is_said(settings, cut, capsys):
    os.truncate(cut / "checkpoints" / "iteration_000002" / "tensors.safetensors", 100)
    (cut / "checkpoints" / "iteration_000009").write_text("a file")
    (cut / "checkpoints" / "iteration_x").mkdir()
    resumed = find_resumed(settings)
    assert resumed.checkpoint.name == "iteration_000001"
    lines = capsys.readouterr().out
    assert "passed over: iteration_000009: its manifest.json cannot be read (Not a dir" in lines
    assert "passed over: iteration_000002: tensors.safetensors is not as it was written" in lines
    assert "begins" not in lines
    manifest = cut / "checkpoints" / "iteration_000001" / "manifest.json"
    for content, fault in (
        ("{}", "does not name tensors.safetensors and state.json"),
        ("[" * 100_000, "is not JSON"),
        ('["tensors.safetensors", "state.json"]', "does not name"),
        (manifest.read_text().replace("run.json", "../../config.yaml"), "outside of it"),
        (manifest.read_text().replace("run.json", "other.json"), "other.json cannot be read"),
    ):
        manifest.write_text(content)
        assert find_resumed(settings).checkpoint is None
        lines = capsys.readouterr().out
        assert "passed over: iteration_000001: " in lines
        assert fault in lines
        assert "has no whole checkpoint: it begins from 0" in lines


def test_a_key_that_one_version_does_not_know_has_its_default_there():
    same = {"seed": 0, "evaluation.greedy": False, "evaluation.sets.toxic.cache": True}
    assert changes({"seed": 0}, same) == changes(same, {"seed": 0}) == []
    assert changes({"seed": 0}, {"seed": 0, "evaluation.greedy": True}) == [
        "evaluation.greedy: was unknown, now True"
    ]
    assert changes({"seed": 0}, {"seed": 0, "evaluation.sets.toxic.cache": False})
    assert changes({"seed": 0, "tracker.project": "a", "checkpoint.keep": 1}, {"seed": 0}) == []
    assert changes({"gone": 1}, {}) == ["gone: was 1, now unknown"]


@pytest.mark.parametrize("name", ["summary.json", "config.yaml", "adapter/adapter_config.json"])
def test_garbage_in_a_finished_run_is_named_by_the_stages_that_read_it(tmp_path, name):
    folder = write_run(tmp_path / "run")
    (folder / name).write_bytes(b"\x00garbage: [")
    with pytest.raises(SettingsError, match=rf"run: cannot read .*{name} .*a finished run"):
        read_run(folder)


@pytest.mark.slow
def test_a_full_disk_costs_what_came_after_the_last_checkpoint_and_no_more(begun, cut, monkeypatch):
    """The second checkpoint finds no room; once there is some, the run ends as if it always had."""
    shutil.rmtree(cut / "checkpoints" / "iteration_000002")
    whole = state.save_checkpoint

    def without_room(*arguments, **keywords):
        with no_file_larger_than(1000):
            return whole(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_checkpoint", without_room)
        with pytest.raises(DiskError, match=r"iteration_000002: File too large; .* free there"):
            run([*begun[1], "resume=true"], cut)
    assert [p.name for p in (cut / "checkpoints").iterdir()] == ["iteration_000001"]
    run([*begun[1], "resume=true"], cut)
    assert result_of(cut) == result_of(begun[0])
