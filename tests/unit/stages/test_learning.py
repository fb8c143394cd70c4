"""It learns: a score that likes some tokens makes them more frequent, and moves no base."""

import pytest
import torch

from lora_detox.advantages import AdvantagePlan, RunningMean, ScoreScaler, estimate_advantages
from lora_detox.choices import Baseline, KlPenalty
from lora_detox.prompts.batching import repeat_prompts
from lora_detox.rollout import Passes, Responses, collect_rollout, generate_responses
from lora_detox.types import Sampling
from lora_detox.update import PpoPlan, PpoUpdate
from tests.learning import assert_direction, assert_learned, is_liked, liked_and_other
from tests.tiny import DECODER_ONLY, ENCODER_DECODER, tiny_policy, tiny_prompts

COMMON = {
    "kl_penalty": KlPenalty.kl,
    "gamma": 1.0,
    "gae_lambda": 0.95,
    "whiten_rewards": False,
}
GROUPED = {"responses_per_prompt": 4, "whiten_advantages": False}
ALGORITHMS = {
    "ppo": AdvantagePlan(**COMMON),
    "rloo": AdvantagePlan(
        **COMMON, **GROUPED, baseline=Baseline.leave_one_out, sequence_level=True
    ),
    "rloo by token": AdvantagePlan(**COMMON, **GROUPED, baseline=Baseline.leave_one_out),
    "grpo": AdvantagePlan(
        **COMMON,
        **GROUPED,
        baseline=Baseline.group_zscore,
        kl_in_loss=True,
        mean_by_response=True,
    ),
    "dr grpo": AdvantagePlan(**COMMON, **GROUPED, baseline=Baseline.group_mean, kl_in_loss=True),
    "reinforce": AdvantagePlan(
        **COMMON, whiten_advantages=False, baseline=Baseline.running_mean, sequence_level=True
    ),
}
PPO = {
    "clip_range": 0.2,
    "value_clip_range": 0.2,
    "value_coef": 0.1,
    "max_grad_norm": 1.0,
    "ratio_threshold": 10.0,
    "target_kl": None,
}
SHARPER = {ENCODER_DECODER: 3, DECODER_ONLY: 15}


class Lesson:
    """A fresh policy, its optimizer and the steps of the arrow behind the sampling."""

    def __init__(self, architecture, algorithm, optimizer, *, seed, ppo_epochs):
        self.plan = ALGORITHMS[algorithm]
        self.policy = tiny_policy(
            architecture,
            moved=False,
            targets=("all-linear",),
            seed=seed,
            with_value_head=self.plan.baseline is Baseline.value,
        )
        with torch.no_grad():  # random logits are too small for a state to prefer a token soon
            self.policy.backbone.lm_head.weight.mul_(SHARPER[architecture])
        self.update = PpoUpdate(
            self.policy,
            optimizer(self.policy.trainable_parameters()),
            PpoPlan(**PPO, ppo_epochs=ppo_epochs),
            Sampling(),
        )
        self.scaler, self.running_mean = ScoreScaler(), RunningMean()

    def prompts(self, count, seed):
        group = self.plan.responses_per_prompt
        lengths = ([3, 5, 4, 6] * 16)[: count // group]
        return repeat_prompts(tiny_prompts(self.policy, lengths, seed=seed), group)

    def learn_from(self, prompts, responses, iteration, minibatches):
        rollout = collect_rollout(
            self.policy,
            prompts,
            responses,
            Sampling(),
            minibatch_size=len(responses.ids) // minibatches,
            passes=Passes(rows=32),
            seed=iteration,
        )
        score = self.scaler(fraction_of_liked(responses))
        advantages = estimate_advantages(
            rollout, score, 0.01, self.plan, running_mean=self.running_mean
        )
        return rollout, self.update.step(rollout, advantages, iteration)


def weights_of(policy):
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def moved_since(start, policy):
    return {n for n, p in policy.model.named_parameters() if not torch.equal(p, start[n])}


def fraction_of_liked(responses):
    liked = is_liked(responses.ids) & responses.mask
    return liked.sum(dim=1) / responses.mask.sum(dim=1)


@pytest.mark.parametrize("architecture", [ENCODER_DECODER, DECODER_ONLY])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_step_makes_liked_responses_likelier_and_leaves_the_base_alone(architecture, algorithm):
    lesson = Lesson(
        architecture, algorithm, lambda p: torch.optim.SGD(p, lr=1e-3), seed=0, ppo_epochs=1
    )
    policy, prompts = lesson.policy, lesson.prompts(16, seed=1)
    base, start = policy.base_checksum(), weights_of(policy)
    ids = liked_and_other(16, 6)
    mask = torch.ones_like(ids, dtype=torch.bool)
    given = Responses(ids=ids, mask=mask, logprobs=torch.zeros(ids.shape), texts=[""] * 16)
    rollout, stats = lesson.learn_from(prompts, given, 0, minibatches=1)
    assert stats.optimizer_steps == 1
    with torch.no_grad():
        after = policy.respond(prompts.query_ids, prompts.query_mask, ids, mask, Sampling())
    assert_direction(rollout.logprobs, after.logprobs, is_liked(ids[:, 0]))
    assert policy.base_checksum() == base
    assert moved_since(start, policy) == {n for n in start if "lora_B" in n}  # A waits while B is 0


def fractions_of_a_run(architecture, seed):
    """Fraction of liked tokens in the responses of each iteration."""
    lesson = Lesson(
        architecture, "ppo", lambda p: torch.optim.AdamW(p, lr=0.03), seed=seed, ppo_epochs=4
    )
    base, start, fractions = lesson.policy.base_checksum(), weights_of(lesson.policy), []
    for iteration in range(100 * seed, 100 * seed + 4):
        prompts = lesson.prompts(64, seed=iteration)
        responses = generate_responses(
            lesson.policy,
            prompts,
            Sampling(),
            response_tokens=(2, 2),
            batch_size=64,
            seed=iteration,
        )
        fractions.append(float(fraction_of_liked(responses).mean()))
        if len(fractions) < 4:
            lesson.learn_from(prompts, responses, iteration, minibatches=2)
    assert lesson.policy.base_checksum() == base
    assert moved_since(start, lesson.policy) == {n for n in start if "lora_" in n}
    return fractions


@pytest.mark.training
@pytest.mark.parametrize("architecture", [ENCODER_DECODER, DECODER_ONLY])
def test_runs_from_several_seeds_raise_the_fraction_of_the_liked_tokens(architecture):
    fractions = [fractions_of_a_run(architecture, seed) for seed in range(5)]
    assert_learned(fractions)
