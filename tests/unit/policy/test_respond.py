"""Logprobs, values and KL of given responses, against one plain forward per row and token."""

import pytest
import torch

from lora_detox.policy.loading import enable_checkpointing
from lora_detox.types import Sampling
from tests.tiny import (
    ARCHITECTURES,
    MORE_ARCHITECTURES,
    move,
    tiny_policy,
    tiny_prompts,
    tiny_responses,
)
from tests.warpers import library_logits

PLAIN = Sampling()
EVERY_ARCHITECTURE = ARCHITECTURES + MORE_ARCHITECTURES
SAMPLINGS = [PLAIN, Sampling(temperature=0.7, top_k=12, top_p=0.9, min_new_tokens=2)]


def slow_logits(policy, query, response, t):
    """Logits before response[t], by the model's own full forward on this row alone."""
    model = policy.model
    if policy.backbone.config.is_encoder_decoder:
        decoder_ids = torch.tensor([[0, *response[:t]]])  # start token, then what was said so far
        return model(input_ids=query[None], decoder_input_ids=decoder_ids).logits[0, -1]
    ids = torch.cat([query, torch.tensor(response[:t], dtype=torch.long)])
    return model(input_ids=ids[None]).logits[0, -1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
def test_at_the_start_the_policy_is_its_reference_to_the_bit(architecture, dtype):
    policy = tiny_policy(architecture, moved=False)
    policy.backbone.to(dtype)
    prompts, (ids, mask) = tiny_prompts(policy, [5, 9, 3]), tiny_responses([4, 1, 7])
    batch = (prompts.query_ids, prompts.query_mask, ids, mask, PLAIN)
    assert policy.is_reference
    with torch.no_grad():
        own = policy.respond(*batch).logprobs
        with policy.reference():
            assert torch.equal(policy.respond(*batch).logprobs, own)
    move(policy)
    assert not policy.is_reference
    assert not tiny_policy(
        architecture, moved=False, dora=True
    ).is_reference  # equal within rounding alone


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
def test_logprobs_and_entropy_match_a_forward_per_token(architecture, sampling):
    policy = tiny_policy(architecture)
    prompts = tiny_prompts(policy, [5, 9, 3])
    ids, mask = tiny_responses([4, 1, 7])
    ids[2, 0] = ids[0, 0]
    with torch.no_grad():
        outputs = policy.respond(prompts.query_ids, prompts.query_mask, ids, mask, sampling)
        for row in range(3):
            query = prompts.query_ids[row][prompts.query_mask[row]]
            response = ids[row][mask[row]].tolist()
            for t, token in enumerate(response):
                logits = slow_logits(policy, query, response, t).float()[None]
                log_p = library_logits(logits, t, sampling, 1).log_softmax(-1)[0]
                if log_p[token].isinf():
                    assert outputs.logprobs[row, t].isinf()
                    continue
                torch.testing.assert_close(
                    outputs.logprobs[row, t], log_p[token], rtol=1e-4, atol=2e-5
                )
                entropy = torch.distributions.Categorical(logits=log_p).entropy()
                torch.testing.assert_close(outputs.entropy[row, t], entropy, rtol=1e-3, atol=1e-4)
    assert (outputs.logprobs[~mask] == 0).all()
    assert (outputs.values[~mask] == 0).all()


@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
def test_a_batch_equals_its_rows_alone(architecture):
    policy = tiny_policy(architecture)
    prompts = tiny_prompts(policy, [6, 2, 11, 4])
    ids, mask = tiny_responses([3, 8, 1, 5])
    with torch.no_grad():
        together = policy.respond(prompts.query_ids, prompts.query_mask, ids, mask, PLAIN)
        for row in range(4):
            one = slice(row, row + 1)
            alone = policy.respond(
                prompts.query_ids[one], prompts.query_mask[one], ids[one], mask[one], PLAIN
            )
            for name in ("logprobs", "values"):
                torch.testing.assert_close(
                    getattr(together, name)[one], getattr(alone, name), rtol=1e-4, atol=2e-5
                )


@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
def test_every_token_the_first_and_eos_included_has_a_gradient(architecture):
    policy = tiny_policy(architecture)
    prompts, (ids, mask) = tiny_prompts(policy, [5, 4]), tiny_responses([3, 5])
    outputs = policy.respond(prompts.query_ids, prompts.query_mask, ids, mask, PLAIN)
    for row, t in mask.nonzero().tolist():
        for tensor in (outputs.logprobs, outputs.values):
            grads = torch.autograd.grad(
                tensor[row, t],
                list(policy.adapter_parameters()),
                retain_graph=True,
                allow_unused=True,
            )
            assert sum(float(g.abs().sum()) for g in grads if g is not None) > 0, (row, t)


def test_the_t5_start_token_is_state_and_not_action():
    """T5's logprobs sum to the log-likelihood that the model's own loss gives for the labels."""
    policy = tiny_policy("t5")
    prompts, (ids, mask) = tiny_prompts(policy, [5, 4]), tiny_responses([3, 6])
    with torch.no_grad():
        logprobs = policy.respond(prompts.query_ids, prompts.query_mask, ids, mask, PLAIN).logprobs
        loss = policy.model(
            input_ids=prompts.query_ids,
            attention_mask=prompts.query_mask.long(),
            labels=ids.masked_fill(~mask, -100),
        ).loss
    torch.testing.assert_close(-logprobs.sum() / mask.sum(), loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
def test_reference_is_the_backbone_with_the_adapter_off(architecture):
    policy = tiny_policy(architecture)
    prompts, (ids, mask) = tiny_prompts(policy, [5, 4]), tiny_responses([3, 6])
    batch = (prompts.query_ids, prompts.query_mask, ids, mask, PLAIN)
    with torch.no_grad():
        on = policy.respond(*batch).logprobs
        with policy.reference():
            off = policy.respond(*batch).logprobs
        again = policy.respond(*batch).logprobs
        bare = tiny_policy(architecture, moved=False).respond(*batch).logprobs
    assert (on - off).abs().max() > 1e-3
    assert torch.equal(on, again)
    torch.testing.assert_close(off, bare, rtol=1e-5, atol=1e-6)
    assert all(p.requires_grad for p in policy.trainable_parameters())


@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
def test_kl_to_the_reference_is_zero_before_training(architecture):
    policy = tiny_policy(architecture, moved=False)
    prompts, (ids, mask) = tiny_prompts(policy, [5, 4]), tiny_responses([3, 6])
    batch = (prompts.query_ids, prompts.query_mask, ids, mask, PLAIN)
    with torch.no_grad():
        on = policy.respond(*batch).logprobs
        with policy.reference():
            off = policy.respond(*batch).logprobs
    assert torch.equal(on, off)
    assert policy.full_kl(*batch).abs().max() < 1e-6


@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
def test_full_kl_is_the_sum_over_the_vocabulary(architecture):
    policy = tiny_policy(architecture)
    prompts, (ids, mask) = tiny_prompts(policy, [5, 4]), tiny_responses([3, 4])
    exact = policy.full_kl(prompts.query_ids, prompts.query_mask, ids, mask, PLAIN)
    query = prompts.query_ids[0][prompts.query_mask[0]]
    response = ids[0][mask[0]].tolist()
    with torch.no_grad():
        for t in range(len(response)):
            p = slow_logits(policy, query, response, t).double().softmax(-1)
            with policy.reference():
                q = slow_logits(policy, query, response, t).double().softmax(-1)
            slow = sum(float(p[v] * (p[v] / q[v]).log()) for v in range(len(p)))
            assert float(exact[0, t]) == pytest.approx(slow, abs=1e-5)
    assert (exact >= -1e-6).all()


def test_chunked_logprobs_equal_whole_ones_with_their_gradient(monkeypatch):
    policy = tiny_policy("gptj")
    prompts, (ids, mask) = tiny_prompts(policy, [5, 4]), tiny_responses([3, 6])
    results = []
    for elements in (2**24, 80):  # 80: two tokens a chunk
        monkeypatch.setattr(
            "lora_detox.machine.CHUNK_ELEMENTS", {"cpu": elements, "cuda": elements}
        )
        outputs = policy.respond(prompts.query_ids, prompts.query_mask, ids, mask, PLAIN)
        grads = torch.autograd.grad(outputs.logprobs.sum(), list(policy.adapter_parameters()))
        results.append((outputs.logprobs.detach(), outputs.entropy, grads))
    (whole, entropy, grads), (chunked, chunked_entropy, chunked_grads) = results
    torch.testing.assert_close(whole, chunked)
    torch.testing.assert_close(entropy, chunked_entropy)
    torch.testing.assert_close(grads, chunked_grads, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ["t5", "gptj"])
def test_gradient_checkpointing_changes_no_number_and_saves_activations(architecture):
    saved, grads = {}, {}
    for checkpointing in (False, True):
        policy = tiny_policy(architecture)
        if checkpointing:
            enable_checkpointing(policy.backbone)
        prompts, (ids, mask) = tiny_prompts(policy, [9, 7]), tiny_responses([8, 8])
        kept = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x
        )
        with policy.training(), hooks:
            outputs = policy.respond(prompts.query_ids, prompts.query_mask, ids, mask, PLAIN)
        saved[checkpointing] = sum(kept)
        with policy.training():
            grads[checkpointing] = torch.autograd.grad(
                outputs.logprobs.sum(), list(policy.adapter_parameters())
            )
    for with_it, without in zip(grads[True], grads[False], strict=True):
        # T5 picks another attention kernel for the recomputed pass, hence no tighter bound
        assert (with_it - without).abs().max() <= 1e-3 * without.abs().max()
    assert saved[True] < 0.7 * saved[False]
