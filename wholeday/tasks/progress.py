"""Show the progress of an extraction or a backfill: a bar on a terminal, a status message in Luigi's scheduler.

Responsibilities: who is shown the progress, how often, and the text.
Non-goals: the log, which has one line per extracted day. A scheduler that does not answer fails no day.
"""

import contextlib
import functools
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from wholeday.log import count, logger
from wholeday.tasks.console import EXPECTED

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from wholeday.extract.reader import Counts

EVERY = 2.0  # seconds between two calls to the scheduler
PATIENCE = 0.5  # seconds before a bar appears
REDRAW = 0.1  # seconds between two updates of a backfill's bar

SetText = Callable[[str], object]
SetNumber = Callable[[int], object]


@contextlib.contextmanager
def track_extraction(
    set_message: SetText | None = None, set_percentage: SetNumber | None = None, set_link: SetText | None = None
) -> "Iterator[Callable[[Counts], None]]":
    """Yield a function to call with the counts after each page. The setters are methods of the running Luigi task."""
    scheduler, bar, first = _Scheduler(set_message, set_percentage, set_link), _Bar(), list[tuple[float, int]]()

    def update(counts: "Counts") -> None:
        text = _describe(counts)
        if first:  # a resumed extraction had records before the first page of this run
            since, before = first[0]
            text += f", {(counts.records - before) / max(time.monotonic() - since, 0.001):,.0f} records/s"
        else:
            first.append((time.monotonic(), counts.records))
        scheduler.update(counts, text)
        bar.update(counts, text)

    try:
        yield update
    finally:
        bar.close()
        scheduler.flush()


def _describe(counts: "Counts") -> str:
    records = count(counts.records, "record")
    if counts.total is not None:
        records = f"{counts.records:,} of {count(counts.total, 'record')}"
    parents = f"{counts.done[0]:,} of {count(counts.done[1], 'parent')}, " if counts.done else ""
    return f"{parents}{count(counts.pages, 'page')}, {records}"


def _count_steps(counts: "Counts") -> tuple[int, int | None]:
    """Return how much is done, and of how much: parents, or records if the source declares how many."""
    return counts.done or (counts.records, counts.total)


class _Scheduler:
    """Sends the progress to Luigi's scheduler. Each update is a remote call, so most are left out."""

    def __init__(self, set_message: SetText | None, set_percentage: SetNumber | None, set_link: SetText | None) -> None:
        self._set_message, self._set_percentage, self._set_link = set_message, set_percentage, set_link
        self._due = time.monotonic() + EVERY
        self._pending: tuple[Counts, str] | None = None

    def update(self, counts: "Counts", text: str) -> None:
        self._pending = counts, text
        if time.monotonic() >= self._due:
            self.flush()
            self._due = time.monotonic() + EVERY

    def flush(self) -> None:
        """Send the pending update. Send no more after an error: each failing call takes as long as its timeout."""
        if self._pending is None or self._set_message is None or self._set_percentage is None:
            return
        (counts, text), self._pending = self._pending, None
        try:
            self._set_message(text)
            done, total = _count_steps(counts)
            if total:
                self._set_percentage(min(100, 100 * done // total))
            if self._set_link and counts.url.startswith("http"):
                self._set_link(counts.url)  # holds no secret
                self._set_link = None
        except EXPECTED as error:
            self._set_message = None
            logger.warning("the scheduler receives no more progress of this extraction: %s", error)


class _Bar:
    """A progress bar on the terminal that this process was started from. It appears after PATIENCE."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty() and multiprocessing.parent_process() is None
        self._due = time.monotonic() + PATIENCE
        self._stack = contextlib.ExitStack()
        self._progress: Progress | None = None

    def update(self, counts: "Counts", text: str) -> None:
        if self._progress is None and self._watched and time.monotonic() >= self._due:
            self._progress = self._stack.enter_context(_open_bar())
        if self._progress is not None:
            (task,) = self._progress.task_ids
            done, total = _count_steps(counts)
            self._progress.update(task, description=text, completed=done, total=total)

    def close(self) -> None:
        """Remove the bar from the screen."""
        self._stack.close()


@contextlib.contextmanager
def track_days(name: str, total: int, forks: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with the numbers of loaded and of failed days, after each day of a backfill.

    If this process `forks`, the bar is redrawn by these calls only: a child must not inherit a thread that holds the
    lock of the console.
    """
    if not sys.stderr.isatty() or not total:
        yield lambda _loaded, _failed: None
        return
    start = due = time.monotonic()
    with _open_bar(auto_refresh=not forks) as progress:

        def update(loaded: int, failed: int) -> None:
            nonlocal due
            now, (task,) = time.monotonic(), progress.task_ids
            rate = (loaded + failed) / max(now - start, 0.001)
            pace = f"{rate:,.1f} days/s" if rate >= 1 else f"{60 * rate:,.1f} days/min"
            text = f"{name}, {loaded:,} of {count(total, 'day')}, {f'{failed:,} failed, ' if failed else ''}{pace}"
            progress.update(task, description=text, completed=loaded + failed, total=total)
            if now >= due:
                progress.refresh()
                due = now + REDRAW

        yield update


@functools.cache
def _open_terminal() -> "Console":
    """Return the one console of all bars: rich then draws the bar of a day below the bar of its backfill."""
    from rich.console import Console

    return Console(stderr=True)


@contextlib.contextmanager
def _open_bar(auto_refresh: bool = True) -> "Iterator[Progress]":
    """Show a bar at the bottom of the screen. Log lines appear above it."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = BarColumn(10), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    to_terminal = sys.stdout.isatty()  # rich must not redirect the output to a file
    console = _open_terminal()
    with Progress(
        *columns, console=console, transient=True, auto_refresh=auto_refresh, redirect_stdout=to_terminal
    ) as progress:
        progress.add_task("", total=None)
        yield progress
