"""Passes side by side on a CPU, each with one thread, in the place of one pass with all of them.

With several threads the large matrix products of a pass go faster, its many small operations do
not; two passes side by side keep two cores busy with both. torch releases the interpreter while it
computes.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")


def side_by_side(tasks: Sequence[Callable[[], T]], lanes: int) -> list[T]:
    """Run tasks, `lanes` at a time.

    Args:
        tasks: what to compute; they may not draw random numbers nor change what another reads.
        lanes: threads, each of which computes alone; 1 runs the tasks in order with all threads.

    Returns:
        Results in the order of the tasks.
    """
    if lanes < 2 or len(tasks) < 2:
        return [task() for task in tasks]
    threads, with_gradient = torch.get_num_threads(), torch.is_grad_enabled()

    def run(task: Callable[[], T]) -> T:
        with torch.set_grad_enabled(with_gradient):  # a mode of each thread
            return task()

    torch.set_num_threads(1)
    try:
        return list(_pool(lanes).map(run, tasks))
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(lanes: int) -> ThreadPoolExecutor:
    """Threads that stay: what kernels keep per thread is not made anew for every minibatch."""
    return ThreadPoolExecutor(lanes, "lane", initializer=torch.set_num_threads, initargs=(1,))
