"""Where each second and the memory go."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Wall time by phase, for the whole run and since the last look; likewise peaks of memory.

    Attributes:
        begin: when the clock was made.
        total: seconds of each phase.
        peak: most memory held so far, in bytes; None leaves memory out.
    """

    def __init__(self) -> None:
        self.peak: Callable[[], int] | None = None
        self.begin = time.perf_counter()
        self.total: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self._inner = [0.0]  # seconds of phases within each phase that is open
        self._open = ["loading"]  # names of those, below them what is none
        self._growth: dict[str, int] = {}
        self._seen = 0  # bytes

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the time inside this context towards a phase, that of phases within it to those."""
        self._look()
        self._open[0] = "other"
        start = time.perf_counter()
        self._inner.append(0.0)
        self._open.append(phase)
        try:
            yield
        finally:
            whole = time.perf_counter() - start
            spent = whole - self._inner.pop()
            self._inner[-1] += whole
            self._look()
            self._open.pop()
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

    def growth(self) -> dict[str, int]:
        """Bytes by which each phase raised the peak of memory, that before the first is "loading".

        They sum to the peak; empty where memory is left out.
        """
        self._look()
        return dict(self._growth)

    def _look(self) -> None:
        if self.peak is not None:
            now, phase = self.peak(), self._open[-1]
            self._growth[phase] = self._growth.get(phase, 0) + max(0, now - self._seen)
            self._seen = max(now, self._seen)

    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.begin
