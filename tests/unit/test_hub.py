"""Ids of repositories, and what is said of a hub that cannot be reached (tests/hub has one)."""

import pytest

from lora_detox.hub import HubError, hub_files
from lora_detox.hub_ids import is_hub_id


@pytest.mark.parametrize(
    ("text", "anything", "with_owner"),
    [
        ("google/flan-t5-base", True, True),
        ("EleutherAI/gpt-j-6B", True, True),
        ("gpt2", True, False),
        ("s-nlp/roberta_toxicity_classifier", True, True),
        ("a/b/c", False, False),
        ("./folder", False, False),
        ("../folder", False, False),
        ("/folder", False, False),
        ("~/folder", False, False),
        ("-x/name", False, False),
        ("owner/", False, False),
        ("owner/a name", False, False),
        ("owner/name@v1", False, False),
        ("", False, False),
        ("o/" + "n" * 94, True, True),
        ("o/" + "n" * 95, False, False),
    ],
)
def test_what_can_be_an_id(text, anything, with_owner):
    assert (is_hub_id(text), is_hub_id(text, with_owner=True)) == (anything, with_owner)


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionError("no route\nto host"), "ConnectionError: no route"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_hub_that_does_not_answer(monkeypatch, kind, error, reason):
    seconds = []

    def refuse(_, repo_id, *, revision, timeout):
        seconds.append(timeout)
        raise error

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"huggingface_hub.HfApi.{kind}_info", refuse)
    with pytest.raises(HubError) as caught:
        hub_files("o/n", "v1", kind)
    assert str(caught.value) == reason
    assert not caught.value.answered
    assert seconds == [5.0]


def test_offline_nothing_is_asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("asked"))
    assert hub_files("o/n", None) is None
