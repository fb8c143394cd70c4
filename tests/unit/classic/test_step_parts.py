"""The public parts of a step: checks, forward passes, rewards, advantages, loss, mini-batches."""

import pytest
import torch

from lora_detox.classic.core import logprobs_from_logits
from tests.tiny import ARCHITECTURES, tiny_tokenizer
from tests.unit.classic.programs import policy, quiet_trainer, some_queries, some_responses


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "granite", "gemma2"])
def test_forward_pass_equals_one_plain_forward_per_row(architecture, side):
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = side
    trainer = quiet_trainer(policy(architecture).eval(), tokenizer=tokenizer)
    t5 = architecture == "t5"
    queries, responses = some_queries(), some_responses(start=(0,) if t5 else ())
    inputs = trainer.prepare_model_inputs(queries, responses)
    with torch.no_grad():
        logprobs, none, values, mask = trainer.batched_forward_pass(
            trainer.model, queries, responses, inputs
        )
        logits = trainer.batched_forward_pass(
            trainer.model, queries, responses, inputs, return_logits=True
        )[1]
    assert none is None
    width = inputs["decoder_input_ids" if t5 else "input_ids"].shape[1] - 1
    assert logprobs.shape == values.shape == mask.shape == (4, width)
    assert logits.shape == (4, width, 40)
    for row, (query, response) in enumerate(zip(queries, responses, strict=True)):
        with torch.no_grad():
            if t5:
                plain, _, value = trainer.model(query[None], decoder_input_ids=response[None])
                read, first = response, 0
            else:
                read, first = torch.cat([query, response]), len(query) - 1
                plain, _, value = trainer.model(read[None])
        real = mask[row].bool()
        slow = logprobs_from_logits(plain[:, :-1], read[None, 1:])[0, first:]
        close = {"rtol": 1e-4, "atol": 2e-5}
        torch.testing.assert_close(logprobs[row][real], slow, **close)
        torch.testing.assert_close(values[row][real], value[0, first:-1], **close)
        torch.testing.assert_close(logits[row][real], plain[0, first:-1], **close)
        expected = len(response) - (1 if t5 else 0)
        assert real.sum() == expected
    ids, there = inputs["input_ids"], inputs["attention_mask"].bool()
    flat = [t for q, r in zip(queries, responses, strict=True) for t in (q if t5 else [*q, *r])]
    assert ids[there].tolist() == [int(t) for t in flat]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_equals_its_rows_alone(architecture):
    trainer = quiet_trainer(policy(architecture))
    queries, responses = some_queries(), some_responses()
    together = trainer.batched_forward_pass(
        trainer.model, queries, responses, trainer.prepare_model_inputs(queries, responses)
    )
    for row in range(4):
        one = [queries[row]], [responses[row]]
        alone = trainer.batched_forward_pass(
            trainer.model, *one, trainer.prepare_model_inputs(*one)
        )
        for i in (0, 2):
            torch.testing.assert_close(
                together[i][row][together[3][row].bool()],
                alone[i][0][alone[3][0].bool()],
                rtol=1e-4,
                atol=2e-5,
            )


def test_safety_checker():
    trainer = quiet_trainer(policy())
    queries, responses = some_queries(), some_responses()
    scores = [torch.tensor([1.0]), torch.tensor(2.0), torch.tensor([3]), torch.tensor(4)]
    masks = [torch.ones_like(r) for r in responses]
    checked = trainer._step_safety_checker(4, queries, responses, scores, masks)
    assert len(checked) == 4
    assert [s.dim() for s in checked[2]] == [0] * 4
    assert [float(s) for s in checked[2]] == [1.0, 2.0, 3.0, 4.0]
    assert trainer._step_safety_checker(4, queries, responses, scores)[3] is None
    bad = [
        (4, queries, responses, [torch.ones(1, 1)] * 4, None),
        (4, queries, responses, torch.ones(4), None),
        (4, queries, responses, [1.0] * 4, None),
        (4, queries[:3], responses, scores, None),
        (4, torch.stack([q[:3] for q in queries]), responses, scores, None),
        (4, [q[None] for q in queries], responses, scores, None),
        (4, queries, responses, scores, masks[:2]),
    ]
    for arguments in bad:
        with pytest.raises(ValueError, match=r"must be|has \d elements"):
            trainer._step_safety_checker(*arguments)
    with pytest.raises(ValueError, match="one number"):
        trainer.step(queries, responses, [torch.ones(1, 1)] * 4)


