"""Layers whose weights are divided: the same numbers, held only while a layer computes.

The second process is a twin that only lends; tests/processes starts two.
"""

import pytest
import torch

from lora_detox import processes as module
from lora_detox.policy.sharded import IDLE, ShardedBackbone
from lora_detox.processes import Processes
from lora_detox.types import Sampling
from tests.tiny import (
    ARCHITECTURES,
    MORE_ARCHITECTURES,
    tiny_policy,
    tiny_prompts,
    tiny_responses,
)

SAMPLING = Sampling(temperature=1.0)


class One(Processes):
    """One of two; the other waits, and lends what its twin of the backbone keeps."""

    def __init__(self, rank):
        super().__init__(rank, 2)
        self.wanted, self.twin, self.lender = [], None, None

    def lend(self, lender):
        self.lender = lender

    def numbers(self, own):
        self.wanted.append(own)
        return [own, IDLE]

    def collect(self, share, into):
        lent = self.twin.layers[self.wanted[-1]].share
        assert into.untyped_storage().data_ptr() != share.untyped_storage().data_ptr()
        into.copy_(torch.cat([share, lent]))


@pytest.fixture
def divided(monkeypatch):
    """A policy of which half lies with a twin, and the process that it is in."""

    def make(architecture):
        monkeypatch.setattr(module, "_current", [One(1)])
        twin = ShardedBackbone(tiny_policy(architecture).backbone, torch.device("cpu"))
        us = One(0)
        us.twin = twin
        monkeypatch.setattr(module, "_current", [us])
        policy = tiny_policy(architecture)
        policy.shard(torch.device("cpu"))
        return policy, us

    return make


def batch(policy):
    prompts = tiny_prompts(policy, [5, 3])
    return (prompts.query_ids, prompts.query_mask, *tiny_responses([4, 6]))


def held(layer):
    """Weights of a layer that this process has whole."""
    return sum(piece.owner._parameters[piece.name].numel() for piece in layer.pieces)


def gradients(policy, rows):
    with policy.training():
        out = policy.respond(*rows, SAMPLING)
        (out.logprobs.sum() + out.values.sum()).backward()
    return out.logprobs.detach(), [p.grad for p in policy.trainable_parameters()]


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *MORE_ARCHITECTURES])
def test_logprobs_and_gradients_are_those_of_the_whole_backbone(architecture, divided):
    whole, (policy, us) = tiny_policy(architecture), divided(architecture)
    rows = batch(whole)
    expected, expected_gradients = gradients(whole, rows)
    us.wanted.clear()
    logprobs, found = gradients(policy, rows)
    torch.testing.assert_close(logprobs, expected)
    for one, other in zip(found, expected_gradients, strict=True):
        torch.testing.assert_close(one, other)
    forward = us.wanted[: len(us.wanted) // 2]
    assert us.wanted == [*forward, *reversed(forward)]  # once more for the backward pass
    with policy.reference(), whole.reference():
        torch.testing.assert_close(
            policy.respond(*rows, SAMPLING).logprobs, whole.respond(*rows, SAMPLING).logprobs
        )


@pytest.mark.parametrize("architecture", ["t5", "gptj"])
def test_responses_are_written_as_by_the_whole_backbone(architecture, divided):
    whole, (policy, _) = tiny_policy(architecture), divided(architecture)
    ids, mask, *_ = batch(whole)
    with torch.no_grad(), whole.merged(), policy.merged():
        ours, theirs = (one.decoding(ids, mask, SAMPLING, 3) for one in (policy, whole))
        token_ids = None
        for _ in range(3):
            logits, expected = ours.next_logits(token_ids), theirs.next_logits(token_ids)
            torch.testing.assert_close(logits, expected)
            token_ids = expected.argmax(dim=-1)


@pytest.mark.parametrize("architecture", ["t5", "gptj"])
def test_a_process_keeps_half_of_the_layers(architecture, divided):
    whole, (policy, us) = tiny_policy(architecture), divided(architecture)
    layers = policy.sharded.layers
    kept = {p.data_ptr(): p.numel() for p in policy.backbone.parameters() if p.numel()}
    assert sum(kept.values()) + policy.sharded.elements == sum(
        p.numel() for p in whole.backbone.parameters()
    )
    assert all(2 * len(layer.share) == layer.bytes for layer in layers)
    assert sum(layer.bytes for layer in layers) < 1.1 * 4 * policy.sharded.elements
    assert policy.count_parameters() == whole.count_parameters()
    assert us.lender is policy.sharded
    rows = batch(policy)
    gradients(policy, rows)
    assert all(
        piece.owner._parameters[piece.name].numel() == 0 for one in layers for piece in one.pieces
    )


def test_an_error_in_a_layer_leaves_its_weights_with_the_others(divided):
    policy, _ = divided("gptj")
    broken = policy.sharded.layers[1].pieces[0].owner
    broken.forward = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError), torch.no_grad():
        policy.respond(*batch(policy), SAMPLING)
    assert not held(policy.sharded.layers[1])


@pytest.mark.parametrize("architecture", ["t5", "gptj", "llama"])
def test_the_checksum_is_that_of_the_whole_backbone(architecture, divided):
    whole, (policy, _) = tiny_policy(architecture), divided(architecture)
    assert policy.base_checksum() == whole.base_checksum()


def test_who_waits_collects_what_the_others_want(divided):
    policy, us = divided("gptj")
    said = iter([[IDLE, 2], [IDLE, 0], [IDLE, IDLE]])
    collected = []
    us.numbers = lambda own: next(said)
    us.collect = lambda share, into: collected.append((share.data_ptr(), len(into)))
    policy.sharded.wait()
    layers = policy.sharded.layers
    assert collected == [(layers[n].share.data_ptr(), layers[n].bytes) for n in (2, 0)]
