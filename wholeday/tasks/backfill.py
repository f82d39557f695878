"""Load the missing days of a range of any length, in batches.

*Responsibilities*: the days to run, their batches, and the result of each day. Luigi's scheduling takes quadratic
time in the number of tasks; batches make it linear.
*Non-goals*: running a batch, which batch.py does. Deciding whether a day is loaded: the warehouse says so.
"""

import datetime as dt
from collections.abc import Sequence

from luigi.interface import core

from wholeday import clock
from wholeday.extract import outage
from wholeday.log import count, logger
from wholeday.tasks.batch import OnResult, prepare_children, run_batch
from wholeday.tasks.day_tasks import UNREACHABLE, Load
from wholeday.tasks.days import list_span
from wholeday.tasks.stop import Stop

BATCH_SIZE = 20  # days
DAYS_PER_WORKER = 10  # in a batch, at least: workers wait for each other at its end
NOT_RUN = ": not run, as"  # in the cause of a day that was not tried


class Backfill:
    """The days of a range, sorted by what is to be done with them.

    Before the run: `skipped` are loaded already, `not_closed` are not over yet, `past` are snapshots that cannot be
    fetched again, `todo` are to be run. After the run, each day of `todo` is in `done`, in `failed` with its cause, or
    in `not_run`.
    """

    def __init__(self, load: type[Load], start: dt.date, stop: dt.date) -> None:
        """Ask the warehouse once which days from `start` to the day before `stop` are loaded."""
        days = list_span(start, stop)
        loaded = set(load.bulk_complete(days))
        missing = [day for day in days if day not in loaded]
        settings, now = load.dataset.config(), clock.utc_now()
        self.load = load
        self.last_closed = settings.last_closed_day(now)
        self.past = load.workspace().list_past(missing, now)
        self.why_past = settings.describe_past(now)
        self.skipped = [day for day in days if day in loaded]
        self.todo = [day for day in missing if day <= self.last_closed and day not in self.past]
        self.not_closed = [day for day in missing if day > self.last_closed]
        self.done: list[dt.date] = []
        self.failed: dict[dt.date, str] = {}
        self.not_run: list[dt.date] = []

    def run(self, workers: int, stop: Stop, on_result: OnResult) -> None:
        """Load the days, oldest first, and call `on_result` for each.

        An unreachable source ends the run at the first such day; after loaded days, at the second such day in a row.
        Failed days are tried again at the end, as an outage may be over by then. They are not if every day failed, nor
        under luigid, which has its own retries. `done`, `failed` and `not_run` are set even if this raises. Raises
        DatasetError or ConfigError if no day of the dataset can be loaded.
        """

        loaded_here: set[dt.date] = set()

        def note_result(day: dt.date, cause: str | None) -> None:
            if cause is None:
                loaded_here.add(day)
            elif NOT_RUN in cause:  # a worker had already taken the day when the outage began
                return
            else:
                self.failed[day] = cause
                if cause.startswith(UNREACHABLE) and core().local_scheduler:
                    stop.outage = cause
            on_result(day, cause)

        def run_batches(days: Sequence[dt.date]) -> None:
            size = max(BATCH_SIZE, DAYS_PER_WORKER * workers)
            for number in range(0, len(days), size):
                if not stop:
                    run_batch(self.load, days[number : number + size], workers, stop, note_result)

        try:
            if self.todo:
                self.load.dataset.check()
            if workers > 1 and self.todo:
                prepare_children(self.load.dataset)
            run_batches(self.todo)
            loaded_before = 0
            while stop.outage and not stop.asked and len(loaded_here) > loaded_before:
                loaded_before = len(loaded_here)
                logger.warning("%s: %s. Trying the next day", self.load.dataset.name, stop.outage)
                stop.outage = None
                outage.forget()
                run_batches([day for day in self.todo if day not in loaded_here and day not in self.failed])
            if core().local_scheduler and 0 < len(self.failed) < len(self.todo) and not stop:
                days = count(len(self.failed), "day")
                logger.warning("%s: %s failed. Trying again, as an outage may be over", self.load.dataset.name, days)
                run_batches(sorted(self.failed))
        finally:
            loaded = set(self.load.bulk_complete(self.todo))
            self.done = [day for day in self.todo if day in loaded]
            self.failed = {day: self.failed[day] for day in sorted(self.failed.keys() - loaded)}
            self.not_run = [day for day in self.todo if day not in loaded and day not in self.failed]
