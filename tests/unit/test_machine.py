"""What is known of the CPU, what follows for oneDNN, and what a slow dtype is said to cost."""

import os
import platform
import re
import subprocess
import sys

import pytest
import torch

from lora_detox import machine
from lora_detox.machine import (
    SLOW_FACTOR,
    has_bf16_tiles,
    has_fast_bf16,
    product_seconds,
    slow_dtype_note,
)

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_limit(monkeypatch):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("capabilities", "fast", "tiles"),
    [
        ({}, False, False),
        ({"avx512_bf16": True, "amx_bf16": False}, True, False),
        ({"amx_bf16": True}, True, True),
    ],
)
def test_fast_bf16_and_tiles(monkeypatch, capabilities, fast, tiles):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert (has_fast_bf16(), has_bf16_tiles()) == (fast, tiles)


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("limit", "fast", "tiles"),
    [
        ("AVX2", False, False),
        ("avx512_core", False, False),
        ("AVX512_CORE_BF16", True, False),
        ("AVX512_CORE_AMX", True, True),
        ("ALL", True, True),
    ],
)
def test_units_that_onednn_may_not_use_are_not_there(monkeypatch, variable, limit, fast, tiles):
    monkeypatch.setenv(variable, limit)
    monkeypatch.setattr(
        torch.cpu,
        "get_capabilities",  # torch 2.6 has none
        lambda: {"avx512_bf16": True, "amx_bf16": True},
        raising=False,
    )
    assert (has_fast_bf16(), has_bf16_tiles()) == (fast, tiles)


def test_a_torch_that_cannot_say_has_nothing_fast(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_fast_bf16()


@pytest.mark.parametrize(
    ("tiles", "before", "after"),
    [
        (False, None, str(machine.KERNELS_KEPT)),
        (True, None, None),
        (False, "9", "9"),
        (True, "9", "9"),
    ],
)
def test_kernels_are_thrown_away_only_where_they_are_cheap_and_nobody_asked(
    monkeypatch, tiles, before, after
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": tiles}, raising=False)
    monkeypatch.setenv(CAPACITY, "")  # so that it is put back
    monkeypatch.delenv(CAPACITY)
    if before is not None:
        monkeypatch.setenv(CAPACITY, before)
    machine.bound_kernels()
    assert os.environ.get(CAPACITY) == after


def run_python(code, **environment):
    names = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", CAPACITY)
    kept = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.slow
def test_importing_a_policy_bounds_the_kernels():
    printed = run_python(
        f"import os, lora_detox.policy.policy; print(os.environ.get({CAPACITY!r}))"
    )
    assert printed == str(None if has_bf16_tiles() else machine.KERNELS_KEPT)


NOTE = """
import torch
from lora_detox.machine import has_fast_bf16, slow_dtype_note
print(has_fast_bf16(), slow_dtype_note("bfloat16", torch.device("cpu")))
"""


@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_atens_capability_leaves_bf16_products_as_fast_as_they_are(capability):
    fast, _, note = run_python(NOTE, ATEN_CPU_CAPABILITY=capability).partition(" ")
    assert fast == str(has_fast_bf16())
    if has_fast_bf16():
        assert note == "None"
        code = (
            "import torch; from lora_detox.machine import product_seconds as seconds;"
            "print(min(seconds(torch.bfloat16) / seconds(torch.float32) for _ in range(3)))"
        )
        assert float(run_python(code, ATEN_CPU_CAPABILITY=capability)) < SLOW_FACTOR


def test_without_bf16_units_the_factor_is_measured_and_said():
    fast, _, note = run_python(NOTE, ONEDNN_MAX_CPU_ISA="AVX2").partition(" ")
    assert fast == "False"
    sentence = re.fullmatch(
        r"policy\.dtype=bfloat16: this CPU has no bf16 units, one product takes ([\d.]+) times as "
        r"long as in float32; use policy\.dtype=auto",
        note,
    )
    assert sentence
    assert float(sentence[1]) > 5  # 51 times where this was written


@pytest.mark.parametrize(
    ("seconds", "times"),
    [({"bfloat16": 0.2, "float32": 0.0023}, "87"), ({"bfloat16": 0.0078, "float32": 0.003}, "2.6")],
)
def test_the_note_divides_the_seconds(monkeypatch, seconds, times):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    named = {getattr(torch, name): value for name, value in seconds.items()}
    monkeypatch.setattr(machine, "product_seconds", named.__getitem__)
    assert f"takes {times} times as long" in slow_dtype_note("bfloat16", CPU)


def test_there_is_no_note_where_nothing_is_slow(monkeypatch):
    times = {torch.float32: 0.01, torch.bfloat16: 0.014, torch.float16: 0.014}
    monkeypatch.setattr(machine, "product_seconds", times.__getitem__)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert slow_dtype_note("bfloat16", CPU) is None  # 1.4 times as long
    assert slow_dtype_note("float16", CPU) is None
    times |= {torch.bfloat16: 1.0, torch.float16: 1.0}
    assert slow_dtype_note("float16", CPU)
    assert slow_dtype_note("bfloat16", torch.device("cuda")) is None
    assert slow_dtype_note("auto", CPU) is None
    assert slow_dtype_note("float32", CPU) is None
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert slow_dtype_note("bfloat16", CPU) is None
    assert slow_dtype_note("float16", CPU)  # units of the one are none of the other


def test_a_product_is_timed_by_its_fastest_run():
    assert 0 < product_seconds(torch.float32) < 1


GROWING_BLOCKS = """
import resource, sys, torch
from lora_detox.machine import keep_freed_memory
torch.set_num_threads(1)
keep_freed_memory(torch.device(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(32):  # 4 to 12 MiB, each block freed before the next one
    torch.ones((16 + step) * 2**16)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_growing_blocks_are_written_into_memory_that_was_freed_before():
    def faults(device, **variables):
        command = [sys.executable, "-c", GROWING_BLOCKS, device]
        clean = {k: v for k, v in os.environ.items() if k not in machine.MALLOC_SETTINGS}
        done = subprocess.run(
            command, env=clean | variables, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    given = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
    plain = faults("meta")
    assert faults("cpu") < 0.3 * plain
    assert faults("cpu", **given) > 0.8 * plain  # who sets malloc keeps that
