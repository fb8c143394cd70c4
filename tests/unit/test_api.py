"""Composition and runs from Python."""

import pytest

from lora_detox.api import compose_settings, run
from lora_detox.errors import SettingsError


def test_settings_are_those_of_the_command_line(tmp_path):
    settings = compose_settings(["task=gptj_continuation", "seed=3"], tmp_path / "run")
    assert settings.task.name == "gptj_continuation"
    assert settings.seed == 3
    assert settings.run_dir == str(tmp_path / "run")


def test_a_mistyped_key_is_a_settings_error_with_a_suggestion():
    with pytest.raises(SettingsError, match=r"did you mean algorithm\.learning_rate"):
        compose_settings(["algorithm.learning_rat=1"])


def test_a_run_gives_its_summary(tmp_path):
    summary = run(["task=gptj_continuation", "debug=smoke"], tmp_path / "run")
    assert summary["parameters"]["base_unchanged"] is True
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
