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
        self._inner = [0.0]  # seconds of phases within each phase that is open

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the time inside this context towards a phase, that of phases within it to those."""
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            whole = time.perf_counter() - start
            spent = whole - self._inner.pop()
            self._inner[-1] += whole
            for sums in (self.total, self._since):
                sums[phase] = sums.get(phase, 0.0) + spent

    def lap(self) -> dict[str, float]:
        """Seconds by phase since the last lap."""
        lap, self._since = self._since, {}
        return lap

    def columns(self) -> dict[str, float]:
        """Seconds of each phase since the last lap, for metrics.jsonl."""
        return {f"seconds_{phase}": spent for phase, spent in self.lap().items()}

    def whole(self) -> dict[str, float]:
        """Seconds in total, by phase, and of all that is no phase ("other"); phases sum to it."""
        total = self.elapsed()
        return {"total": total, **self.total, "other": total - sum(self.total.values())}

    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.begin
