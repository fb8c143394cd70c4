"""Responses of a vLLM server, here a stand-in on the loopback that really samples."""

import copy
from dataclasses import replace

import pytest
import torch

from lora_detox.errors import RolloutError
from lora_detox.rollout import (
    Passes,
    VllmRollouts,
    VllmServer,
    collect_rollout,
    generate_responses,
    mismatch_of,
)
from lora_detox.types import Sampling
from tests.tiny import tiny_backbone, tiny_policy, tiny_prompts
from tests.vllm_server import StandIn

LENGTHS = (3, 9)
PLAIN = Sampling()


def base():
    return tiny_backbone("llama")


@pytest.fixture
def server():
    stand_in = StandIn(base)
    yield stand_in
    stand_in.close()


@pytest.fixture
def policy():
    """With an adapter that changes what is drawn."""
    return tiny_policy("llama", moved=True)


def rollouts(server, policy, folder):
    client = VllmServer(server.url, 20.0)
    return VllmRollouts(client, "base", policy.save_adapter, folder, requests=3)


def answers(generate, policy, *, sampling=PLAIN, seed=5):
    prompts = tiny_prompts(policy, [5, 3, 7, 4, 6])
    return prompts, generate(
        policy, prompts, sampling, response_tokens=LENGTHS, batch_size=2, seed=seed
    )


def recomputed(policy, prompts, responses, sampling):
    count = len(prompts.texts)
    return collect_rollout(
        policy,
        prompts,
        responses,
        sampling,
        minibatch_size=count,
        passes=Passes(rows=count),
        seed=0,
    )


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.7), Sampling(temperature=1.5, min_new_tokens=4)]
)
def test_its_logprobs_are_ours(sampling, server, policy, tmp_path):
    prompts, responses = answers(rollouts(server, policy, tmp_path), policy, sampling=sampling)
    rollout = recomputed(policy, prompts, responses, sampling)
    gap = mismatch_of(rollout, responses, 2.0)
    assert gap.largest_gap < 1e-4
    assert gap.mean_ratio == pytest.approx(1, abs=1e-4)
    assert float((rollout.logprobs - rollout.ref_logprobs).abs().max()) > 0.1  # the adapter acts
    assert [name for name, _ in server.log] == ["load", "unload"]
    assert not list(tmp_path.iterdir())
    lengths = responses.mask.sum(dim=1).tolist()
    ours = generate_responses(
        policy, prompts, sampling, response_tokens=LENGTHS, batch_size=9, seed=5
    )
    assert ours.mask.shape[0] == responses.mask.shape[0]
    for row, (length, body) in enumerate(zip(lengths, _by_prompt(server, prompts), strict=True)):
        ids = responses.ids[row, :length].tolist()
        assert responses.mask[row, :length].all()
        assert sampling.min_new_tokens <= length <= body["max_tokens"]
        ended = ids[-1] in policy.eos_token_ids
        assert ended or length == body["max_tokens"]  # cut where it did not end
        assert not set(ids[:-1]) & set(policy.eos_token_ids)
        assert not responses.logprobs[row, length:].any()
    assert responses.texts == policy.decode_texts(responses.ids, responses.mask)


def _by_prompt(server, prompts):
    """Requests in the order of the prompts; they arrive in any."""
    queries = [i[m].tolist() for i, m in zip(prompts.query_ids, prompts.query_mask, strict=True)]
    left = list(server.bodies)
    for query in queries:
        body = next(one for one in left if one["prompt"] == query)
        left.remove(body)
        yield body


def test_bounds_are_those_of_our_sampler_and_a_seed_repeats(server, policy, tmp_path):
    generate = rollouts(server, policy, tmp_path)
    _, first = answers(generate, policy)
    _, again = answers(generate, policy)
    _, other = answers(generate, policy, seed=6)
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.logprobs, again.logprobs)
    assert other.texts != first.texts
    names = [name for what, name in server.log if what == "load"]
    assert len(set(names)) == 3  # no cached prefix of an earlier adapter


