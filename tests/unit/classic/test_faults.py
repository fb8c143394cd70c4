"""What was wrong in TRL 0.11.4 and is right here; docs/classic_differences.md lists each."""

import warnings

import numpy as np
import pytest
import torch

from lora_detox.classic import create_reference_model
from tests.unit.classic import properties
from tests.unit.classic.programs import (
    policy,
    quiet_trainer,
    some_queries,
    some_responses,
    some_scores,
)


def test_the_first_response_token_of_t5_is_trained():
    """Its logprob moves when no other token has a reward."""
    properties.check_that_the_first_t5_token_counts()
    trainer = quiet_trainer(policy("t5"), batch_size=1, mini_batch_size=1, learning_rate=1e-2)
    queries, responses = some_queries()[:1], [torch.tensor([0, 9, 1])]

    def first_logprob():
        inputs = trainer.prepare_model_inputs(queries, responses)
        with torch.no_grad():
            return float(
                trainer.batched_forward_pass(trainer.model, queries, responses, inputs)[0][0, 0]
            )

    before = first_logprob()
    trainer.step(queries, responses, [torch.tensor(0.0)])
    assert abs(first_logprob() - before) > 1e-4


@pytest.mark.parametrize("start", [(0,), ()])
def test_a_t5_response_of_one_token_is_no_error(start):
    trainer = quiet_trainer(policy("t5"))
    responses = [torch.tensor([*start, token]) for token in (1, 9, 10, 11)]
    stats = trainer.step(some_queries(), responses, some_scores())
    assert np.isfinite(stats["ppo/loss/total"])
    assert stats["objective/logprobs"].shape == (4, 1)
    assert (stats["objective/logprobs"] != 0).all()


def test_start_token_or_not_the_numbers_are_the_same():
    numbers = []
    for start in ((0,), ()):
        trainer = quiet_trainer(policy("t5"), ppo_epochs=1)
        numbers.append(trainer.step(some_queries(), some_responses(start=start), some_scores()))
    for name in ("objective/logprobs", "ppo/returns/mean", "ppo/loss/total"):
        np.testing.assert_allclose(numbers[0][name], numbers[1][name], rtol=1e-5, atol=1e-6)


def test_strict_masks_reproduce_the_old_one_and_can_be_set_on_either():
    for options in ({"strict_trl_masks": True}, {}):
        trainer = quiet_trainer(policy("t5"), **options)
        trainer.config.strict_trl_masks = not options
        responses = some_responses(start=(0,))
        inputs = trainer.prepare_model_inputs(some_queries(), responses)
        logprobs, _, _, mask = trainer.batched_forward_pass(
            trainer.model, some_queries(), responses, inputs
        )
        assert logprobs.shape == (4, 6)
        assert mask.tolist() == [
            [0, 1, 1, 1, 1, 0],
            [0, 1, 0, 0, 0, 0],
            [0, 1, 1, 1, 1, 1],
            [0, 1, 1, 0, 0, 0],
        ]
    assert not quiet_trainer(policy("gpt2"), strict_trl_masks=True).strict_trl_masks


def test_strict_masks_name_a_row_that_has_no_token_left():
    trainer = quiet_trainer(policy("t5"), strict_trl_masks=True)
    responses = [torch.tensor([0, 1])] * 4
    with pytest.raises(ValueError, match="no response token"):
        trainer.step(some_queries(), responses, some_scores())


@pytest.mark.parametrize("norm", [False, True])
def test_score_scaling_works(norm):
    trainer = quiet_trainer(policy(), use_score_scaling=True, use_score_norm=norm, ppo_epochs=1)
    seen = []
    for scale in (1.0, 10.0):
        scores = [torch.tensor(scale * x) for x in (1.0, 2.0, 3.0, 6.0)]
        seen += [float(s) for s in scores]
        stats = trainer.step(some_queries(), some_responses(), scores)
        expected = np.array(seen[-4:]) - (np.mean(seen) if norm else 0.0)
        assert stats["ppo/mean_scores"] == pytest.approx(
            (expected / np.std(seen, ddof=1)).mean(), rel=1e-4, abs=1e-6
        )


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_a_given_reference_is_used_for_a_peft_policy(architecture):
    model = policy(architecture, lora=True)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # an adapter that was trained before
            torch.nn.init.normal_(parameter, std=0.5)
    reference = create_reference_model(model)
    trainer = quiet_trainer(model, reference)
    assert trainer.ref_model is reference
    first = trainer.step(some_queries(), some_responses(), some_scores())
    assert abs(first["objective/kl"]) < 1e-4
    without = quiet_trainer(model).step(some_queries(), some_responses(), some_scores())
    assert abs(without["objective/kl"]) > 0.1  # against the bare backbone


