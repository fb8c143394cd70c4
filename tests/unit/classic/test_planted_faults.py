"""Each check holds, and each planted fault makes its check fail."""

import dataclasses

import numpy as np
import pytest
import torch

from lora_detox.classic import forward, generation, objective, set_seed, trainer
from lora_detox.classic.layout import mask_of
from lora_detox.classic.learning import run_epochs
from lora_detox.classic.objective import minibatch_loss
from lora_detox.classic.trainer import PPOTrainer
from lora_detox.update.kl_control import AdaptiveKl
from tests.learning import assert_direction, assert_learned, is_liked, liked_and_other
from tests.unit.classic import properties
from tests.unit.classic.programs import SAMPLE, policy, quiet_trainer, some_queries


def lesson(architecture, lora, seed=0, **options):
    set_seed(seed)
    model = policy(architecture, lora=lora, seed=seed)
    if architecture == "gpt2":  # its tied outputs are too small for a peaked distribution
        with torch.no_grad():
            model.backbone.get_input_embeddings().weight.mul_(5.0)
    return quiet_trainer(model, init_kl_coef=0.02, **options)


def queries_of(count, seed):
    return some_queries(tuple(3 + i % 3 for i in range(count)), seed=seed)


def check_that_one_step_likes_what_the_score_likes(architecture="gpt2", lora=False):
    """Over the models of four seeds: one step of LoRA may do little on a single random T5."""
    steps = [one_step(architecture, lora, seed) for seed in range(4)]
    before, after, liked = map(torch.cat, zip(*steps, strict=True))
    assert_direction(before, after, liked)


def one_step(architecture, lora, seed):
    """Mean logprobs of 16 responses before and after a step, and which of them the score likes."""
    options = {"mini_batch_size": 16, "ppo_epochs": 1, "learning_rate": 1e-3}
    learner = lesson(architecture, lora, seed, batch_size=16, **options)
    start = (0,) if architecture == "t5" else ()
    tokens = liked_and_other(16, 6)
    liked = is_liked(tokens[:, 0])
    responses = [torch.tensor([*start, *row]) for row in tokens.tolist()]
    queries = queries_of(16, seed=1)

    def logprobs():
        inputs = learner.prepare_model_inputs(queries, responses)
        with torch.no_grad():
            each, _, _, mask = learner.batched_forward_pass(
                learner.model, queries, responses, inputs
            )
        assert mask.sum(dim=1).tolist() == [6] * 16
        return (each * mask).sum(dim=1) / 6

    before = logprobs()
    stats = learner.step(queries, responses, [2 * one.float() - 1 for one in liked])
    assert abs(stats["objective/kl"]) < 1e-4
    frozen = [p for p in learner.model.parameters() if not p.requires_grad]
    assert bool(frozen) == lora
    return before, logprobs(), liked


PROGRAMS = [("gpt2", False), ("gpt2", True), ("t5", False), ("t5", True)]


@pytest.mark.parametrize(("architecture", "lora"), PROGRAMS)
def test_one_step_makes_liked_responses_likelier(architecture, lora):
    check_that_one_step_likes_what_the_score_likes(architecture, lora)


RATES = {("gpt2", True): 0.03, ("t5", False): 0.02}


def fractions_of_a_run(architecture, lora, seed):
    """Fraction of responses, of one token each, that the score likes, by step."""
    options = {"mini_batch_size": 32, "learning_rate": RATES[architecture, lora]}
    learner = lesson(architecture, lora, seed, batch_size=64, **options)
    fractions = []
    for step in range(4):
        queries = queries_of(64, seed=10 * seed + step)
        responses = learner.generate(
            queries, batch_size=64, return_prompt=False, **(SAMPLE | {"max_new_tokens": 1})
        )
        liked = torch.stack([is_liked(row[-1]).float() for row in responses])
        fractions.append(float(liked.mean()))
        if step < 3:
            stats = learner.step(queries, responses, list(4 * liked))
            assert np.isfinite(stats["objective/kl"])
            assert stats["ppo/mean_scores"] == pytest.approx(4 * fractions[-1])
    return fractions


@pytest.mark.training
@pytest.mark.parametrize(("architecture", "lora"), list(RATES))
def test_runs_from_several_seeds_raise_the_fraction_of_the_liked_tokens(architecture, lora):
    assert_learned([fractions_of_a_run(architecture, lora, seed) for seed in range(5)])


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
    frozen_weights: check_that_one_step_likes_what_the_score_likes,
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
