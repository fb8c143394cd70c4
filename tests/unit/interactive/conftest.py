"""Finished runs with random adapters on a tiny model, asked through one session."""

import dataclasses

import pytest

from lora_detox import api
from lora_detox.interactive.runs import read_runs, scorers_of
from lora_detox.interactive.session import open_session
from tests.runs import write_run


def settings_for(tmp_path, *overrides):
    return api.compose_settings(["stage=chat", "threads=1", *overrides], tmp_path / "out")


def opened(settings):
    runs = read_runs(settings)
    return open_session(settings, runs, scorers_of(runs, settings))


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("tried") / "first")
    rows = [f'{{"prompt": "Nobody here wants number {number}"}}\n' for number in (1, 2, 2, 3)]
    (folder / "samples.jsonl").write_text("".join(rows))
    return folder


@pytest.fixture(scope="session")
def shared_session(written, tmp_path_factory):
    settings = settings_for(tmp_path_factory.mktemp("chat"), f"chat.run={written}")
    settings.chat.new_tokens = 6
    return opened(settings)


@pytest.fixture
def session(shared_session):
    """The shared one, with a count of its own."""
    return dataclasses.replace(shared_session, asked=0)
