"""The mean of weights: its arithmetic, and that training does not notice it."""

import pytest
import torch

from lora_detox.update import WeightAverage


def test_the_mean_is_as_by_hand_and_warms_up():
    weight = torch.tensor([0.0])
    average = WeightAverage({"w": weight}, decay=0.5)
    weight.fill_(11.0)
    average.observe()  # weight of the past: 2 / 11
    assert average.mean["w"].item() == pytest.approx(9.0)
    for _ in range(20):
        weight.fill_(1.0)
        average.observe()
    before = average.mean["w"].item()
    weight.fill_(3.0)
    average.observe()
    assert average.mean["w"].item() == pytest.approx((before + 3.0) / 2)


def test_weights_are_the_mean_only_while_it_is_applied():
    weight = torch.nn.Parameter(torch.randn(3, 4))
    average = WeightAverage({"w": weight}, decay=0.9)
    with torch.no_grad():
        weight.add_(1.0)
    average.observe()
    own, mean = weight.detach().clone(), average.mean["w"].clone()
    with average.applied():
        assert torch.equal(weight, mean)
    assert torch.equal(weight, own)
    assert torch.equal(average.mean["w"], mean)


def test_noise_around_a_point_is_averaged_out():
    """A walk that is drawn to 0 and kicked at each step: its mean stays much nearer to 0."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.zeros(100)
    average = WeightAverage({"w": weight}, decay=0.95)
    for _ in range(200):
        weight.mul_(0.5).add_(torch.randn(100, generator=generator))
        average.observe()
    assert average.mean["w"].norm() < 0.5 * weight.norm()


def test_a_mean_taken_over_goes_on_as_the_one_that_was_left():
    weight = torch.tensor([0.0])
    left, other = (WeightAverage({"w": weight}, decay=0.9) for _ in range(2))
    for value in (3.0, 5.0):
        weight.fill_(value)
        left.observe()
    other.take(left.mean, left.observed)
    assert other.mean["w"] is not left.mean["w"]
    for average in (left, other):
        weight.fill_(8.0)
        average.observe()
    assert torch.equal(left.mean["w"], other.mean["w"])
    assert left.observed == other.observed == 3
