"""Compiled passes say what the plain ones say, of shapes that are few."""

import sys
from collections import Counter

import jaxtyping
import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._inductor import config as inductor_config
from torch._inductor import metrics
from transformers import GPTJConfig, T5Config

from lora_detox.choices import Compile
from lora_detox.errors import SettingsError
from lora_detox.policy import compiled as module
from lora_detox.policy.compiled import (
    CompiledPasses,
    check_compiles,
    compile_passes,
    padded_size,
)
from lora_detox.policy.lean import make_lean
from lora_detox.policy.loading import enable_checkpointing
from lora_detox.rollout import Passes, collect_rollout, generate_responses
from lora_detox.types import Advantages, Sampling
from lora_detox.update import PpoPlan, PpoUpdate
from tests.tiny import tiny_policy, tiny_prompts, tiny_responses

PLAIN = Sampling()
PLAN = PpoPlan(
    ppo_epochs=1,
    clip_range=0.2,
    value_clip_range=0.2,
    value_coef=0.1,
    max_grad_norm=None,
    ratio_threshold=10.0,
    target_kl=None,
)
ROWS = 10
"""In minibatches of 5, of microbatches of 4 or 5: rows are padded, and gradients add up."""


@pytest.fixture(autouse=True)
def fresh_dynamo():
    checks = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)  # they keep a stack, which does not compile
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    jaxtyping.config.update("jaxtyping_disable", checks)


def compiled_policy(architecture, backend, mode=Compile.default, device="cpu", **adapter):
    policy = tiny_policy(architecture, **adapter)
    make_lean(policy.model)
    policy.model.to(device)
    policy.value_head.to(device)
    if backend is not None:
        policy.passes = CompiledPasses(
            policy.family, policy.backbone, policy.frozen_part, mode, backend
        )
    return policy


def updated(policy, rows=5):
    """Rollout numbers, changes of the weights and statistics of an update.

    It has one epoch: a second one takes rounding to clipped or not, with T5 by plain passes too.
    """
    prompts = tiny_prompts(policy, [5, 2, 7, 3, 4, 6, 2, 5, 3, 8]).to(policy.device)
    responses = generate_responses(
        policy, prompts, PLAIN, response_tokens=(2, 6), batch_size=ROWS, seed=3
    )
    rollout = collect_rollout(
        policy, prompts, responses, PLAIN, minibatch_size=5, passes=Passes(rows=rows), seed=5
    )
    generator = torch.Generator().manual_seed(7)
    mask = rollout.response_mask
    draws = [torch.randn(mask.shape, generator=generator).to(mask.device) * mask for _ in range(2)]
    advantages = Advantages(
        rewards=draws[0], ref_kl=draws[0] * 0, advantages=draws[0], returns=draws[1]
    )
    learned = list(policy.trainable_parameters())
    start = [one.detach().clone() for one in learned]
    optimizer = torch.optim.SGD(learned, lr=1e-3)
    stats = PpoUpdate(policy, optimizer, PLAN, PLAIN).step(rollout, advantages, 0)
    moved = [one.detach() - other for one, other in zip(learned, start, strict=True)]
    return (rollout.logprobs, rollout.ref_logprobs, rollout.values), moved, stats


