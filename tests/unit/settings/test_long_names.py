"""A path with a name that no file system takes is refused by its key, whichever it is."""

import pytest

from lora_detox import api
from lora_detox.errors import SettingsError

LONG = "a" * 300
PATHS = {
    "policy.path": [],
    "policy.adapter": [],
    "reward.path": [],
    "judge.path": [],
    "data.path": ["data=local"],
    "data.validation_path": [],
    "evaluation.encoder": [],
    "evaluation.audit": [],
    "evaluation.audit_texts": [],
    "evaluation.sets.more.path": ["+data@evaluation.sets.more=local"],
    "decoding.examples": ["stage=evaluate", "decoding=bad_words"],
    "decoding.words": ["stage=evaluate", "decoding=bad_words"],
    "export.path": ["stage=export", "run=./none"],
    "run": ["stage=export"],
}


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    "path", [LONG, f"folder/{LONG}/file", "\u4f60" * 100], ids=["name", "folder", "wide"]
)
def test_a_name_that_is_too_long_is_refused_by_its_key(key, path, tmp_path):
    with pytest.raises(SettingsError, match=rf"^{key}: got .* name of 300 bytes"):
        api.compose_settings([*PATHS[key], f"{key}='{path}'"], tmp_path / "run")


@pytest.mark.parametrize("key", ["runs", "soup", "evaluation.models", "reward.ensemble"])
def test_so_are_those_in_lists(key, tmp_path):
    stage = {"runs": ["stage=compare"], "soup": ["stage=soup"]}.get(key, ["stage=evaluate"])
    with pytest.raises(SettingsError, match=r"name of 300 bytes"):
        api.compose_settings([*stage, f"{key}=['{LONG}',b]"], tmp_path / "run")


def test_long_texts_are_no_paths(tmp_path):
    template = "a" * 400 + " {prompt}"
    settings = api.compose_settings([f"task.template='{template}'"], tmp_path / "run")
    assert settings.task.template == template
