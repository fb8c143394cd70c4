"""The fused kernel against torch's operations: on a GPU, or by Triton's interpreter on the CPU.

Triton comes with torch on machines with a GPU. Elsewhere `pip install triton` lets the first test
run all others of this file in a process with TRITON_INTERPRET=1.
"""

import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from lora_detox.policy import chunk_stats as choice
from lora_detox.policy.chunk_stats import chunk_stats, plain_stats
from lora_detox.policy.token_stats import sampling_logits, token_logprobs
from lora_detox.types import Sampling
from recipes.benchmarks.counting import Counter
from tests.tiny import move, tiny_policy, tiny_prompts, tiny_responses

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON, HAS_GPU = find_spec("triton") is not None, torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU and not INTERPRETED else "cpu")
EXACT = {"rtol": 1e-5, "atol": 1e-5}
COARSE = {torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""Spacing of numbers, relative: the interpreter cuts them where a GPU rounds."""
kernel_runs = pytest.mark.skipif(
    not HAS_TRITON or not (HAS_GPU or INTERPRETED),
    reason="needs Triton, and CUDA or its interpreter",
)
pytestmark = [pytest.mark.gpu] if DEVICE.type == "cuda" else []


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed (pip install triton)")
@pytest.mark.skipif(INTERPRETED, reason="is the process that this test starts")
def test_the_interpreter_agrees_on_this_cpu():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    top = Path(__file__).parents[3]
    done = subprocess.run(
        command, env=environment, cwd=top, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


def random_logits(rows, columns, dtype=torch.float32, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, columns, generator=generator)
    ids = torch.randint(columns, (rows,), generator=generator)
    return logits.to(DEVICE, dtype), ids.to(DEVICE)


def check(logits, ids, **tolerance):
    """All numbers of the kernel against torch's, computed in fp64."""
    assert choice._fused(logits) is not None
    found = chunk_stats(logits, ids, with_entropy=True, with_slope=True)
    logprobs, entropies, slope = plain_stats(logits.double(), ids, True, True)
    torch.testing.assert_close(found.logprobs.double(), logprobs, **EXACT)
    torch.testing.assert_close(found.entropies.double(), entropies, **EXACT)
    assert found.slope.dtype == logits.dtype
    torch.testing.assert_close(found.slope.double(), slope, **(tolerance or EXACT))
    single = plain_stats(logits, ids, True, True)
    torch.testing.assert_close(found.logprobs, single[0], **EXACT)
    torch.testing.assert_close(found.entropies, single[1], **EXACT)
    return found


@kernel_runs
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("columns", [1, 7, 1024, 16_384, 16_385, 32_128, 50_257, 128_256])
def test_any_vocabulary(columns, rows):
    check(*random_logits(rows, columns))


@kernel_runs
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_slope_has_the_dtype_of_the_logits(dtype):
    check(*random_logits(3, 5000, dtype), rtol=COARSE[dtype], atol=1e-7)


@kernel_runs
@pytest.mark.parametrize("forbidden", [slice(0, 20_000), slice(1, None, 2), slice(100, None)])
def test_forbidden_columns_count_nothing(forbidden):
    """Also where the first block of a row, or all later ones, have nothing else."""
    logits, ids = random_logits(2, 40_000)
    logits[:, forbidden] = -torch.inf
    ids = logits.argmax(dim=-1)
    found = check(logits, ids)
    assert not found.slope[:, forbidden].any()
    ids[0] = range(40_000)[forbidden][0]
    stats = chunk_stats(logits, ids, with_entropy=True, with_slope=True)
    assert stats.logprobs[0] == -torch.inf
    assert stats.slope[0, ids[0]] == 1
    assert stats.entropies.isfinite().all()


@kernel_runs
@pytest.mark.parametrize("offset", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_extreme_logits(scale, offset):
    logits, ids = random_logits(3, 20_000, scale=scale)
    logits += offset
    ids[0] = logits[0].argmax()
    stats = chunk_stats(logits, ids, with_entropy=True, with_slope=True)
    logprobs, entropies, slope = plain_stats(logits.double(), ids, True, True)
    torch.testing.assert_close(stats.logprobs.double(), logprobs, **EXACT)
    torch.testing.assert_close(stats.entropies.double(), entropies, **EXACT)
    torch.testing.assert_close(stats.slope.double(), slope, **EXACT)


@kernel_runs
def test_logits_that_are_no_numbers_show():
    logits, ids = random_logits(4, 20_000)
    logits[0, 7], logits[1, 19_999] = torch.nan, torch.inf
    ids[3] = 20_000
    stats = chunk_stats(logits, ids, with_entropy=True, with_slope=False)
    assert stats.logprobs.isnan().tolist() == [True, True, False, True]
    assert stats.entropies.isnan().tolist() == [True, True, False, False]


@kernel_runs
def test_no_rows_rows_apart_and_columns_apart():
    logits, ids = random_logits(4, 3000)
    nothing = chunk_stats(logits[:0], ids[:0], with_entropy=True, with_slope=True)
    assert [tuple(one.shape) for one in nothing] == [(0,), (0,), (0, 3000)]
    check(logits[::2], ids[::2])
    check(logits[:, :2000], ids % 2000)
    check(logits.t().contiguous().t(), ids)


@kernel_runs
def test_what_is_not_asked_for_is_left_out():
    logits, ids = random_logits(3, 3000)
    whole = chunk_stats(logits, ids, with_entropy=True, with_slope=True)
    bare = chunk_stats(logits, ids, with_entropy=False, with_slope=False)
    assert torch.equal(bare.logprobs, whole.logprobs)
    assert not bare.entropies.any()
    assert bare.slope.numel() == 0
    steep = chunk_stats(logits, ids, with_entropy=False, with_slope=True)
    assert torch.equal(steep.slope, whole.slope)


def linear(weight, sampling):
    return lambda states, at: sampling_logits(states @ weight, at, sampling, (1,))


def capped(weight, sampling):
    return lambda states, at: sampling_logits(9 * torch.tanh(states @ weight), at, sampling, (1,))


def bent(weight, sampling):
    """The backward pass of tanh reads its output, which is the very tensor of the logits."""
    return lambda states, at: torch.tanh(states @ weight)


SAMPLINGS = [
    Sampling(),
    Sampling(min_new_tokens=3),
    Sampling(temperature=0.7, top_k=50, top_p=0.9, min_new_tokens=3),
]
HEADS = [(head, sampling) for head in (linear, capped) for sampling in SAMPLINGS]


@kernel_runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("head", "sampling"), [*HEADS, (bent, Sampling())])
def test_states_get_the_same_derivative(monkeypatch, head, sampling, dtype):
    """In chunks of two rows, through all that stands between states and logits."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(9, 8, generator=generator).to(DEVICE, dtype)
    weight = torch.randn(8, 3000, generator=generator).to(DEVICE, dtype)
    positions = torch.arange(9, device=DEVICE)
    to_logits = head(weight, sampling)
    ids = to_logits(hidden, positions).argmax(dim=-1)
    monkeypatch.setattr("lora_detox.policy.token_stats.chunk_elements", lambda _: 6000)
    results = []
    for _ in range(2):
        leaf = hidden.clone().requires_grad_()
        logprobs, entropies = token_logprobs(leaf, ids, positions, to_logits, 3000)
        (gradient,) = torch.autograd.grad((logprobs * positions.add(1)).sum(), leaf)
        with torch.no_grad():
            again, _ = token_logprobs(leaf, ids, positions, to_logits, 3000)
        assert torch.equal(again, logprobs)
        results.append((logprobs.detach(), entropies, gradient))
        monkeypatch.setattr(choice, "_fused", lambda logits: None)  # now by torch
    precise = EXACT if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    for fused, plain, allowed in zip(*results, (EXACT, EXACT, precise), strict=True):
        torch.testing.assert_close(fused, plain, **allowed)


@kernel_runs
@pytest.mark.parametrize(
    ("architecture", "allowed"), [("t5", 1e-2), ("gptj", 1e-5), ("gemma2", 1e-4)]
)
def test_a_policy_says_the_same(monkeypatch, architecture, allowed):
    """Of the largest number. In fp32 this T5's gradients are 4e-3 off those in fp64, either way."""
    policy = tiny_policy(architecture)
    move(policy)
    policy.model.to(DEVICE)
    policy.value_head.to(DEVICE)
    prompts, (ids, mask) = tiny_prompts(policy, [5, 9, 3]), tiny_responses([4, 1, 7])
    batch = [one.to(DEVICE) for one in (prompts.query_ids, prompts.query_mask, ids, mask)]
    results = []
    for _ in range(2):
        outputs = policy.respond(*batch, Sampling(temperature=0.7))
        policy.model.zero_grad()
        (outputs.logprobs.sum() + outputs.values.sum()).backward()
        gradients = [p.grad.clone() for p in policy.adapter_parameters() if p.grad is not None]
        assert gradients
        results.append([outputs.logprobs.detach(), outputs.entropy, *gradients])
        monkeypatch.setattr(choice, "_fused", lambda logits: None)
    for fused, plain in zip(*results, strict=True):
        assert (fused - plain).abs().max() <= allowed * plain.abs().max()


@kernel_runs
def test_a_chunk_is_one_operation_beside_its_products():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, 8, generator=generator).to(DEVICE).requires_grad_()
    weight = torch.randn(8, 3000, generator=generator).to(DEVICE)
    ids, positions = torch.arange(6, device=DEVICE), torch.arange(6, device=DEVICE)
    choice._fused(weight)  # tried once, which is not counted
    with Counter([]) as counter:
        token_logprobs(hidden, ids, positions, linear(weight, Sampling()), 3000)
    assert counter.counts.by_name == {"mm": 2, "token_stats": 1}


@kernel_runs
def test_a_kernel_with_other_numbers_is_not_used(caplog):
    def wrong(*arguments):
        logprobs, entropies, slope = plain_stats(*arguments)
        return logprobs, entropies + 1e-2, slope

    def broken(*arguments):
        raise OSError("no C compiler\nsecond line")

    right = choice._kernel(DEVICE.type)
    with caplog.at_level(logging.WARNING):
        assert choice._agrees(right, DEVICE, torch.float32)
        assert not caplog.messages
        assert not choice._agrees(wrong, DEVICE, torch.float32)
        assert not choice._agrees(broken, DEVICE, torch.float32)
    assert "without their fused kernel" in caplog.messages[0]
    assert caplog.messages[1].endswith("no C compiler")


def test_fp64_and_cpus_without_an_interpreter_take_torch_s_operations():
    assert choice._fused(torch.zeros(1, 2, dtype=torch.float64)) is None
    if not INTERPRETED:
        assert choice._fused(torch.zeros(1, 2)) is None
