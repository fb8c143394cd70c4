"""The KL coefficient."""

import pytest

from lora_detox.update import AdaptiveKl, FixedKl, KlControl


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (6.0, 1.0),  # on target
        (6.6, 1 + 0.1 * 50 / 1000),  # a tenth above
        (5.4, 1 - 0.1 * 50 / 1000),
        (600.0, 1 + 0.2 * 50 / 1000),  # the error is held at 20 %
        (-3.0, 1 - 0.2 * 50 / 1000),  # k1 may be negative
    ],
)
def test_the_adaptive_price_follows_ziegler_et_al(kl, factor):
    control = AdaptiveKl(kl_coef=0.3, target=6.0, horizon=1000.0)
    control.update(kl, 50)
    assert control.kl_coef == pytest.approx(0.3 * factor)


def test_a_horizon_of_samples_moves_the_price_by_a_fifth():
    control = AdaptiveKl(kl_coef=1.0, target=1.0, horizon=256.0)
    control.update(100.0, 256)
    assert control.kl_coef == pytest.approx(1.2)


def test_a_fixed_price_stays():
    control = FixedKl(kl_coef=0.3)
    for kl in (0.0, 100.0):
        control.update(kl, 1000)
    assert control.kl_coef == 0.3


def test_both_are_controls():
    assert isinstance(FixedKl(kl_coef=1.0), KlControl)
    assert isinstance(AdaptiveKl(kl_coef=1.0, target=1.0, horizon=1.0), KlControl)


@pytest.mark.parametrize(
    "make", [FixedKl, lambda kl_coef: AdaptiveKl(kl_coef=kl_coef, target=1.0, horizon=1.0)]
)
def test_a_checkpoint_holds_the_coefficient(make):
    one, other = make(kl_coef=0.3), make(kl_coef=0.7)
    assert one.state() == {"kl_coef": 0.3}
    other.restore(one.state())
    assert other.kl_coef == 0.3