def test_the_gradient_norm_is_bounded_at_every_update():
    properties.check_that_every_update_is_clipped()


def test_dropout_is_off_in_every_pass():
    model = policy("t5", summary_dropout_prob=0.9).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    stats = quiet_trainer(model, ppo_epochs=1, mini_batch_size=4).step(
        some_queries(), some_responses(), some_scores()
    )
    np.testing.assert_allclose(stats["ppo/policy/ratio"], 1.0, atol=1e-5)
    assert abs(stats["objective/kl"]) < 1e-4
    assert model.training


def test_a_skipped_mini_batch_takes_no_step():
    trainer = quiet_trainer(policy(), ratio_threshold=0.5, learning_rate=1.0)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    with pytest.warns(UserWarning, match="exceeds ratio_threshold"):
        stats = trainer.step(some_queries(), some_responses(), some_scores())
    assert stats["ppo/loss/total"] == 0.0
    for old, new in zip(before, trainer.model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_a_loss_that_is_not_finite_takes_no_step():
    trainer = quiet_trainer(policy(), learning_rate=1.0)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    scores = [torch.tensor(float("inf")), *some_scores(3)]
    with pytest.warns(UserWarning, match="not finite|exceeds"):
        trainer.step(some_queries(), some_responses(), scores)
    for old, new in zip(before, trainer.model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_an_empty_response_counts_as_end_of_sequence():
    trainer = quiet_trainer(policy())
    responses = some_responses()
    responses[1] = torch.tensor([], dtype=torch.long)
    masks = [torch.ones_like(r) for r in responses]
    for given in (None, masks):
        stats = trainer.step(some_queries(), responses, some_scores(), given)
        assert stats["tokens/responses_dist"].tolist() == [5.0, 1.0, 6.0, 3.0]


def test_response_masks_work_for_t5():
    trainer = quiet_trainer(policy("t5"))
    queries, responses = some_queries(), some_responses(start=(0,))
    for cut in (0, 1):  # masks with and without a place for the start token
        masks = [torch.ones_like(r)[cut:] for r in responses]
        masks[0][-1] = 0
        inputs = trainer.prepare_model_inputs(queries, responses)
        *_, mask = trainer.batched_forward_pass(
            trainer.model, queries, responses, inputs, response_masks=masks
        )
        assert mask.sum(1).tolist() == [4, 2, 6, 3]
    with pytest.raises(ValueError, match="response mask of 9"):
        trainer.step(queries, responses, some_scores(), [torch.ones(9)] * 4)


def test_credit_passes_over_masked_tokens():
    trainer = quiet_trainer(policy(), gamma=1.0, lam=1.0)
    rewards = torch.tensor([[0.0, 7.0, 1.0]])
    mask = torch.tensor([[1, 0, 1]])
    _, _, returns = trainer.compute_advantages(torch.zeros(1, 3), rewards, mask)
    assert returns[0, 0] == returns[0, 2] == 1.0


def test_accumulation_is_not_shared_between_trainers():
    """Accelerate keeps one accumulation state per process; ours is each trainer's own."""
    first = quiet_trainer(policy(), gradient_accumulation_steps=2, ppo_epochs=1)
    quiet_trainer(policy(), gradient_accumulation_steps=1)
    counted = []
    first.optimizer.optimizer.register_step_post_hook(lambda *_: counted.append(1))
    first.step(some_queries(), some_responses(), some_scores())
    assert len(counted) == 1


def test_nothing_warns_in_a_sound_program():
    trainer = quiet_trainer(policy("gptj"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        responses = trainer.generate(
            some_queries(), return_prompt=False, do_sample=True, top_k=0.0, top_p=1.0,
            max_new_tokens=4,
        )  # fmt: skip
        stats = trainer.step(some_queries(), responses, some_scores())
    assert np.isfinite(stats["ppo/loss/total"])
