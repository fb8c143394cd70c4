"""The clipped objective against a loop over tokens, and by hand."""

import math

import pytest
import torch

from lora_detox.update.ppo_loss import TokenBatch, ppo_loss, ref_kl_loss


def batch_of(seed=0, rows=5, width=7):
    """Ratios and values on both sides of their clip ranges, with ragged rows."""
    generator = torch.Generator().manual_seed(seed)

    def noise(scale=1.0):
        return scale * torch.randn(rows, width, generator=generator)

    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    mask = torch.arange(width)[None] < lengths[:, None]
    old, values = noise() - 3, noise()
    batch = TokenBatch(logprobs=old, values=values, advantages=noise(), returns=noise(), mask=mask)
    return old + noise(0.4), values + noise(0.5), batch


def slow_loss(new_logprobs, new_values, batch, clip, value_clip):
    """One token at a time, in plain floats."""
    sums = dict.fromkeys(("policy", "value", "ratio", "approx_kl", "clipped", "value_clipped"), 0.0)
    for row, t in batch.mask.nonzero().tolist():
        old, new = float(batch.logprobs[row, t]), float(new_logprobs[row, t])
        advantage, target = float(batch.advantages[row, t]), float(batch.returns[row, t])
        ratio = math.exp(new - old)
        bounded = min(max(ratio, 1 - clip), 1 + clip)
        sums["policy"] -= min(ratio * advantage, bounded * advantage)
        sums["clipped"] += bounded * advantage < ratio * advantage
        before, value = float(batch.values[row, t]), float(new_values[row, t])
        near = min(max(value, before - value_clip), before + value_clip)
        sums["value"] += 0.5 * max((value - target) ** 2, (near - target) ** 2)
        sums["value_clipped"] += (near - target) ** 2 > (value - target) ** 2
        sums["ratio"] += ratio
        sums["approx_kl"] += 0.5 * (new - old) ** 2
    return sums


@pytest.mark.parametrize(("clip", "value_clip"), [(0.2, 0.2), (0.05, 0.5), (0.6, 0.01)])
def test_sums_match_a_loop_over_tokens(clip, value_clip):
    clipped = 0
    for seed in range(4):
        new_logprobs, new_values, batch = batch_of(seed)
        slow = slow_loss(new_logprobs, new_values, batch, clip, value_clip)
        loss = ppo_loss(new_logprobs, new_values, batch, clip, value_clip)
        for name, value in slow.items():
            assert float(getattr(loss, name)) == pytest.approx(value, rel=1e-4, abs=1e-5), name
        clipped += min(slow["clipped"], slow["value_clipped"])
    assert clipped > 0


def test_three_tokens_by_hand():
    """Ratio 2 with gain: held at 1.2. Ratio 2 with loss: not held. Ratio 1/2 with loss: at 0.8."""
    double = math.log(2)
    new_logprobs = torch.tensor([[double, double, -double]], requires_grad=True)
    new_values = torch.tensor([[1.0, 0.1, -1.0]], requires_grad=True)
    batch = TokenBatch(
        logprobs=torch.zeros(1, 3),
        values=torch.zeros(1, 3),
        advantages=torch.tensor([[1.0, -1.0, -1.0]]),
        returns=torch.tensor([[2.0, 2.0, -2.0]]),
        mask=torch.ones(1, 3, dtype=torch.bool),
    )
    loss = ppo_loss(new_logprobs, new_values, batch, 0.2, 0.2)
    assert float(loss.policy) == pytest.approx(-1.2 + 2.0 + 0.8)
    assert float(loss.clipped) == 2
    # values 1, 0.1, -1 are held at 0.2, 0.1, -0.2; the larger error counts
    assert float(loss.value) == pytest.approx(0.5 * (1.8**2 + 1.9**2 + 1.8**2))
    assert float(loss.value_clipped) == 2
    assert float(loss.ratio) == pytest.approx(4.5)
    assert float(loss.approx_kl) == pytest.approx(1.5 * double**2)
    (loss.policy + loss.value).backward()
    # d(-A ratio) = -A ratio where it is not held, 0 where it is
    assert new_logprobs.grad[0].tolist() == pytest.approx([0.0, 2.0, 0.0])
    assert new_values.grad[0].tolist() == pytest.approx([0.0, 0.1 - 2.0, 0.0])


def test_what_stands_at_padding_changes_nothing():
    new_logprobs, new_values, batch = batch_of()
    plain = ppo_loss(new_logprobs, new_values, batch, 0.2, 0.2)

    def rubbish(tensor, number):
        return torch.where(batch.mask, tensor, torch.tensor(number))

    changed = TokenBatch(
        logprobs=rubbish(batch.logprobs, 7.0),
        values=rubbish(batch.values, -50.0),
        advantages=rubbish(batch.advantages, 1e6),
        returns=rubbish(batch.returns, 1e6),
        mask=batch.mask,
    )
    other = ppo_loss(rubbish(new_logprobs, 3.0), rubbish(new_values, 9.0), changed, 0.2, 0.2)
    for name, value in vars(plain).items():
        assert torch.equal(value, getattr(other, name)), name


def test_the_kl_in_the_loss_is_k3_and_pulls_towards_the_reference():
    mask = torch.tensor([[True, True, True], [True, False, False]])
    new = torch.tensor([[-1.0, -2.0, -0.5], [-1.0, -9.0, 9.0]], requires_grad=True)
    reference = torch.tensor([[-2.0, -1.0, -0.5], [-1.5, 4.0, float("nan")]])
    loss = ref_kl_loss(new, reference, mask)
    slow = sum(
        math.exp(float(reference[i, j] - new[i, j])) - 1 - float(reference[i, j] - new[i, j])
        for i, j in mask.nonzero().tolist()
    )
    assert float(loss.detach()) == pytest.approx(slow, rel=1e-5)
    loss.backward()
    # d/dnew of exp(r - n) - 1 - (r - n) is 1 - exp(r - n)
    expected = (1 - torch.exp(reference - new.detach())).masked_fill(~mask, 0.0)
    torch.testing.assert_close(new.grad, expected)
    assert new.grad[0, 0] > 0 > new.grad[0, 1]
