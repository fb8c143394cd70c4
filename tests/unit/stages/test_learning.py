"""It learns: a score that likes one token makes that token more frequent, and moves no base."""

import pytest
import torch

from lora_detox.advantages import (
    AdvantagePlan,
    Baseline,
    RunningMean,
    ScoreScaler,
    estimate_advantages,
)
from lora_detox.advantages.kl_penalty import KlPenalty
from lora_detox.prompts import repeat_prompts
from lora_detox.rollout import Passes, collect_rollout, generate_responses
from lora_detox.types import Sampling
from lora_detox.update import PpoPlan, PpoUpdate
from tests.tiny import DECODER_ONLY, ENCODER_DECODER, tiny_policy, tiny_prompts

LIKED = 7
COMMON = {
    "kl_penalty": KlPenalty.KL,
    "gamma": 1.0,
    "gae_lambda": 0.95,
    "whiten_rewards": False,
}
GROUPED = {"responses_per_prompt": 4, "whiten_advantages": False}
ALGORITHMS = {
    "ppo": AdvantagePlan(**COMMON),
    "rloo": AdvantagePlan(
        **COMMON, **GROUPED, baseline=Baseline.LEAVE_ONE_OUT, sequence_level=True
    ),
    "rloo by token": AdvantagePlan(**COMMON, **GROUPED, baseline=Baseline.LEAVE_ONE_OUT),
    "grpo": AdvantagePlan(
        **COMMON,
        **GROUPED,
        baseline=Baseline.GROUP_MEAN,
        group_std=True,
        kl_in_loss=True,
        mean_by_response=True,
    ),
    "dr grpo": AdvantagePlan(**COMMON, **GROUPED, baseline=Baseline.GROUP_MEAN, kl_in_loss=True),
    "reinforce": AdvantagePlan(
        **COMMON, whiten_advantages=False, baseline=Baseline.RUNNING_MEAN, sequence_level=True
    ),
}
PPO = PpoPlan(
    ppo_epochs=3,
    clip_range=0.2,
    value_clip_range=0.2,
    value_coef=0.1,
    max_grad_norm=1.0,
    ratio_threshold=10.0,
    target_kl=None,
)


def turn_the_arrow(policy, plan):
    """Share of the liked token in each iteration's responses."""
    optimizer = torch.optim.AdamW(policy.trainable_parameters(), lr=0.01)
    update, scaler = PpoUpdate(policy, optimizer, PPO, Sampling()), ScoreScaler()
    running_mean, group, shares = RunningMean(), plan.responses_per_prompt, []
    for iteration in range(12 if plan.baseline is Baseline.VALUE else 20):
        lengths = ([3, 5, 4, 6] * 8)[: 32 // group]
        prompts = repeat_prompts(tiny_prompts(policy, lengths, seed=iteration), group)
        responses = generate_responses(
            policy, prompts, Sampling(), response_tokens=(6, 8), batch_size=32, seed=iteration
        )
        rollout = collect_rollout(
            policy,
            prompts,
            responses,
            Sampling(),
            minibatch_size=16,
            passes=Passes(rows=16),
            seed=iteration,
        )
        liked = (rollout.response_ids == LIKED) & rollout.response_mask
        score = liked.sum(dim=1) / rollout.response_mask.sum(dim=1)
        shares.append(float(score.mean()))
        advantages = estimate_advantages(
            rollout, scaler(score), 0.01, plan, running_mean=running_mean
        )
        update.step(rollout, advantages, iteration)
    return shares


@pytest.mark.parametrize(
    ("architecture", "algorithm"),
    [(ENCODER_DECODER, name) for name in ALGORITHMS]
    + [(DECODER_ONLY, name) for name in ("ppo", "rloo", "grpo", "reinforce")],
)
def test_a_rigged_score_raises_the_share_of_its_token_and_leaves_the_base_alone(
    architecture, algorithm
):
    plan = ALGORITHMS[algorithm]
    policy = tiny_policy(
        architecture,
        moved=False,
        targets=("all-linear",),
        with_value_head=plan.baseline is Baseline.VALUE,
    )
    if architecture == DECODER_ONLY:  # its logits are too small for any state to prefer a token
        with torch.no_grad():
            policy.backbone.lm_head.weight.mul_(15)
    base = policy.base_checksum()
    start = {name: p.clone() for name, p in policy.model.named_parameters()}
    shares = turn_the_arrow(policy, plan)
    assert shares[0] < 0.15
    # From 2 %. Over six seeds ppo reaches 0.38 to 0.95, the others, in more iterations, 0.28 to 1.
    assert max(shares[-3:]) > (0.35 if algorithm == "ppo" else 0.2)
    assert policy.base_checksum() == base
    moved = {n for n, p in policy.model.named_parameters() if not torch.equal(p, start[n])}
    assert moved == {n for n in start if "lora_" in n}