def assert_alike(policy, plain, **options):
    """One update of each; numbers within 1e-4, weight changes within 0.1 % of the largest."""
    numbers, moved, stats = updated(policy, **options)
    plain_numbers, plain_moved, plain_stats = updated(plain, **options)
    for one, other in zip(numbers, plain_numbers, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    largest = max(float(one.abs().max()) for one in plain_moved)
    for one, other in zip(moved, plain_moved, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3 * largest)
    assert stats.optimizer_steps == plain_stats.optimizer_steps == 2
    assert stats.first_ratio_error < 1e-4


@pytest.mark.slow
def test_activations_that_are_computed_again_change_nothing():
    policy, plain = compiled_policy("llama", None), compiled_policy("llama", None)
    enable_checkpointing(policy.backbone)
    compile_passes(policy, Compile.default, "aot_eager")
    assert_alike(policy, plain)


@pytest.mark.parametrize(
    ("architecture", "backend", "adapter"),
    [
        ("gptj", "eager", {"scope": "last_1"}),
        pytest.param("gptj", "aot_eager", {}, marks=pytest.mark.slow),
        ("llama", "eager", {}),
        pytest.param("t5", "eager", {}, marks=pytest.mark.slow),
        pytest.param("t5", "eager", {"scope": "decoder"}, marks=pytest.mark.slow),
    ],
)
def test_a_whole_update_is_that_of_the_plain_passes(architecture, backend, adapter):
    policy = compiled_policy(architecture, backend, **adapter)
    assert_alike(policy, compiled_policy(architecture, None, **adapter))
    assert counters["stats"]["unique_graphs"] >= 2  # and it was compiled


@pytest.mark.slow
def test_the_default_backend_compiles_an_update_too(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    metrics.reset()
    policy = compiled_policy("gptj", "inductor", scope="last_1")
    assert_alike(policy, compiled_policy("gptj", None, scope="last_1"))
    assert metrics.generated_kernel_count > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs want a GPU")
@pytest.mark.parametrize(("architecture", "scope"), [("gptj", "all"), ("t5", "decoder")])
def test_replayed_cuda_graphs_make_the_same_update(architecture, scope):
    options = {"device": "cuda", "scope": scope}
    policy = compiled_policy(architecture, "inductor", Compile.reduce_overhead, **options)
    assert_alike(policy, compiled_policy(architecture, None, **options), rows=4)


class StaticBuffers:
    """A backend whose results lie in buffers that the next step overwrites, as CUDA graphs do."""

    def __init__(self):
        self.buffers = []
        self.backend = aot_autograd(fw_compiler=self.compile, bw_compiler=self.compile)

    def compile(self, graph, _inputs):
        def run(*inputs):
            results = graph(*inputs)
            mine = [r.detach().clone() if isinstance(r, torch.Tensor) else r for r in results]
            # By other tensors on the same memory: autograd keeps a gradient that nobody else has.
            self.buffers += [one.data for one in mine if isinstance(one, torch.Tensor)]
            return mine

        return run

    def begin(self):
        for one in self.buffers:
            if one.is_floating_point():
                one.fill_(torch.nan)
        self.buffers.clear()


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "scope"), [("gptj", "last_1"), ("t5", "decoder")])
def test_nothing_is_kept_in_buffers_that_a_replayed_graph_overwrites(
    monkeypatch, architecture, scope
):
    static = StaticBuffers()
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", static.begin)
    policy = compiled_policy(architecture, static.backend, Compile.reduce_overhead, scope=scope)
    assert_alike(policy, compiled_policy(architecture, None, scope=scope), rows=4)
    assert static.buffers


def test_sizes_are_few_and_at_most_half_as_large_again():
    sizes = [padded_size(size, 16) for size in range(1, 2049)]
    assert all(size <= padded <= max(16, 1.5 * size) for size, padded in enumerate(sizes, 1))
    assert sorted(Counter(sizes)) == [
        16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
    ]  # fmt: skip
    assert [padded_size(size, 1) for size in range(1, 10)] == [1, 2, 3, 4, 6, 6, 8, 8, 12]


def batch_of(policy, queries, responses):
    prompts, (ids, mask) = tiny_prompts(policy, queries), tiny_responses(responses)
    return prompts.query_ids, prompts.query_mask, ids, mask, PLAIN


