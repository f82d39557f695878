"""A range of days of any length: what is missing of it is loaded, block by block.

Owns which days are to be run, in what portions, and what became of each: a day is loaded when the warehouse says so.
How a block runs is the business of block.py. Luigi's scheduling is quadratic in what it is given at once: blocks make
it linear.
"""

import datetime as dt
from collections.abc import Sequence

from luigi.interface import core

from wholeday import clock
from wholeday.extract import outage
from wholeday.log import count, logger
from wholeday.tasks.block import Tell, prepare_children, run_block
from wholeday.tasks.day_tasks import UNREACHABLE, Load
from wholeday.tasks.days import list_span
from wholeday.tasks.stop import Stop

BLOCK = 20  # days
NOT_RUN = ": not run, as"  # in the cause of a day that was not tried
BLOCK_OF_A_WORKER = 10  # days at least: at the end of a block workers wait for each other


class Backfill:
    """The days of a range: `skipped` are loaded already, `early` are not closed yet, `past` cannot be read any more,
    `todo` are to be run.

    Of these in the end `done` are loaded, `failed` are not, and why, and `left` were not run.
    """

    def __init__(self, load: type[Load], start: dt.date, stop: dt.date) -> None:
        """Ask the warehouse which of the days from `start` to the day before `stop` it has, all at once."""
        days = list_span(start, stop)
        loaded = set(load.bulk_complete(days))
        missing = [day for day in days if day not in loaded]
        settings, now = load.dataset.config(), clock.utc_now()
        self.load = load
        self.last_closed = settings.last_closed_day(now)
        self.past = load.dataset.list_past(missing, now)
        self.why_past = settings.describe_past(now)
        self.skipped = [day for day in days if day in loaded]
        self.todo = [day for day in missing if day <= self.last_closed and day not in self.past]
        self.early = [day for day in missing if day > self.last_closed]
        self.done: list[dt.date] = []
        self.failed: dict[dt.date, str] = {}
        self.left: list[dt.date] = []

    def run(self, workers: int, stop: Stop, tell: Tell) -> None:
        """Load the days, the oldest first; `tell` hears of each.

        If the source cannot be reached, the days that follow are not run: the run ends with the first such day, or with
        the second in a row after days that were loaded.
        Those that failed are tried once more at the end, as an outage may be over by then: but not where all failed,
        nor under luigid, which has tried them again meanwhile. What became of the days is known even where this raises.
        Raises DatasetError or ConfigError where no day of the dataset could be loaded.
        """

        loaded_here: set[dt.date] = set()

        def hear(day: dt.date, cause: str | None) -> None:
            if cause is None:
                loaded_here.add(day)
            elif NOT_RUN in cause:  # by a worker that had the day already
                return
            else:
                self.failed[day] = cause
                if cause.startswith(UNREACHABLE) and core().local_scheduler:
                    stop.outage = cause
            tell(day, cause)

        def run_blocks(days: Sequence[dt.date]) -> None:
            size = max(BLOCK, BLOCK_OF_A_WORKER * workers)
            for number in range(0, len(days), size):
                if not stop:
                    run_block(self.load, days[number : number + size], workers, stop, hear)

        try:
            if self.todo:
                self.load.dataset.check()
            if workers > 1 and self.todo:
                prepare_children(self.load.dataset)
            run_blocks(self.todo)
            tried = 0
            while stop.outage and not stop.asked and len(loaded_here) > tried:
                tried = len(loaded_here)
                logger.warning("%s: %s; the next day is tried", self.load.dataset.name, stop.outage)
                stop.outage = None
                outage.forget()
                run_blocks([day for day in self.todo if day not in loaded_here and day not in self.failed])
            if core().local_scheduler and 0 < len(self.failed) < len(self.todo) and not stop:
                days = count(len(self.failed), "day")
                logger.warning("%s: %s failed; once more, as an outage may be over", self.load.dataset.name, days)
                run_blocks(sorted(self.failed))
        finally:
            loaded = set(self.load.bulk_complete(self.todo))
            self.done = [day for day in self.todo if day in loaded]
            self.failed = {day: self.failed[day] for day in sorted(self.failed.keys() - loaded)}
            self.left = [day for day in self.todo if day not in loaded and day not in self.failed]
