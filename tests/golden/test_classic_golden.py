"""Our numbers against those of TRL 0.11.4; where it is wrong, against its formulas set right.

golden.json holds what TRL computed once (make_golden.py). Keys that end in `/all` were computed by
TRL's functions from a mask that keeps every response token: what TRL itself would have computed for
T5, had its mask not left out the first one.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_detox.classic import (
    AutoModelForCausalLMWithValueHead,
    AutoModelForSeq2SeqLMWithValueHead,
    PPOConfig,
    PPOTrainer,
)
from tests.golden import recipe
from tests.tiny import tiny_tokenizer

pytestmark = pytest.mark.golden
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
WRAPPERS = {"gpt2": AutoModelForCausalLMWithValueHead, "t5": AutoModelForSeq2SeqLMWithValueHead}
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


def trainer(family, *, strict=False, lora=False, **changes):
    base = recipe.build(family)
    model = WRAPPERS[family].from_pretrained(recipe.adapt(base) if lora else base)
    recipe.fill(model.v_head, "head")
    reference = WRAPPERS[family].from_pretrained(recipe.build(family))
    recipe.nudge(reference.pretrained_model, "reference")
    if lora:
        reference = None  # the policy without its adapter
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=recipe.SGD)
    config = PPOConfig(**(recipe.SETTINGS | {"seed": recipe.SEED} | changes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PPOTrainer(
            config, model, reference, tiny_tokenizer(), optimizer=optimizer, strict_trl_masks=strict
        )


def assert_close(ours, theirs, **tolerance):
    theirs = torch.tensor(theirs, dtype=torch.float64)
    torch.testing.assert_close(
        torch.as_tensor(ours).double().detach(), theirs, **(CLOSE | tolerance)
    )


def read(t, family, *, full=False):
    queries, responses, scores = recipe.batch(family)
    inputs = t.prepare_model_inputs(queries, responses)
    with torch.no_grad():
        logprobs, logits, values, mask = t.batched_forward_pass(
            t.model, queries, responses, inputs, return_logits=full
        )
        ref_logprobs, ref_logits, _, _ = t.batched_forward_pass(
            t.ref_model, queries, responses, inputs, return_logits=full
        )
    if full:
        logprobs, ref_logprobs = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    return torch.stack(scores), logprobs, ref_logprobs, values, mask


def assert_same_rewards_and_loss(t, numbers, score, logprobs, ref_logprobs, values, mask):
    """Penalty, rewards, advantages, returns, loss and its statistics under one mask."""
    rewards, _, kls = t.compute_rewards(score, logprobs, ref_logprobs, mask)
    masked, advantages, returns = t.compute_advantages(values, rewards, mask)
    for name, table in (("kls", kls), ("rewards", rewards), ("returns", returns)):
        assert_close(table * mask, numbers[name])
    assert_close(advantages * mask, numbers["advantages"])
    if "loss" not in numbers:
        return
    drift = 0.3 * torch.sin(torch.arange(mask.numel()).reshape(mask.shape).float())
    logits = torch.sin(torch.arange(mask.numel() * 7).float()).reshape(*mask.shape, 7)
    policy, value, stats = t.loss(
        logprobs, masked, logits, masked + drift, logprobs + drift, mask, advantages, returns
    )
    assert_close([float(policy), float(value)], numbers["loss"])
    for name, number in numbers["stats"].items():
        assert_close(float(stats[name]), number)


@pytest.mark.parametrize("family", recipe.FAMILIES)
def test_logprobs_values_and_reference_equal_trl_at_every_response_token(family):
    numbers = GOLDEN[family]["read"]
    _, logprobs, ref_logprobs, values, mask = read(trainer(family), family)
    assert_close(logprobs * mask, numbers["logprobs"])
    assert_close(ref_logprobs * mask, numbers["ref_logprobs"])
    assert_close(values * mask, numbers["values"])


def test_the_gpt2_mask_equals_trl():
    mask = read(trainer("gpt2"), "gpt2")[-1]
    assert mask.tolist() == GOLDEN["gpt2"]["read"]["mask"]


def test_the_t5_mask_is_trls_with_the_first_token_put_back():
    ours, theirs = read(trainer("t5"), "t5")[-1], GOLDEN["t5"]["read"]["mask"]
    theirs = torch.tensor(theirs)
    assert (theirs[:, 0] == 0).all()  # position 0 predicts the first token after the start token
    assert (ours[:, 0] == 1).all()
    assert torch.equal(ours[:, 1:], theirs[:, 1:])
    responses = recipe.batch("t5")[1]
    assert ours.sum(1).tolist() == [len(r) - 1 for r in responses]  # all but the start token


@pytest.mark.parametrize("penalty", recipe.PENALTIES)
@pytest.mark.parametrize("family", recipe.FAMILIES)
def test_rewards_and_loss_equal_trl_under_a_mask_of_all_tokens(family, penalty):
    t = trainer(family, kl_penalty=penalty)
    numbers = GOLDEN[family]["read"][f"{penalty}/all"]
    assert_same_rewards_and_loss(t, numbers, *read(t, family, full=penalty == "full"))


@pytest.mark.parametrize("penalty", recipe.PENALTIES)
def test_strict_masks_equal_trl_for_t5_too(penalty):
    t = trainer("t5", strict=True, kl_penalty=penalty)
    score, logprobs, ref_logprobs, values, mask = read(t, "t5", full=penalty == "full")
    assert mask.tolist() == GOLDEN["t5"]["read"]["mask"]
    numbers = GOLDEN["t5"]["read"][penalty]
    assert_same_rewards_and_loss(t, numbers, score, logprobs, ref_logprobs, values, mask)


def assert_same_learning(family, case, *, strict, lengths=(), masks=None, **changes):
    t = trainer(family, strict=strict, **changes)
    queries, responses, scores = recipe.batch(family, *lengths)
    np.random.seed(recipe.SEED)  # noqa: NPY002 - the order of mini-batches
    for step in GOLDEN[family][case]:
        before = recipe.whole(t.model)
        stats = t.step(queries, responses, scores, masks)
        for name, number in step["stats"].items():
            assert_close(stats[name], number, rtol=1e-3, atol=2e-4)
        change = recipe.digest(before, recipe.whole(t.model))
        assert_close(change["norm"], step["change"]["norm"], rtol=1e-3)
        assert_close(change["some"], step["change"]["some"], rtol=1e-2, atol=2e-5)
        assert_close(t.kl_ctl.value, step["kl_coef"])


STRICT = {"gpt2": False, "t5": True}
CASES = {
    "learn": {},
    "lora": {"lora": True},
    "accumulated": {
        "gradient_accumulation_steps": 2,
        "mini_batch_size": 1,
        "adap_kl_ctrl": False,
    },
    "early": {"early_stopping": True, "target_kl": 1e-7},
    "clipped": {"score_clip": 0.7, "horizon": 50.0, "target": 0.1},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", recipe.FAMILIES)
def test_two_steps_equal_trl(family, case):
    """Statistics, the change of every weight and the next KL coefficient."""
    assert_same_learning(family, case, strict=STRICT[family], **CASES[case])


def test_two_steps_with_response_masks_equal_trl():
    masks = [[1, 0, 1, 1], [0, 1, 1], [1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1]]
    assert_same_learning("gpt2", "masked", strict=False, masks=[torch.tensor(m) for m in masks])


def test_whitened_rewards_equal_trl_where_no_padding_follows():
    lengths = ((5, 5, 5, 5), (4, 4, 4, 4))
    assert_same_learning("gpt2", "whitened", strict=False, lengths=lengths, whiten_rewards=True)


def test_whitened_rewards_do_not_leak_from_padding():
    """TRL whitens 0 at padding to mean - mean/std and discounts it into the row before it."""
    t = trainer("gpt2", whiten_rewards=True, gamma=1.0, lam=1.0)
    rewards = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.5, 0.0, 3.0, 1.5]])
    values = torch.zeros_like(rewards)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    real = rewards[mask.bool()]
    white = (rewards - real.mean()) / real.std() + real.mean()
    expected = (white * mask).flip(1).cumsum(1).flip(1) * mask
    _, _, returns = t.compute_advantages(values, rewards, mask)
    assert_close(returns * mask, expected.tolist())
    alone = t.compute_advantages(values[:, :2], rewards[:, :2], mask[:, :2])
    assert alone[2].shape == (2, 2)
    leak = (white.flip(1).cumsum(1).flip(1) * mask - expected).abs().max()
    assert leak > 0.1  # what TRL would add to the first row
