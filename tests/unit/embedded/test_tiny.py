"""The tiny model of debug=smoke goes into a folder of the run, and into nobody else's."""

import pytest

from lora_detox.embedded import embedded_path
from lora_detox.embedded.tiny import write_tiny_policy
from lora_detox.errors import SettingsError


def test_a_folder_of_its_name_that_no_run_made_is_left_alone(tmp_path):
    mine = tmp_path / "tiny_model" / "model.safetensors"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(SettingsError, match=r"hydra\.run\.dir: .* holds a folder tiny_model"):
        write_tiny_policy(embedded_path("gptj"), tmp_path)
    assert mine.read_text() == "mine"
    (tmp_path / "checkpoints").mkdir()  # of a run that goes on
    assert (write_tiny_policy(embedded_path("gptj"), tmp_path) / "config.json").is_file()
