"""Tiny models in folders, for adapters that PEFT wrote."""

import pytest

from tests.tiny import tiny_tokenizer
from tests.unit.policy.adapters import TARGETS, backbone_of


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    for architecture in TARGETS:
        backbone_of(architecture).save_pretrained(folder / architecture)
        tiny_tokenizer().save_pretrained(folder / architecture)
    return folder
