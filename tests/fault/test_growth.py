"""A run holds after many iterations what it held after a few: objects of Python and open files."""

import gc
import os
import tracemalloc
from itertools import pairwise

import pytest

from lora_detox.api import run
from lora_detox.stages import detox
from recipes.benchmarks.soak import OVERRIDES, slope, summary

ITERATIONS, SETTLED = 40, 15


def growth(readings):
    """Bytes an iteration, without the largest step: a table of some library that grew once."""
    held = [one["held"] for one in readings]
    steps = sorted(after - before for before, after in pairwise(held))
    return sum(steps[:-1]) / len(steps[:-1])


@pytest.mark.training
@pytest.mark.slow
def test_neither_objects_nor_descriptors_grow_with_iterations(monkeypatch, tmp_path):
    readings, snapshots = [], []

    def watched(job, iteration, row, progress, after=detox.after_iteration):
        after(job, iteration, row, progress)
        if iteration >= SETTLED:
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
            descriptors = len(os.listdir("/proc/self/fd"))
            readings.append({"iteration": iteration, "held": held, "descriptors": descriptors})
        if iteration in (SETTLED, ITERATIONS - 1):
            snapshots.append(tracemalloc.take_snapshot())

    monkeypatch.setattr(detox, "after_iteration", watched)
    options = [*OVERRIDES, "task=gptj_continuation", f"algorithm.iterations={ITERATIONS}"]
    tracemalloc.start(1)
    try:
        run(options, tmp_path / "run")
    finally:
        tracemalloc.stop()
    assert len(readings) == ITERATIONS - SETTLED
    grown = "\n".join(map(str, snapshots[1].compare_to(snapshots[0], "lineno")[:8]))
    assert growth(readings) < 2048, grown  # a row of metrics that is kept is more than that
    assert len({one["descriptors"] for one in readings}) == 1
    written = [{"iteration": 0, "resident": 1, "descriptors": 1}]
    assert summary(written, ITERATIONS, tmp_path / "run")["rows_complete"]


def series(held):
    return [{"iteration": place, "held": held(place)} for place in range(ITERATIONS)]


def test_growth_is_what_each_iteration_adds_and_not_what_is_cached_once():
    jump = [
        {"iteration": place, "held": 900 * place + 90_000 * (place > 27)} for place in range(40)
    ]
    assert 800 < growth(jump) < 2048
    leak = series(lambda place: 3000 * place + place % 3 * 5000)
    assert growth(leak) > 2048
    by_fives = series(lambda place: place // 5 * 15_000)
    assert growth(by_fives) > 2048


def test_the_slope_is_that_of_a_straight_line():
    readings = [{"iteration": place, "held": 7 * place + 100} for place in (3, 5, 11)]
    assert slope(readings, "held") == pytest.approx(7)
