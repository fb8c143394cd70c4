"""Each check holds, and each planted fault makes its check fail."""

import dataclasses

import pytest
import torch

from lora_detox.classic import forward, generation, objective, trainer
from lora_detox.classic.layout import mask_of
from lora_detox.classic.learning import run_epochs
from lora_detox.classic.objective import minibatch_loss
from lora_detox.classic.trainer import PPOTrainer
from lora_detox.update.kl_control import AdaptiveKl
from tests.unit.classic import properties
from tests.unit.classic.properties import LESSONS


@pytest.mark.training
@pytest.mark.parametrize(("architecture", "lora"), list(LESSONS))
def test_a_rigged_score_raises_the_liked_token(architecture, lora):
    properties.check_that_it_learns(architecture, lora)


CHECKS = [
    properties.check_that_every_epoch_steps,
    properties.check_that_the_kl_coefficient_moves,
    properties.check_that_the_ratio_is_clipped,
    properties.check_that_masks_are_kept,
    properties.check_that_prompts_are_cut,
    properties.check_that_every_update_is_clipped,
    properties.check_that_the_first_t5_token_counts,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_holds(check):
    check()


def frozen_weights(monkeypatch):
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, closure=None: None)


def one_epoch(monkeypatch):
    def once(experience, learner, learn):
        learner.config.ppo_epochs = 1
        return run_epochs(experience, learner, learn)

    monkeypatch.setattr(trainer, "run_epochs", once)


def frozen_kl_coefficient(monkeypatch):
    monkeypatch.setattr(AdaptiveKl, "update", lambda self, kl, samples: None)


def no_clipping(monkeypatch):
    def unclipped(config, *args):
        kept = config.cliprange, config.cliprange_value
        config.cliprange = config.cliprange_value = 1e9
        try:
            return minibatch_loss(config, *args)
        finally:
            config.cliprange, config.cliprange_value = kept

    monkeypatch.setattr(objective, "minibatch_loss", unclipped)


def ignored_masks(monkeypatch):
    monkeypatch.setattr(
        forward,
        "mask_of",
        lambda rows, width, responses, masks: mask_of(rows, width, responses, None),
    )


def kept_prompts(monkeypatch):
    generate = generation.generate_responses

    def with_prompt(model, queries, task):
        return generate(model, queries, dataclasses.replace(task, return_prompt=True))

    monkeypatch.setattr(generation, "generate_responses", with_prompt)


def unclipped_gradients(monkeypatch):
    clip = torch.nn.utils.clip_grad_norm_
    calls = []

    def first_only(parameters, limit):
        calls.append(1)
        return clip(parameters if len(calls) == 1 else [], limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", first_only)


def old_t5_mask(monkeypatch):
    monkeypatch.setattr(PPOTrainer, "strict_trl_masks", property(lambda self: True))


FAULTS = {
    frozen_weights: properties.check_that_it_learns,
    one_epoch: properties.check_that_every_epoch_steps,
    frozen_kl_coefficient: properties.check_that_the_kl_coefficient_moves,
    no_clipping: properties.check_that_the_ratio_is_clipped,
    ignored_masks: properties.check_that_masks_are_kept,
    kept_prompts: properties.check_that_prompts_are_cut,
    unclipped_gradients: properties.check_that_every_update_is_clipped,
    old_t5_mask: properties.check_that_the_first_t5_token_counts,
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found(fault, monkeypatch):
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        FAULTS[fault]()
