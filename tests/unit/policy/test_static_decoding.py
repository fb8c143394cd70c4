"""A cache of fixed size writes what a growing one writes: padding, early ends, dropped rows."""

import pytest
import torch

from lora_detox.policy.static_decoding import can_decode_statically
from lora_detox.rollout.sampling import sample_responses
from lora_detox.types import Sampling
from tests.tiny import MORE_ARCHITECTURES, move, tiny_policy, tiny_prompts

STATIC = ("t5", "gptj", "gpt2", "llama", "gpt_neox", "opt", "granite")
ROOM = torch.tensor([9, 2, 12, 5, 1, 12])


def written(policy, *, static, device="cpu"):
    policy.static_cache = static
    prompts = tiny_prompts(policy, [3, 7, 1, 5, 7, 2]).to(torch.device(device))
    uniforms = torch.rand(len(ROOM), 12, generator=torch.Generator().manual_seed(3)).to(device)
    with torch.no_grad():
        return sample_responses(
            policy, prompts.query_ids, prompts.query_mask, Sampling(), ROOM.to(device), uniforms
        )


@pytest.mark.parametrize("architecture", STATIC)
def test_a_fixed_cache_writes_what_a_growing_one_writes(architecture):
    policy = tiny_policy(architecture)
    move(policy)
    assert can_decode_statically(policy.backbone)
    ids, mask, logprobs = written(policy, static=False)
    fixed_ids, fixed_mask, fixed_logprobs = written(policy, static=True)
    assert torch.equal(ids, fixed_ids)
    assert torch.equal(mask, fixed_mask)
    torch.testing.assert_close(logprobs, fixed_logprobs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "architecture", ["gpt_neo", *(name for name in MORE_ARCHITECTURES if name not in STATIC)]
)
def test_models_whose_step_is_not_fixed_keep_a_growing_cache(architecture):
    policy = tiny_policy(architecture)
    assert not can_decode_statically(policy.backbone)
    ids, *_ = written(policy, static=True)
    assert torch.equal(ids, written(policy, static=False)[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("architecture", STATIC)
def test_a_replayed_graph_writes_what_a_growing_cache_writes(architecture, merged):
    policy = tiny_policy(architecture)
    move(policy)
    policy.model.to("cuda")
    ids, mask, logprobs = written(policy, static=False, device="cuda")
    if merged:
        with policy.merged():
            graphed = written(policy, static=True, device="cuda")
    else:
        graphed = written(policy, static=True, device="cuda")
    assert torch.equal(ids, graphed[0])
    assert torch.equal(mask, graphed[1])
    torch.testing.assert_close(logprobs, graphed[2], rtol=0, atol=1e-3)