def test_kl_penalties():
    trainer = quiet_trainer(policy())
    one, two = torch.tensor([[0.5, 0.2, 0.1]]), torch.tensor([[0.4, 0.3, 0.3]])
    expected = {"kl": [0.1, -0.1, -0.2], "abs": [0.1, 0.1, 0.2], "mse": [0.005, 0.005, 0.02]}
    for name, numbers in expected.items():
        trainer.config.kl_penalty = name
        torch.testing.assert_close(trainer._kl_penalty(one, two), torch.tensor([numbers]))
        torch.testing.assert_close(trainer._kl_penalty(one[0], two[0]), torch.tensor(numbers))
    trainer.config.kl_penalty = "full"
    p, q = torch.tensor([0.98, 0.01, 0.01]), torch.tensor([0.01, 0.01, 0.98])
    exact = trainer._kl_penalty(p.log().expand(1, 2, 3), q.log().expand(1, 2, 3))
    assert exact.shape == (1, 2)
    torch.testing.assert_close(exact, (p * (p / q).log()).sum().expand(1, 2))


def test_compute_rewards_and_advantages_by_hand():
    trainer = quiet_trainer(policy(), init_kl_coef=0.5, gamma=0.5, lam=1.0)
    logprobs = torch.tensor([[9.0, 0.2, 0.4, 9.0]])
    ref = torch.tensor([[9.0, 0.0, 0.1, 9.0]])
    mask = torch.tensor([[0, 1, 1, 0]])
    rewards, non_score, kls = trainer.compute_rewards(torch.tensor([2.0]), logprobs, ref, mask)
    torch.testing.assert_close(kls, torch.tensor([[0.0, 0.2, 0.3, 0.0]]))
    torch.testing.assert_close(non_score, torch.tensor([[0.0, -0.1, -0.15, 0.0]]))
    torch.testing.assert_close(rewards, torch.tensor([[0.0, -0.1, 1.85, 0.0]]))
    values = torch.tensor([[5.0, 1.0, 0.5, 5.0]])
    masked, advantages, returns = trainer.compute_advantages(values, rewards, mask)
    assert masked.tolist() == [[0.0, 1.0, 0.5, 0.0]]
    torch.testing.assert_close(returns[:, 1:3], torch.tensor([[-0.1 + 0.5 * 1.85, 1.85]]))
    raw = returns[:, 1:3] - masked[:, 1:3]
    torch.testing.assert_close(advantages[:, 1:3], (raw - raw.mean()) / raw.std())


def test_loss_accepts_two_dimensional_logits_and_float_masks():
    trainer = quiet_trainer(policy())
    old, new = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.1, -1.9]])
    policy_loss, value_loss, stats = trainer.loss(
        old, old, torch.rand(1, 2), old + 0.1, new, torch.ones(1, 2), old, old
    )
    assert policy_loss.dim() == value_loss.dim() == 0
    assert stats["policy/ratio"].shape == (1, 2)
    halved = trainer.loss(
        old, old, torch.rand(1, 2), old + 0.1, new, torch.tensor([[1.0, 0.0]]), old, old
    )
    torch.testing.assert_close(float(halved[1]), 0.1 * 0.5 * 0.01, rtol=1e-3, atol=1e-6)


def test_train_minibatch_by_itself():
    trainer = quiet_trainer(policy(), learning_rate=1e-2)
    queries, responses = some_queries(), some_responses()
    inputs = trainer.prepare_model_inputs(queries, responses)
    logprobs, logits, values, mask = trainer.batched_forward_pass(
        trainer.model, queries, responses, inputs, return_logits=True
    )
    before = [p.detach().clone() for p in trainer.model.parameters()]
    ones = torch.ones_like(values)
    stats = trainer.train_minibatch(
        logprobs.detach(), values.detach(), logprobs, logits, values, mask, ones, ones
    )
    assert float(stats["policy/approxkl"]) == 0.0
    assert any(
        not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True)
    )
