"""Whatever setting holds the path of data, an error of reading it names that setting."""

import pytest

from lora_detox import api
from lora_detox.builders.audit import audit_prompts, audit_texts
from lora_detox.builders.labelled import test_set as labelled_test_set
from lora_detox.builders.rows import load_data
from lora_detox.builders.toxic_examples import read_examples
from lora_detox.errors import DataError, SettingsError
from lora_detox.evaluation.protocol import prompt_sets, protocol_numbers

SETS = ["stage=evaluate", "evaluation.protocol=three_sets", "+data@evaluation.sets.more=local"]
LABELLED = ["stage=reward_model", "data=embedded_labelled"]


def sets_of(settings):
    return prompt_sets(settings, protocol_numbers(settings))


def labelled_set_of(settings):
    return labelled_test_set("more", settings.reward_model.test_sets["more"], settings)


def examples_of(settings):
    return read_examples(settings.decoding.examples, settings.decoding.fields, "decoding")


READERS = {
    "data.path": (["data=local"], load_data),
    "data.validation_path": ([], load_data),
    "evaluation.audit": ([], audit_prompts),
    "evaluation.audit_texts": ([], audit_texts),
    "evaluation.sets.more.path": (SETS, sets_of),
    "reward_model.test_sets.more": (LABELLED, labelled_set_of),
    "decoding.examples": (["stage=evaluate", "decoding=bad_words"], examples_of),
}


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken.json"
    broken.write_text("[" * 100_000)
    nothing = tmp_path / "nothing.csv"
    nothing.write_text("a,b\n1,2\n")
    return {
        "too long": "a" * 300,
        "nowhere": str(tmp_path / "none.csv"),
        "on the hub, offline": "nobody/nothing",
        "no data in it": str(tmp_path / "empty"),
        "broken": str(broken),
        "other columns": str(nothing),
    }


@pytest.mark.parametrize("kind", ["too long", "nowhere", "on the hub, offline", "no data in it"])
@pytest.mark.parametrize("key", READERS)
def test_what_cannot_be_opened_names_its_setting(key, kind, paths, tmp_path):
    check(key, paths[kind], tmp_path)


@pytest.mark.parametrize("kind", ["broken", "other columns"])
@pytest.mark.parametrize("key", READERS)
def test_what_cannot_be_read_names_its_setting(key, kind, paths, tmp_path):
    check(key, paths[kind], tmp_path)


def check(key, path, tmp_path):
    overrides, read = READERS[key]
    prefix = key.removesuffix(".path").rsplit(".", 1)[0] if "sets.more" not in key else key
    with pytest.raises((DataError, SettingsError)) as caught:
        read(api.compose_settings([*overrides, f"{key}='{path}'"], tmp_path / "run"))
    message = str(caught.value)
    named = key if key in message else key.removesuffix(".path")
    assert named in message or f"{prefix}.fields" in message, message
    if not key.startswith("data."):
        assert "data.path" not in message.replace(key, ""), message
        own = message.replace("not `data.fields.", "")  # a column of the file, not that key
        assert "`data." not in own or key.startswith("reward_model"), message  # shares the columns
    assert len(message) < 700


@pytest.mark.parametrize("name", ["nothing", "", "judge", "rewrite"])
def test_a_miniature_that_writes_no_text_is_refused(name, tmp_path):
    with pytest.raises(SettingsError, match=r"task\.miniature: got .*, want t5 or gptj"):
        api.compose_settings([f"task.miniature='{name}'"], tmp_path / "run")
