"""What is computed once equals what is computed every time, bit for bit."""

import pytest
import torch

from lora_detox.policy.frozen import merged
from lora_detox.types import Sampling
from tests.tiny import ARCHITECTURES, tiny_policy, tiny_prompts, tiny_responses

SCOPES = [(name, "last_1") for name in ARCHITECTURES]
SCOPES += [("t5", "decoder"), ("gptj", "last_2")]
PLAIN = Sampling()


def batch_of(policy):
    prompts, (ids, mask) = tiny_prompts(policy, [5, 9, 2]), tiny_responses([4, 1, 6])
    return prompts.query_ids, prompts.query_mask, ids, mask, PLAIN


@pytest.mark.parametrize(("architecture", "scope"), SCOPES)
def test_replayed_numbers_and_gradients_are_bitwise_those_of_the_plain_path(architecture, scope):
    policy = tiny_policy(architecture, scope=scope)
    batch, kept = batch_of(policy), policy.frozen_states()
    assert kept is not None
    with torch.no_grad():
        policy.respond(*batch, kept)  # fills
    results = []
    for frozen in (None, kept):
        with policy.training():
            outputs = policy.respond(*batch, frozen)
        loss = outputs.logprobs.sum() + outputs.values.sum()
        grads = torch.autograd.grad(loss, list(policy.trainable_parameters()))
        with policy.reference():
            reference = policy.respond(*batch, frozen).logprobs
        results.append((outputs.logprobs.detach(), outputs.values.detach(), reference, *grads))
    for plain, replayed in zip(*results, strict=True):
        assert torch.equal(plain, replayed)


@pytest.mark.parametrize(("architecture", "scope"), SCOPES)
def test_the_frozen_layers_do_not_run_again(architecture, scope):
    policy = tiny_policy(architecture, scope=scope)
    batch, kept = batch_of(policy), policy.frozen_states()
    part, runs = policy.frozen_part, []
    watched = [getattr(part.owner, part.name)[0]] if part.depth else []
    if part.encoder:
        watched.append(policy.backbone.get_encoder())
    assert watched
    for module in watched:
        module.register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        policy.respond(*batch, kept)
        first = len(runs)
        policy.respond(*batch, kept)
        with policy.reference():
            policy.respond(*batch, kept)
    assert first == len(watched)
    assert len(runs) == first


def test_an_adapter_everywhere_leaves_nothing_to_keep():
    for architecture in ARCHITECTURES:
        policy = tiny_policy(architecture)
        kept = policy.frozen_states()
        policy.respond(*batch_of(policy), kept)
        assert not policy.frozen_part.exists
        assert kept.encoded is kept.lower is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merging_gives_the_same_logits_and_puts_every_bit_back(architecture):
    policy = tiny_policy(architecture)
    batch, before = batch_of(policy), policy.base_checksum()
    with torch.no_grad():
        apart = policy.respond(*batch).logprobs
        with policy.merged():
            assert policy.base_checksum() != before
            together = policy.respond(*batch).logprobs
        again = policy.respond(*batch).logprobs
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    assert torch.equal(again, apart)
    assert policy.base_checksum() == before


def test_merging_is_undone_after_an_error():
    policy = tiny_policy("gptj")
    before = policy.base_checksum()
    with pytest.raises(RuntimeError, match="planted"), policy.merged():
        raise RuntimeError("planted")
    assert policy.base_checksum() == before


def test_bf16_and_dora_are_left_apart():
    for policy in (tiny_policy("gptj", dora=True), tiny_policy("gptj")):
        if not policy.model.peft_config["default"].use_dora:
            policy.backbone.to(torch.bfloat16)
        before = policy.base_checksum()
        with merged(policy.backbone):
            assert policy.base_checksum() == before
