import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lora_detox.errors import SettingsError
from lora_detox.report.trackers import flat_numbers, open_trackers

COMMON = {"project": "lora_detox", "run_name": "run", "settings": {"seed": 0}}


def test_tensorboard_is_always_there(tmp_path):
    (tracker,) = open_trackers([], directory=tmp_path, **COMMON)
    tracker.log({"score": 0.5}, step=1)
    tracker.log({"score": 1.5}, step=2)
    tracker.finish()
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("score")
    assert [(event.step, event.value) for event in events] == [(1, 0.5), (2, 1.5)]


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_missing_package_says_how_to_get_it(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=r"lora-detox\[trackers\].*`tracker`"):
        open_trackers([package], directory=tmp_path / "tb", **COMMON)
    assert not (tmp_path / "tb").exists()


def test_a_resumed_run_hides_what_came_after_its_checkpoint(tmp_path):
    for keep, values in ((None, (1, 2, 3)), (1, (2,))):
        (tracker,) = open_trackers([], directory=tmp_path, keep_through=keep, **COMMON)
        for step in values:
            tracker.log({"score": float(step if keep is None else 10 * step)}, step=step)
        tracker.finish()
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("score")
    assert [(event.step, event.value) for event in events] == [(1, 1.0), (2, 20.0)]


def test_unknown_tracker(tmp_path):
    with pytest.raises(SettingsError, match="'mlflow', which is not known"):
        open_trackers(["mlflow"], directory=tmp_path, **COMMON)


def test_optional_tracker_gets_the_same_numbers(tmp_path, monkeypatch):
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append(("log", values, step)),
        finish=lambda: calls.append(("finish",)),
    )
    fake = types.SimpleNamespace(init=lambda **given: calls.append(("init", given)) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    _, tracker = open_trackers(["wandb", "tensorboard", "wandb"], directory=tmp_path, **COMMON)
    tracker.log({"score": 1.0}, step=3)
    tracker.finish()
    assert calls == [
        ("init", {"project": "lora_detox", "name": "run", "config": {"seed": 0}}),
        ("log", {"score": 1.0}, 3),
        ("finish",),
    ]


def test_flat_numbers():
    row = {
        "iteration": 2,
        "score": 0.5,
        "note": "text",
        "missing": None,
        "early_stopped": True,
        "evaluation": {"toxicity": {"mean": 0.1, "std": 0.2, "n": 3}, "rougeL": 0.3},
    }
    assert flat_numbers(row) == {
        "iteration": 2.0,
        "score": 0.5,
        "early_stopped": 1.0,
        "evaluation/toxicity": 0.1,
        "evaluation/rougeL": 0.3,
    }
