"""What an evaluation measures, and how often the policy reads its own responses."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from lora_detox.clock import Clock
from lora_detox.evaluation import evaluator as module
from lora_detox.evaluation.evaluator import Evaluator
from lora_detox.metrics import names
from lora_detox.metrics.quality import rollout_quality
from lora_detox.rollout import Passes, collect_rollout, generate_responses, rollout_of_start
from lora_detox.types import Sampling, Scores
from tests.tiny import tiny_policy, tiny_prompts

LENGTHS = [5, 9, 2, 7, 3, 11]
GENERATION = {"response_tokens": (8, 8), "batch_size": 4}


class Lengths:
    """More characters are better; nothing is toxic."""

    scorer_id = "lengths"

    def score(self, prompts, responses, **columns):
        score = torch.tensor([float(len(text)) for text in responses])
        return Scores(
            score=score, toxicity=torch.zeros_like(score), parts={}, scorer_id=self.scorer_id
        )


def evaluator(policy, sampling=None, generate=generate_responses):
    return Evaluator(
        policy=policy,
        reward=Lengths(),
        judge=None,
        sampling=sampling or Sampling(),
        generation=GENERATION,
        batch_size=6,
        seed=5,
        perplexity=True,
        clock=Clock(),
        generate=generate,
    )


@contextmanager
def counted(policy):
    """Count the passes of `respond`."""
    passes, respond = [], policy.respond

    def counting(*args, **kwargs):
        passes.append(policy)
        return respond(*args, **kwargs)

    policy.respond = counting
    yield passes
    del policy.respond


@pytest.mark.parametrize("architecture", ["t5", "gptj"])
@pytest.mark.parametrize(
    ("sampling", "moved", "passes"),
    [
        (Sampling(), True, 1),
        (Sampling(), False, 0),
        (Sampling(temperature=0.7), True, 2),
        (Sampling(temperature=0.7), False, 1),
        (Sampling(top_k=5), True, 2),
        (Sampling(min_new_tokens=4), True, 2),
        (Sampling(greedy=True), True, 2),
    ],
)
def test_kl_is_that_of_recomputed_logprobs(architecture, sampling, moved, passes):
    policy = tiny_policy(architecture, moved=moved)
    prompts = tiny_prompts(policy, LENGTHS)
    with counted(policy) as seen:
        evaluation = evaluator(policy, sampling)(prompts)
    assert len(seen) == passes
    responses = generate_responses(policy, prompts, sampling, **GENERATION, seed=5)
    rollout = collect_rollout(
        policy, prompts, responses, Sampling(), minibatch_size=6, passes=Passes(rows=6), seed=0
    )
    wanted = (rollout.logprobs - rollout.ref_logprobs).sum(dim=1)
    kl = torch.tensor(evaluation.per_response[names.REF_KL])
    torch.testing.assert_close(kl, wanted, rtol=1e-4, atol=1e-4)
    assert bool((kl == 0).all()) is not moved
    nll = torch.tensor(evaluation.per_response[names.REFERENCE_NLL])
    torch.testing.assert_close(nll, -rollout.ref_logprobs.sum(dim=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(greedy=True)], ids=["one", "two"])
def test_its_progress_goes_on_while_responses_are_read(sampling, monkeypatch):
    policy = tiny_policy("gptj", moved=True)
    seen, read, respond = [], [], policy.respond
    monkeypatch.setattr(module, "advance", seen.append)

    def reading(*args, **kwargs):
        read.append(len(args[0]))
        return respond(*args, **kwargs)

    monkeypatch.setattr(policy, "respond", reading)
    one = replace(evaluator(policy, sampling), batch_size=4)
    one(tiny_prompts(policy, LENGTHS))
    assert read == [4, 2] * (len(read) // 2)
    assert sum(seen) == pytest.approx(len(LENGTHS))
    assert len(seen) == len(read)


def test_another_decoding_is_measured_under_the_policy_itself():
    policy = tiny_policy("gptj")

    def hotter(policy, prompts, sampling, **generation):
        return generate_responses(policy, prompts, Sampling(temperature=2.0), **generation)

    with counted(policy) as seen:
        evaluator(policy, generate=hotter)(tiny_prompts(policy, LENGTHS))
    assert len(seen) == 2


def test_weights_in_few_bits_read_their_responses_again():
    policy = tiny_policy("gptj")
    with counted(policy) as seen:
        replace(evaluator(policy), quantized=True)(tiny_prompts(policy, LENGTHS))
    assert len(seen) == 2


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.7, top_k=9)])
def test_rollouts_of_the_start_need_no_pass(sampling):
    policy = tiny_policy("gptj", moved=False)
    prompts = tiny_prompts(policy, LENGTHS)
    responses = generate_responses(policy, prompts, sampling, **GENERATION, seed=5)
    start = rollout_of_start(prompts, responses)
    collected = collect_rollout(
        policy, prompts, responses, sampling, minibatch_size=6, passes=Passes(rows=6), seed=0
    )
    torch.testing.assert_close(start.ref_logprobs, collected.ref_logprobs, rtol=1e-4, atol=1e-4)
    assert rollout_quality(start).measures == pytest.approx(
        rollout_quality(collected).measures, rel=1e-4, abs=1e-4
    )