@torch.no_grad()
def test_compilations_are_bounded_whatever_the_shapes(monkeypatch, caplog):
    monkeypatch.setattr(module, "MOST_SHAPES", 3)
    policy, plain = compiled_policy("gptj", "eager"), compiled_policy("gptj", None)
    for rows in range(1, 7):  # padded to 1, 2, 3, 4, 6, 6
        for length in (3, 11):  # both of them to 16 columns with a query of 6
            batch = batch_of(policy, [6] * rows, [length] * rows)
            found = policy.respond(*batch, policy.frozen_states()).logprobs
            torch.testing.assert_close(found, plain.respond(*batch).logprobs, rtol=0, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 3
    assert len([line for line in caplog.messages if "3 shapes" in line]) == 1
    with policy.reference():
        policy.respond(*batch_of(policy, [6], [3]), policy.frozen_states())
    with torch.enable_grad(), policy.training():
        policy.respond(*batch_of(policy, [6], [3]), policy.frozen_states())
    assert counters["stats"]["unique_graphs"] == 5 <= 3 * module.VARIANTS


@torch.no_grad()
def test_rows_are_not_padded_beyond_the_positions_of_the_model():
    policy = compiled_policy("gptj", "eager")  # has 64 positions
    plain = compiled_policy("gptj", None)
    policy.passes.longest = 20
    batch = batch_of(policy, [13, 9], [8, 4])
    found = policy.respond(*batch, policy.frozen_states()).logprobs
    assert policy.passes.shapes == {(2, 20)}
    torch.testing.assert_close(found, plain.respond(*batch).logprobs, rtol=0, atol=1e-5)
    assert compiled_policy("gptj", "eager").passes.longest == 64


@torch.no_grad()
def test_only_rows_that_are_read_again_are_compiled():
    policy = compiled_policy("gptj", "eager")
    batch = batch_of(policy, [5, 3], [3, 4])
    policy.respond(*batch)  # an evaluation
    generate_responses(
        policy,
        tiny_prompts(policy, [5, 3]),
        PLAIN,
        response_tokens=(2, 4),
        batch_size=2,
        seed=0,
    )
    assert counters["stats"]["unique_graphs"] == 0
    assert "forward" not in vars(policy.backbone.base_model)


def test_a_start_compiles_a_pass_and_compares_it():
    policy = compiled_policy("gptj", None)
    compile_passes(policy, Compile.default, "eager")
    assert isinstance(policy.passes, CompiledPasses)
    assert counters["stats"]["unique_graphs"] == 2


def broken(_graph, _inputs):
    raise ValueError("no such machine")


def wrong(graph, _inputs):
    return lambda *inputs: [1.5 * one for one in graph(*inputs)]


@pytest.mark.parametrize(
    ("backend", "reason"),
    [(broken, r"does not compile here \(.*no such machine"), (wrong, "computes something else")],
)
def test_a_start_is_refused_where_compiling_fails_or_changes_numbers(backend, reason):
    policy = compiled_policy("gptj", None)
    with pytest.raises(SettingsError, match=f"(?s)policy.compile=default.*{reason}") as refusal:
        compile_passes(policy, Compile.default, backend)
    assert str(refusal.value).endswith("want policy.compile=none")


def test_what_does_not_compile_is_refused_before_weights_load(monkeypatch):
    def check(mode, device="cpu", kind=GPTJConfig, checkpointing=False):
        check_compiles(mode, device, kind(), checkpointing=checkpointing)

    monkeypatch.setattr(inductor_config.cpp, "cxx", (None, sys.executable))  # it has --version
    check(Compile.none, kind=T5Config, checkpointing=True)
    check(Compile.default, checkpointing=True)
    with pytest.raises(SettingsError, match=r"t5 with policy.gradient_checkpointing=true"):
        check(Compile.default, kind=T5Config, checkpointing=True)
    with pytest.raises(SettingsError, match=r"CUDA graphs.*=default or none"):
        check(Compile.reduce_overhead)
    monkeypatch.setattr(inductor_config.cpp, "cxx", (None, "no-such-compiler"))
    with pytest.raises(SettingsError, match=r"C\+\+ compiler.*CXX.*policy.compile=none"):
        check(Compile.default)
    monkeypatch.setattr(module, "resolve_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"Triton.*compile=none"):
        check(Compile.reduce_overhead, "auto")
