"""A run holds after many iterations what it held after a few: objects of Python and open files."""

import gc
import os
import tracemalloc

import pytest

from lora_detox.api import run
from lora_detox.stages import detox
from recipes.benchmarks.soak import OVERRIDES, slope, summary

ITERATIONS, SETTLED = 40, 15


@pytest.mark.training
@pytest.mark.slow
def test_neither_objects_nor_descriptors_grow_with_iterations(monkeypatch, tmp_path):
    readings = []

    def watched(job, iteration, row, progress, after=detox.after_iteration):
        after(job, iteration, row, progress)
        if iteration >= SETTLED:
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
            descriptors = len(os.listdir("/proc/self/fd"))
            readings.append({"iteration": iteration, "held": held, "descriptors": descriptors})

    monkeypatch.setattr(detox, "after_iteration", watched)
    options = [*OVERRIDES, "task=gptj_continuation", f"algorithm.iterations={ITERATIONS}"]
    tracemalloc.start(1)
    try:
        run(options, tmp_path / "run")
    finally:
        tracemalloc.stop()
    assert len(readings) == ITERATIONS - SETTLED
    assert slope(readings, "held") < 2048  # a row of metrics that is kept is more than that
    assert len({one["descriptors"] for one in readings}) == 1
    written = [{"iteration": 0, "resident": 1, "descriptors": 1}]
    assert summary(written, ITERATIONS, tmp_path / "run")["rows_complete"]


def test_the_slope_is_that_of_a_straight_line():
    readings = [{"iteration": place, "held": 7 * place + 100} for place in (3, 5, 11)]
    assert slope(readings, "held") == pytest.approx(7)
