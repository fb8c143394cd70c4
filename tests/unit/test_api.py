"""Composition and runs from Python."""

import json

import pytest

from lora_detox.api import compose_settings
from lora_detox.errors import SettingsError
from tests.runs import ONE_RUN


def test_settings_are_those_of_the_command_line(tmp_path):
    settings = compose_settings(["task=gptj_continuation", "seed=3"], tmp_path / "run")
    assert settings.task.name == "gptj_continuation"
    assert settings.seed == 3
    assert settings.run_dir == str(tmp_path / "run")


def test_a_mistyped_key_is_a_settings_error_with_a_suggestion():
    with pytest.raises(SettingsError, match=r"did you mean algorithm\.learning_rate"):
        compose_settings(["algorithm.learning_rat=1"])


@pytest.mark.training
def test_a_run_gives_its_summary(finished_run):
    folder = finished_run("task=gptj_continuation", *ONE_RUN)  # compares what `run` gave
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["parameters"]["base_unchanged"] is True
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