def test_the_adapter_is_loaded_as_it_is_now(server, policy, tmp_path):
    generate = rollouts(server, policy, tmp_path)
    answers(generate, policy)
    changed = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in changed.adapter_parameters():
            parameter.mul_(-1.5)
    prompts, stale = answers(generate, policy)
    generate = rollouts(server, changed, tmp_path)
    prompts, fresh = answers(generate, changed)
    gaps = [
        mismatch_of(recomputed(changed, prompts, one, Sampling()), one, 2.0)
        for one in (fresh, stale)
    ]
    assert gaps[0].largest_gap < 1e-4
    assert gaps[1].mean_gap > 0.01


@pytest.mark.parametrize("fault", ["no adapter", "raw logprobs"])
def test_what_a_server_gets_wrong_shows_in_the_gap(fault, server, policy, tmp_path):
    server.faults.add(fault)
    sampling = Sampling(temperature=0.6)
    prompts, responses = answers(rollouts(server, policy, tmp_path), policy, sampling=sampling)
    gap = mismatch_of(recomputed(policy, prompts, responses, sampling), responses, 2.0)
    assert gap.mean_gap > 0.1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no ids", "gives no token ids with logprobs"),
        ("another prompt", "read another prompt than was sent"),
        ("another end", "which is none of the policy's ends"),
        ("too long", "for a response of at most"),
    ],
)
def test_an_answer_that_cannot_be_used_is_an_error(fault, message, server, policy, tmp_path):
    server.faults.add(fault)
    with pytest.raises(RolloutError, match=message):
        answers(rollouts(server, policy, tmp_path), policy)
    assert server.log[-1][0] == "unload"
    assert not list(tmp_path.iterdir())


def test_a_server_that_takes_no_adapters_says_how_to_start_it(policy, tmp_path):
    stand_in = StandIn(base, takes_adapters=False)
    try:
        with pytest.raises(RolloutError, match=r"takes no adapters while it runs.*RUNTIME_LORA"):
            answers(rollouts(stand_in, policy, tmp_path), policy)
    finally:
        stand_in.close()
    assert not list(tmp_path.iterdir())


def test_its_own_words_of_refusal_are_kept(server, policy, tmp_path):
    policy.model.peft_config["default"].r = 64
    with pytest.raises(RolloutError, match="LoRA rank 64 is greater than max_lora_rank 16"):
        answers(rollouts(server, policy, tmp_path), policy)


def test_a_server_that_is_gone_is_named(server, monkeypatch):
    monkeypatch.setattr("lora_detox.rollout.vllm_server._PAUSE_SECONDS", 0.0)
    assert VllmServer(f"{server.url}/v1", 20.0).models() == ["base"]
    server.close()
    with pytest.raises(RolloutError, match=r"rollout.url: http.*/v1/models does not answer"):
        VllmServer(server.url, 20.0).models()


def test_weights_are_cut_ratios_by_hand(policy):
    prompts, responses = answers(generate_responses, policy)
    rollout = recomputed(policy, prompts, responses, Sampling())
    shift = torch.zeros_like(responses.logprobs)
    shift[0, 0], shift[0, 1] = 1.0, -0.5  # ours less, ours more
    drawn = replace(responses, logprobs=rollout.logprobs + shift)
    gap = mismatch_of(rollout, drawn, 1.2)
    tokens = int(responses.mask.sum())
    assert gap.largest_gap == pytest.approx(1.0, abs=1e-5)
    assert gap.mean_gap == pytest.approx(1.5 / tokens, abs=1e-5)
    assert gap.clipped == pytest.approx(1 / tokens)
    assert float(gap.weights[0, 0]) == pytest.approx(0.36788, abs=1e-4)
    assert float(gap.weights[0, 1]) == pytest.approx(1.2)  # exp(0.5) = 1.65 is cut
    assert float(gap.weights[~responses.mask].min()) == 1.0
