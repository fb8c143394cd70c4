"""Where each second goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Wall time by phase, for the whole run and since the last look."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.total: dict[str, float] = {}
        self._since: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the time inside this context towards a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            for sums in (self.total, self._since):
                sums[phase] = sums.get(phase, 0.0) + spent

    def lap(self) -> dict[str, float]:
        """Seconds by phase since the last lap."""
        lap, self._since = self._since, {}
        return lap

    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.begin
