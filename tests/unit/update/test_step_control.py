"""The factor by hand, and that a learning rate that is far too large becomes a good one."""

import math

import pytest

from lora_detox.update import StepControl


def test_the_factor_by_hand():
    one = StepControl(target=0.001)
    one.update(0.002)
    assert one.factor == pytest.approx(math.sqrt(0.5))
    one.update(1.0)  # never more than by half at once
    assert one.factor == pytest.approx(math.sqrt(0.5) / 2)
    one.update(0.0)  # nor back by more than a tenth
    assert one.factor == pytest.approx(math.sqrt(0.5) / 2 * 1.1)
    for _ in range(20):
        one.update(0.0)
    assert one.factor == 1.0  # the learning rate is the upper bound


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_was_too_far(broken):
    one = StepControl(target=0.001)
    one.update(broken)
    assert one.factor == 0.5


@pytest.mark.parametrize("rate", [3.0, 30.0, 300.0])
def test_every_rate_ends_at_the_target(rate):
    one = StepControl(target=0.01)
    for _ in range(60):
        moved = (0.1 * rate * one.factor) ** 2  # a quadratic response to the step
        one.update(moved)
    assert moved == pytest.approx(0.01, rel=0.2)


def test_without_a_target_nothing_moves_and_a_checkpoint_holds_the_factor():
    off = StepControl(target=None)
    off.update(5.0)
    assert off.factor == 1.0
    one, other = StepControl(target=0.001, factor=0.3), StepControl(target=0.001)
    other.restore(one.state())
    assert other.factor == 0.3
