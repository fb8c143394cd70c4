"""Settings become the arguments of each stage."""

import pytest

from lora_detox.settings import AlgorithmSettings, KlControlType, Schedule
from lora_detox.stages.plans import kl_control, learning_rate_schedule, score_scaler
from lora_detox.update import AdaptiveKl, FixedKl


def algorithm(**changes):
    return AlgorithmSettings(iterations=10, **changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [1.0] * 10),
        ({"warmup_iterations": 3}, [0.25, 0.5, 0.75] + [1.0] * 7),
        ({"schedule": Schedule.linear}, [1 - i / 10 for i in range(10)]),
        (
            {"schedule": Schedule.linear, "warmup_iterations": 2},
            [1 / 3, 2 / 3] + [1 - i / 8 for i in range(8)],
        ),
    ],
)
def test_schedules_by_iteration(changes, expected):
    factor = learning_rate_schedule(algorithm(**changes))
    assert [factor(i) for i in range(10)] == pytest.approx(expected)


def test_the_cosine_schedule_halves_in_the_middle_and_ends_near_zero():
    factor = learning_rate_schedule(algorithm(schedule=Schedule.cosine))
    assert factor(0) == 1.0
    assert factor(5) == pytest.approx(0.5)
    assert 0 < factor(9) < 0.03


def test_the_kl_control_is_the_one_that_was_asked_for():
    adaptive = kl_control(algorithm(kl_coef=0.3, kl_target=2.0, kl_horizon=500.0))
    assert adaptive == AdaptiveKl(kl_coef=0.3, target=2.0, horizon=500.0)
    fixed = kl_control(algorithm(kl_control=KlControlType.fixed, kl_coef=0.3))
    assert fixed == FixedKl(kl_coef=0.3)


def test_the_scaler_is_the_one_that_was_asked_for():
    scaler = score_scaler(algorithm(scale_scores=False, center_scores=True, score_clip=2.0))
    assert (scaler.scale, scaler.center, scaler.clip) == (False, True, 2.0)
