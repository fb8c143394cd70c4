"""How far a run is: a live bar in a terminal, plain lines with rate and time left anywhere else.

Whatever takes longer than two seconds is a phase. The code that does the work counts with
`advance`, which costs nothing where nobody shows a phase; a thread shows the innermost one, so that
a phase whose end nobody knows (loading, a single long batch) shows its seconds too.
"""

import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lora_detox.signals import end_if_asked
from lora_detox.visible import readable, visible

Item = TypeVar("Item")
SHOWN_AFTER_SECONDS = 2.0
LINE_EVERY_SECONDS = 10.0
SHOWN = {"score": "score", "toxicity": "toxicity", "ref_kl": "kl"}
"""Keys of `metrics.jsonl` that the progress of training shows, and how it calls them."""
_open_phases: list["Phase"] = []
_training: list["TrainingProgress"] = []


class Phase:
    """Something that takes a while; made by `phase`.

    Args:
        what: is done, for the line: "evaluating the start".
        total: how many units there will be; None where nobody knows.
        unit: what is counted: "responses".
        passes: how often each unit is worked on; a unit is done after the last pass.
        after: seconds before it is shown; None means `SHOWN_AFTER_SECONDS`.
        console: where to; None means standard output.
    """

    def __init__(
        self,
        what: str,
        total: float | None = None,
        unit: str = "",
        *,
        passes: int = 1,
        after: float | None = None,
        console: Console | None = None,
    ) -> None:
        self.what, self.total, self.unit, self.passes = what, total, unit, passes
        self._after = SHOWN_AFTER_SECONDS if after is None else after
        self._console = console
        self.begin, self.counted, self.shown = time.monotonic(), 0.0, False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show_until_ended, daemon=True)
        self._bar: Progress | None = None
        self._owns_bar = False
        self._task = TaskID(0)

    @property
    def console(self) -> Console:
        """Where it is shown; made where that is first needed, as most phases are never shown."""
        if self._console is None:
            self._console = Console(highlight=False)
        return self._console

    def start(self) -> None:
        """Begin to count the time."""
        self._thread.start()

    def stop(self) -> None:
        """End the phase; one that was shown as lines says how long it took."""
        self._ended.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.remove_task(self._task)
            if self._owns_bar:
                self._bar.stop()
        elif self.shown:
            self._print(f"{self.what}: {self._amount()}done in {self._elapsed():.0f} s")

    def finish_pass(self, number: float) -> None:
        """So many passes over all units are done, however they were counted."""
        if self.total is not None:
            self.counted = number * self.total

    def line(self) -> str:
        """What there is to say now, without a terminal."""
        seconds = self._elapsed()
        done = self._done()
        if self.total is None or done < 0.01 * self.total:  # too little to tell the time left by
            return f"{self.what}: {self._amount()}{seconds:.0f} s"
        left = seconds / done * max(0.0, self.total - done)
        rate = done / seconds if seconds else 0.0
        return (
            f"{self.what}: {done:,.0f} of {self.total:,.0f} {self.unit}, "
            f"{rate:.3g}/s, {_minutes(left)} left"
        )

    def _amount(self) -> str:
        if self.total is not None:
            return f"{self.total:,.0f} {self.unit}, "
        return f"{self.counted:,.0f} {self.unit}, " if self.counted else ""

    def _done(self) -> float:
        """Units that are done; what is counted beside the units never makes them more than all."""
        done = self.counted / self.passes
        return done if self.total is None else min(done, self.total)

    def _elapsed(self) -> float:
        return time.monotonic() - self.begin

    def _show_until_ended(self) -> None:
        wait = self._after
        while not self._ended.wait(wait):
            self._show()
            wait = 0.2 if self._bar is not None else LINE_EVERY_SECONDS

    def _show(self) -> None:
        if _open_phases and _open_phases[-1] is not self and not self.shown:
            return  # the inner one speaks
        if not self.console.is_terminal:
            self._print(self.line())
            self.shown = True
            return
        if self._bar is None:
            bars = [one.bar for one in _training] + [one._bar for one in _open_phases]
            self._bar = next((bar for bar in bars if bar is not None), None)
            self._owns_bar = self._bar is None
            self._bar = self._bar or _started_bar(self.console)
            self._task = self._bar.add_task(visible(self.what), total=None, numbers="")
            self.shown = True
        done = self._done()
        numbers = "" if self.total is None else f"{done:,.0f}/{self.total:,.0f} {self.unit}"
        self._bar.update(self._task, completed=done, total=self.total, numbers=numbers)

    def _print(self, line: str) -> None:
        self.console.print(readable(line, self.console), soft_wrap=True)


