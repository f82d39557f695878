"""How far the reading of a source, or a backfill, is: a bar for whoever sits at a terminal, a line for the scheduler.

Owns whom it tells, how often, and in which words. Refuses to write into a log, where one line says what came, and to
let a day fail because a scheduler does not hear.
"""

import contextlib
import functools
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from wholeday.log import EXPECTED, count, logger

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from wholeday.extract.reader import Reading

EVERY = 2.0  # seconds between two calls to the scheduler
PATIENCE = 0.5  # seconds; what is read sooner needs no bar
REDRAW = 0.1  # seconds between two states of the bar of a backfill

SetMessage = Callable[[str], object]
SetPercentage = Callable[[int], object]
SetLink = Callable[[str], object]


@contextlib.contextmanager
def follow(
    set_message: SetMessage | None = None,
    set_percentage: SetPercentage | None = None,
    set_link: SetLink | None = None,
) -> "Iterator[Callable[[Reading], None]]":
    """A function that is to hear of a reading after each page; the setters are those of Luigi's task while it runs."""
    rate, scheduler, bar = _Rate(), _Scheduler(set_message, set_percentage, set_link), _Bar()

    def tell(reading: "Reading") -> None:
        text = _describe(reading, rate.measure(reading))
        scheduler.tell(reading, text)
        bar.tell(reading, text)

    try:
        yield tell
    finally:
        bar.close()
        scheduler.finish()


class _Rate:
    """How fast records come since the first page did: what a reading that was broken off had taken is not counted."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None

    def measure(self, reading: "Reading") -> float | None:
        """Records a second; None at the first page."""
        now = time.monotonic()
        if self._start is None:
            self._start = now, reading.records
            return None
        since, before = self._start
        return (reading.records - before) / max(now - since, 0.001)


def _describe(reading: "Reading", rate: float | None) -> str:
    if reading.total is None:
        records = count(reading.records, "record")
    else:
        records = f"{reading.records:,} of {count(reading.total, 'record')}"
    return f"{count(reading.pages, 'page')}, {records}" + ("" if rate is None else f", {rate:,.0f} records/s")


class _Scheduler:
    """Tells Luigi's scheduler, which shows it in the visualiser: now and then, as each time is a call."""

    def __init__(
        self, set_message: SetMessage | None, set_percentage: SetPercentage | None, set_link: SetLink | None
    ) -> None:
        self._set_message, self._set_percentage, self._set_link = set_message, set_percentage, set_link
        self._due = time.monotonic() + EVERY
        self._untold: tuple[Reading, str] | None = None

    def tell(self, reading: "Reading", text: str) -> None:
        self._untold = reading, text
        if time.monotonic() >= self._due:
            self.finish()
            self._due = time.monotonic() + EVERY

    def finish(self) -> None:
        """Tell what is not told yet. A scheduler that did not answer is not told again: to find that out takes long."""
        if self._untold is None or self._set_message is None or self._set_percentage is None:
            return
        (reading, text), self._untold = self._untold, None
        try:
            self._set_message(text)
            if reading.total:
                self._set_percentage(min(100, 100 * reading.records // reading.total))
            if self._set_link and reading.url.startswith("http"):
                self._set_link(reading.url)  # where it is read, without secrets
                self._set_link = None
        except EXPECTED as error:
            self._set_message = None
            logger.warning("the scheduler is not told any more how far the reading is: %s", error)


class _Bar:
    """A bar on the terminal of whoever started this process, once the reading has gone on for a while."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty() and multiprocessing.parent_process() is None
        self._due = time.monotonic() + PATIENCE
        self._stack = contextlib.ExitStack()
        self._progress: Progress | None = None

    def tell(self, reading: "Reading", text: str) -> None:
        if self._progress is None and self._watched and time.monotonic() >= self._due:
            self._progress = self._stack.enter_context(_draw())
        if self._progress is not None:
            (task,) = self._progress.task_ids
            self._progress.update(task, description=text, completed=reading.records, total=reading.total)

    def close(self) -> None:
        """Leave nothing on the screen: the log says what came."""
        self._stack.close()


@contextlib.contextmanager
def follow_days(name: str, total: int, forks: bool) -> Iterator[Callable[[int, int], None]]:
    """A function that is to hear how many of a backfill's days are loaded and how many failed, for a bar.

    Where this process `forks` the bar moves only when that is told: a child must find no thread that holds the screen.
    """
    if not sys.stderr.isatty() or not total:
        yield lambda _loaded, _failed: None
        return
    start = due = time.monotonic()
    with _draw(auto_refresh=not forks) as progress:

        def tell(loaded: int, failed: int) -> None:
            nonlocal due
            now, (task,) = time.monotonic(), progress.task_ids
            rate = (loaded + failed) / max(now - start, 0.001)
            pace = f"{rate:,.1f} days/s" if rate >= 1 else f"{60 * rate:,.1f} days/min"
            text = f"{name}, {loaded:,} of {count(total, 'day')}, {f'{failed:,} failed, ' if failed else ''}{pace}"
            progress.update(task, description=text, completed=loaded + failed, total=total)
            if now >= due:
                progress.refresh()
                due = now + REDRAW

        yield tell


@functools.cache
def _open_terminal() -> "Console":
    """One for all bars: one within another, a day's in a backfill's, is drawn below it."""
    from rich.console import Console

    return Console(stderr=True)


@contextlib.contextmanager
def _draw(auto_refresh: bool = True) -> "Iterator[Progress]":
    """A bar at the foot of the screen, above which the log goes on."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = BarColumn(10), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    to_terminal = sys.stdout.isatty()  # else lines for a file would go above the bar
    console = _open_terminal()
    with Progress(
        *columns, console=console, transient=True, auto_refresh=auto_refresh, redirect_stdout=to_terminal
    ) as progress:
        progress.add_task("", total=None)
        yield progress
