"""Side by side: results in order, gradient mode of the caller, the caller's threads given back."""

import time

import pytest
import torch

from lora_detox.lanes import side_by_side
from lora_detox.rollout import Passes, collect_rollout
from lora_detox.rollout.generation import generate_responses
from lora_detox.types import Advantages, Sampling
from lora_detox.update import PpoPlan, PpoUpdate
from tests.tiny import tiny_policy, tiny_prompts

PLAN = PpoPlan(
    ppo_epochs=2,
    clip_range=0.2,
    value_clip_range=0.2,
    value_coef=0.1,
    max_grad_norm=1.0,
    ratio_threshold=10.0,
    target_kl=None,
)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_keep_the_order_and_each_lane_has_one_thread(two_threads):
    def task(index):
        time.sleep(0.02 * (3 - index))
        return index, torch.get_num_threads(), torch.is_grad_enabled()

    with torch.no_grad():
        found = side_by_side([lambda i=i: task(i) for i in range(4)], 2)
    assert found == [(i, 1, False) for i in range(4)]
    assert torch.get_num_threads() == 2


def test_an_error_comes_through_and_the_threads_come_back(two_threads):
    def fails():
        raise ValueError("this one")

    with pytest.raises(ValueError, match="this one"):
        side_by_side([fails, fails], 2)
    assert torch.get_num_threads() == 2


def trained(architecture, lanes, monkeypatch, **adapter):
    """Adapter and rollout after an update, with passes in that many lanes."""
    policy = tiny_policy(architecture, **adapter)
    monkeypatch.setattr(type(policy), "lanes", lanes)
    prompts, sampling = tiny_prompts(policy, [5, 9, 2, 7, 3, 8]), Sampling()
    responses = generate_responses(
        policy, prompts, sampling, response_tokens=(4, 6), batch_size=6, seed=1
    )
    rollout = collect_rollout(
        policy, prompts, responses, sampling, minibatch_size=6, passes=Passes(rows=2), seed=1
    )
    given = torch.randn(rollout.logprobs.shape, generator=torch.Generator().manual_seed(2))
    given = given * rollout.response_mask
    advantages = Advantages(
        rewards=given, ref_kl=given, advantages=given, returns=given, kl_coef_in_loss=0.1
    )
    optimizer = torch.optim.AdamW(policy.trainable_parameters(), lr=1e-2)
    PpoUpdate(policy, optimizer, PLAN, sampling).step(rollout, advantages, 0)
    return [p.detach().clone() for p in policy.trainable_parameters()], rollout


@pytest.mark.parametrize(
    ("architecture", "adapter"),
    [("t5", {}), ("t5", {"scope": "decoder"}), ("gptj", {}), ("gptj", {"scope": "last_1"})],
)
def test_an_update_in_two_lanes_is_bitwise_that_in_one(architecture, adapter, monkeypatch):
    """With one thread on either side every operation rounds alike, and sums keep their order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        (alone, first), (paired, second) = (
            trained(architecture, lanes, monkeypatch, **adapter) for lanes in (1, 2)
        )
    finally:
        torch.set_num_threads(before)
    for name in ("logprobs", "ref_logprobs", "values"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert all(torch.equal(a, b) for a, b in zip(alone, paired, strict=True))


@pytest.mark.parametrize(("adapter", "alone"), [({}, False), ({"dropout": 0.1}, True)])
def test_passes_that_draw_go_one_by_one(adapter, alone, two_threads):
    assert tiny_policy("gptj", **adapter).lanes == (1 if alone else 2)


def test_a_minibatch_is_cut_into_as_many_passes_as_there_are_lanes():
    assert Passes(rows=8, lanes=1).cut([5] * 8, [5] * 8) == [8]
    assert Passes(rows=8, lanes=2).cut([5] * 8, [5] * 8) == [4, 4]
    assert Passes(rows=8, lanes=3).cut([5] * 2, [5] * 2) == [1, 1]
