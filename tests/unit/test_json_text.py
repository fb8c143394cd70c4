"""JSON that is nested without end, or no object, where a model folder or a run keeps JSON."""

import pytest

from lora_detox.errors import SettingsError
from lora_detox.evaluation.models import EvaluatedModel, _from_adapter
from lora_detox.policy.preflight import BackbonePlan, read_config
from lora_detox.policy.stored_adapter import read_stored
from lora_detox.scores.training_data import FILE, training_data_of
from lora_detox.settings.stored import stored_json, stored_settings

HOSTILE = pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "3", "", "\x00", '{"a": '])


@HOSTILE
def test_a_model_folder_and_an_adapter_are_refused_by_their_key(tmp_path, text):
    for name in ("config.json", "adapter_config.json"):
        (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError, match=r"policy\.path"):
        read_config(BackbonePlan(path=str(tmp_path)))
    with pytest.raises(SettingsError, match=r"policy\.adapter"):
        read_stored(str(tmp_path))
    with pytest.raises(SettingsError, match=r"evaluation\.models"):
        assert isinstance(_from_adapter(tmp_path), EvaluatedModel)


@HOSTILE
def test_what_a_run_keeps_is_refused_by_the_key_that_named_it(tmp_path, text):
    for name in ("summary.json", "config.yaml"):
        (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError, match="run: cannot read"):
        stored_json(tmp_path / "summary.json", "run", "end it")
    with pytest.raises(SettingsError, match="run: cannot read"):
        stored_settings(tmp_path / "config.yaml", "run", "end it")
    (tmp_path / FILE).write_text(text)
    assert training_data_of(str(tmp_path)) is None
