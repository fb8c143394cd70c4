"""Where each second goes."""

import time

import pytest

from lora_detox.clock import Clock


def test_phases_and_what_is_none_sum_to_the_whole():
    clock = Clock()
    for phase in ("generate", "update", "generate"):
        with clock(phase):
            time.sleep(0.01)
    time.sleep(0.02)
    seconds = clock.whole()
    total = seconds.pop("total")
    assert set(seconds) == {"generate", "update", "other"}
    assert sum(seconds.values()) == pytest.approx(total)
    assert seconds["generate"] >= 0.02
    assert seconds["other"] >= 0.02


def test_a_phase_within_a_phase_counts_once():
    clock = Clock()
    with clock("update"):
        time.sleep(0.01)
        with clock("score"):
            time.sleep(0.03)
    seconds = clock.whole()
    assert seconds["score"] >= 0.03
    assert 0.01 <= seconds["update"] < seconds["total"] - 0.02
    assert seconds["other"] >= 0


def test_memory_is_counted_to_the_phase_in_which_its_peak_rose():
    clock, peaks = Clock(), iter([100, 150, 150, 180, 190, 260, 300])
    assert clock.growth() == {}
    clock.peak = lambda: next(peaks)
    with clock("generate"):  # 100 on entry, 150 at its end
        pass
    with clock("update"), clock("score"):  # 150 and 180 on entry, 190 at the end of score
        pass
    # 260 at the end of update, 300 at the end of all
    assert clock.growth() == {
        "loading": 100,
        "generate": 50,
        "other": 0 + 40,
        "update": 30 + 70,
        "score": 10,
    }
