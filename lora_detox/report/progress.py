"""Progress of training: a live bar in a terminal, plain lines anywhere else."""

import math
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SHOWN = {"score": "score", "toxicity": "toxicity", "ref_kl": "kl"}
"""Keys of `metrics.jsonl` that the progress shows, and how it calls them."""


class TrainingProgress:
    """Shows how far training is; use it as a context manager.

    Args:
        iterations: how many there will be.
        done: how many a resumed run has behind it.
        every: without a terminal, print one line per this many iterations and at the end.
        console: where to; None means standard output.
    """

    def __init__(
        self, iterations: int, *, done: int = 0, every: int = 5, console: Console | None = None
    ) -> None:
        self._iterations, self._done, self._every = iterations, done, max(1, every)
        self._console = console or Console(highlight=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._begin = time.monotonic()

    def __enter__(self) -> "TrainingProgress":
        self._begin = time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("detox"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}", markup=False),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(
                "detox", total=self._iterations, completed=self._done, numbers=""
            )
            self._bar.start()
        return self

    def update(self, iteration: int, row: Mapping[str, object]) -> None:
        """Show that an iteration has ended.

        Args:
            iteration: its number, the first is 1.
            row: its row of `metrics.jsonl`; `score`, `toxicity` and `ref_kl` are shown.
        """
        numbers = "  ".join(
            f"{name} {row[key]:.3f}"
            for key, name in SHOWN.items()
            if isinstance(row.get(key), (int, float))
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=iteration, numbers=numbers)
        elif iteration % self._every == 0 or iteration == self._iterations:
            self.message(f"{iteration}/{self._iterations}  {numbers}  {self._remaining(iteration)}")

    def message(self, text: str) -> None:
        """Print a line without disturbing the bar; markup in it is not read."""
        encodable = text.encode(self._console.encoding, "replace").decode(self._console.encoding)
        self._console.print(Text(encodable), soft_wrap=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _remaining(self, iteration: int) -> str:
        ended = iteration - self._done
        if ended <= 0:
            return ""
        seconds = (time.monotonic() - self._begin) / ended * (self._iterations - iteration)
        minutes, rest = divmod(math.ceil(max(0.0, seconds)), 60)
        return f"eta {minutes}:{rest:02d}"
