"""The pressure that keeps responses from shrinking."""

import pytest

from lora_detox.update import LengthControl


def test_pressure_by_hand():
    control = LengthControl(gain=0.5, target=20.0)
    control.update(10.0)  # error 0.5: pressure 0.25, bonus (0.25 + 0.5) / 20
    assert control.pressure == pytest.approx(0.25)
    assert control.token_bonus == pytest.approx(0.0375)
    control.update(20.0)  # on target: the pressure stays, the proportional part is gone
    assert control.token_bonus == pytest.approx(0.0125)
    control.update(60.0)  # far too long: nothing is paid, and never less than nothing
    assert control.token_bonus == 0.0
    assert control.pressure == 0.0


def test_a_policy_that_shrinks_under_the_score_is_held():
    """A toy response length that falls by 1 an iteration and rises with the bonus it is paid."""
    control, free, held = LengthControl(gain=0.5, target=20.0), 20.0, 20.0
    for _ in range(60):
        free = max(1.0, free - 1.0)
        held = max(1.0, held - 1.0 + 40 * control.token_bonus)
        control.update(held)
    assert free == 1.0
    assert held == pytest.approx(20.0, rel=0.05)


def test_it_survives_a_checkpoint_and_needs_its_target():
    control = LengthControl(gain=0.5, target=20.0)
    control.update(15.0)
    copy = LengthControl(gain=0.5)
    with pytest.raises(ValueError, match="target"):
        copy.update(15.0)
    copy.restore(control.state())
    copy.update(17.0)
    control.update(17.0)
    assert copy == control
