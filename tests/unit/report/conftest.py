"""A plausible run, anew for each test."""

import pytest

from tests.fake_run import fake_history, fake_samples, fake_summary


@pytest.fixture
def summary():
    return fake_summary()


@pytest.fixture
def history():
    return fake_history()


@pytest.fixture
def samples():
    return fake_samples()
