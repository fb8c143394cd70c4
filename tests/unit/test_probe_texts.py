"""reward.probe_texts and judge.probe_texts: given on the command line or as a file, and checked."""

import json

import pytest

from lora_detox.api import compose_settings
from lora_detox.errors import SettingsError
from lora_detox.settings import probe_texts

CIVIL, TOXIC = ["Спасибо.", "До встречи: завтра"], ["Дурак!"]


def read(*overrides):
    settings = compose_settings([*overrides])
    return probe_texts(settings.reward.probe_texts, "reward.probe_texts")


def test_nothing_is_the_default():
    assert read() is None
    assert read("reward.probe_texts=null") is None
    assert read("reward=local", "reward.path=x") is None


def test_on_the_command_line():
    lists = '{civil: ["Спасибо.", "До встречи: завтра"], toxic: ["Дурак!"]}'
    assert read(f"reward.probe_texts={lists}") == (CIVIL, TOXIC)
    assert read("reward=local", "reward.path=x", f"reward.probe_texts={lists}") == (CIVIL, TOXIC)
    by_key = ["reward.probe_texts.civil=[a, b]", "reward.probe_texts.toxic=[c]"]
    assert read(*by_key) == (["a", "b"], ["c"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_as_a_file(tmp_path, encoding):
    content = {"civil": CIVIL, "toxic": TOXIC}
    (tmp_path / "probe.json").write_text(json.dumps(content), encoding=encoding)
    assert read(f"reward.probe_texts={tmp_path / 'probe.json'}") == (CIVIL, TOXIC)
    lines = 'civil:\n- Спасибо.\n- "До встречи: завтра"\ntoxic:\n- Дурак!\n'
    (tmp_path / "probe.yaml").write_text(lines, encoding=encoding)
    assert read(f"reward.probe_texts={tmp_path / 'probe.yaml'}") == (CIVIL, TOXIC)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{civil: [a]}", r"reward\.probe_texts: got the keys civil; want {civil: \[TEXT"),
        ("{civil: [a], toxic: [b], rude: [c]}", "got the keys civil, toxic, rude; want"),
        ("{civil: [], toxic: [b]}", r"probe_texts\.civil: got \[\], want a list of at least"),
        ("{civil: [a], toxic: b}", r"probe_texts\.toxic: got 'b', want a list of at least"),
        ("{civil: [a], toxic: [3]}", r"probe_texts\.toxic: got 3, want a text"),
        ("{civil: [a], toxic: [' ']}", r"probe_texts\.toxic: got ' ', want a text"),
        ("{civil: [a], toxic: [null]}", r"probe_texts\.toxic: got None, want a text"),
        ("{civil: [a, b], toxic: [b]}", "'b' is in both lists"),
        ("nowhere.yaml", "no such file: nowhere.yaml; want {civil"),
        ("here.txt", "got only a line; want {civil"),
        ("bad.yaml", r"cannot read bad\.yaml \(while parsing"),
        ("bytes.yaml", r"cannot read bytes\.yaml \('utf-8' codec"),
        (".", r"cannot read \. \("),
    ],
)
def test_what_is_no_two_lists_of_texts(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").write_text("only a line")
    (tmp_path / "bad.yaml").write_text("civil: [")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=message):
        read(f"reward.probe_texts={given}")
    with pytest.raises(SettingsError, match=message.replace("reward", "judge")):
        read(f"judge.probe_texts={given}")
