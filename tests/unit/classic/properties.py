"""What must hold of the trainer; each check fails under a fault of test_planted_faults."""

import numpy as np
import torch

from tests.unit.classic.programs import (
    SAMPLE,
    policy,
    quiet_trainer,
    some_queries,
    some_responses,
    some_scores,
)


def check_that_every_epoch_steps():
    trainer = quiet_trainer(policy(), ppo_epochs=4, learning_rate=1e-3)
    counted = []
    trainer.optimizer.optimizer.register_step_post_hook(lambda *_: counted.append(1))
    stats = trainer.step(some_queries(), some_responses(), some_scores())
    assert len(counted) == 4 * 2  # epochs, mini-batches
    assert stats["ppo/policy/ratio"].shape == (4 * 4 * 10,)  # epochs, rows, T-1


def check_that_the_kl_coefficient_moves():
    trainer = quiet_trainer(policy(), horizon=100.0, target=6.0, learning_rate=1e-3)
    stats = trainer.step(some_queries(), some_responses(), some_scores())
    assert stats["objective/kl_coef"] == 0.2
    error = min(max(stats["objective/kl"] / 6.0 - 1, -0.2), 0.2)
    assert error != 0
    assert abs(trainer.kl_ctl.value - 0.2 * (1 + error * 4 / 100)) < 1e-9


def check_that_the_ratio_is_clipped():
    """Two tokens, ratio 2 and advantage +-1: min(r A, clip(r) A) = 1.2 and -2; worked by hand."""
    trainer = quiet_trainer(policy(), cliprange=0.2, cliprange_value=0.1, vf_coef=1.0)
    old = torch.zeros(1, 2)
    new = torch.full((1, 2), float(np.log(2.0)))
    advantages, returns = torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, 1.0]])
    loss, value, stats = trainer.loss(
        old, old, torch.zeros(1, 2, 3), torch.full((1, 2), 0.5), new, torch.ones(1, 2),
        advantages, returns,
    )  # fmt: skip
    torch.testing.assert_close(float(loss), (-1.2 + 2.0) / 2, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(float(value), 0.5 * 0.9**2, rtol=1e-5, atol=1e-6)
    assert float(stats["policy/clipfrac"]) == 0.5
    assert float(stats["val/clipfrac"]) == 1.0


def check_that_masks_are_kept():
    """A masked token's advantage is 0 and its logprob moves nothing."""
    trainer = quiet_trainer(policy(), ppo_epochs=1, mini_batch_size=4)
    queries, responses = some_queries(), some_responses()
    masks = [torch.ones_like(r) for r in responses]
    masks[0][1] = 0
    inputs = trainer.prepare_model_inputs(queries, responses)
    with torch.no_grad():
        *_, mask = trainer.batched_forward_pass(
            trainer.model, queries, responses, inputs, response_masks=masks
        )
    first = len(queries[0]) - 1
    assert mask[0].tolist() == [0] * first + [1, 0, 1, 1, 1] + [0] * (10 - first - 5)
    assert mask.sum().item() == sum(len(r) for r in responses) - 1
    stats = trainer.step(queries, responses, some_scores(), masks)
    advantages = np.sort(np.abs(stats["ppo/policy/advantages"]))
    assert (advantages == 0).sum() == 40 - int(mask.sum())


def check_that_prompts_are_cut():
    trainer = quiet_trainer(policy())
    queries = some_queries()
    options = SAMPLE | {"max_new_tokens": 3, "min_new_tokens": 3}
    responses = trainer.generate(queries, return_prompt=False, **options)
    assert [len(r) for r in responses] == [3, 3, 3, 3]
    assert trainer.generate(queries[0], return_prompt=False, **options).shape == (1, 3)
    whole = trainer.generate(queries, **options)
    for query, row in zip(queries, whole, strict=True):
        assert torch.equal(row[: len(query)], query)
        assert len(row) == len(query) + 3


def check_that_every_update_is_clipped():
    """The bound holds at each of four optimizer steps (TRL: at the first only)."""
    trainer = quiet_trainer(policy(), max_grad_norm=1e-3, learning_rate=1e-3)
    norms = []

    def record(optimizer, *_):
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.stack([g.norm() for g in grads if g is not None]).norm()))

    trainer.optimizer.optimizer.register_step_pre_hook(record)
    trainer.step(some_queries(), some_responses(), some_scores())
    assert len(norms) == 8
    assert max(norms) <= 1.001e-3


def check_that_the_first_t5_token_counts():
    trainer = quiet_trainer(policy("t5"))
    for start in ((0,), ()):  # as generate gives it, and sliced off as the notebook does
        responses = some_responses(start=start)
        inputs = trainer.prepare_model_inputs(some_queries(), responses)
        *_, mask = trainer.batched_forward_pass(trainer.model, some_queries(), responses, inputs)
        assert mask.sum(1).tolist() == [5, 2, 6, 3]
        assert (mask[:, 0] == 1).all()
