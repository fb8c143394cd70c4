"""What is known of the CPU, and what follows for oneDNN's compiled kernels."""

import importlib
import os

import pytest
import torch

from lora_detox.policy import heap
from lora_detox.processor import has_bf16_tiles, has_fast_bf16

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


@pytest.mark.parametrize(
    ("capabilities", "fast", "tiles"),
    [
        ({}, False, False),
        ({"avx512_bf16": True, "amx_bf16": False}, True, False),
        ({"amx_bf16": True}, True, True),
    ],
)
def test_fast_bf16_and_tiles(monkeypatch, capabilities, fast, tiles):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert (has_fast_bf16(), has_bf16_tiles()) == (fast, tiles)


def test_a_torch_that_cannot_say_has_nothing_fast(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not has_fast_bf16()


@pytest.mark.parametrize(
    ("tiles", "before", "after"),
    [
        (False, None, str(heap.KERNELS_KEPT)),
        (True, None, None),
        (False, "9", "9"),
        (True, "9", "9"),
    ],
)
def test_kernels_are_thrown_away_only_where_they_are_cheap_and_nobody_asked(
    monkeypatch, tiles, before, after
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": tiles})
    monkeypatch.setenv(CAPACITY, "")  # so that it is put back
    monkeypatch.delenv(CAPACITY)
    if before is not None:
        monkeypatch.setenv(CAPACITY, before)
    importlib.reload(heap)
    assert os.environ.get(CAPACITY) == after