@contextmanager
def phase(
    what: str,
    total: float | None = None,
    unit: str = "",
    *,
    passes: int = 1,
    after: float | None = None,
    console: Console | None = None,
) -> Iterator[Phase]:
    """Show what is done within this context once it has taken two seconds; see `Phase`."""
    opened = Phase(what, total, unit, passes=passes, after=after, console=console)
    _open_phases.append(opened)
    opened.start()
    try:
        yield opened
    finally:
        _open_phases.remove(opened)
        opened.stop()


def advance(count: float = 1.0) -> None:
    """So many units more of the innermost phase are done; a signal that waits is noticed here."""
    end_if_asked()
    if _open_phases:
        _open_phases[-1].counted += count


def say(line: str) -> None:
    """Print a line of text to standard output, from whatever thread."""
    console = Console(highlight=False)
    console.print(readable(line, console), soft_wrap=True)


def track(
    items: Iterable[Item],
    what: str,
    total: int | None = None,
    unit: str = "rows",
    console: Console | None = None,
) -> Iterator[Item]:
    """Hand items on in their order, and show how far they are once it has taken a while.

    Args:
        items: to hand on.
        what: is done with them, for the line: "reading rows.jsonl".
        total: how many there will be; None where nobody knows.
        unit: what they are called.
        console: where to; None means standard output.

    Yields:
        The items.
    """
    with phase(what, total, unit, console=console) as shown:
        for item in items:
            yield item
            shown.counted += 1


class TrainingProgress:
    """Shows how far training is; use it as a context manager.

    Args:
        iterations: how many there will be.
        done: how many a resumed run has behind it.
        every: without a terminal, print one line per this many iterations, after any that ends
            `LINE_EVERY_SECONDS` or more after the last line, and at the end.
        console: where to; None means standard output.
    """

    def __init__(
        self, iterations: int, *, done: int = 0, every: int = 5, console: Console | None = None
    ) -> None:
        self._iterations, self._done, self._every = iterations, done, max(1, every)
        self._console = console or Console(highlight=False)
        self.bar: Progress | None = None
        self._task = TaskID(0)
        self._begin = self._last_line = time.monotonic()

    def __enter__(self) -> "TrainingProgress":
        self._begin = self._last_line = time.monotonic()
        if self._console.is_terminal:
            self.bar = _started_bar(self._console)
            self._task = self.bar.add_task(
                "detox", total=self._iterations, completed=self._done, numbers=""
            )
        _training.append(self)
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
        if self.bar is not None:
            place = f"{iteration}/{self._iterations}  {numbers}"
            self.bar.update(self._task, completed=iteration, numbers=place)
        elif self._is_due(iteration):
            self._last_line = time.monotonic()
            self.message(f"{iteration}/{self._iterations}  {numbers}  {self._remaining(iteration)}")

    def message(self, text: str) -> None:
        """Print a line without disturbing the bar; markup in it is not read."""
        self._console.print(readable(text, self._console), soft_wrap=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _training.remove(self)
        if self.bar is not None:
            self.bar.stop()

    def _is_due(self, iteration: int) -> bool:
        late = time.monotonic() - self._last_line >= LINE_EVERY_SECONDS
        return late or iteration % self._every == 0 or iteration == self._iterations

    def _remaining(self, iteration: int) -> str:
        ended = iteration - self._done
        if ended <= 0:
            return ""
        seconds = (time.monotonic() - self._begin) / ended * (self._iterations - iteration)
        return f"{_minutes(seconds)} left"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(max(0.0, seconds)), 60)
    return f"{minutes}:{rest:02d}"


def _started_bar(console: Console) -> Progress:
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    bar.start()
    return bar
