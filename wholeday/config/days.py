"""Decide what a day is: its window in a time zone, and whether it may be extracted."""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import luigi

from wholeday.config.parameters import Duration
from wholeday.config.section import Section
from wholeday.errors import DayNotClosedError

SNAPSHOT = "snapshot"
INCREMENTAL = "incremental"


@dataclass(frozen=True)
class Window:
    """The time range of a day: `start` <= t < `stop`, both in UTC."""

    start: dt.datetime
    stop: dt.datetime


class Days(Section):
    """The keys of a section that define its days."""

    mode = luigi.ChoiceParameter(
        choices=[INCREMENTAL, SNAPSHOT],
        default=INCREMENTAL,
        description="incremental: the records that changed in a day; snapshot: all records",
    )
    timezone = luigi.Parameter(
        default="UTC", description="time zone of a day's midnight, and of times without an offset"
    )
    settle = Duration(
        default=dt.timedelta(minutes=15),
        description="grace period: how late the source may show a change, clock differences included",
    )

    def window(self, date: dt.date) -> Window:
        """Return the window of a day: from its midnight in `timezone` to the next midnight."""
        zone = self._zone()
        start, stop = (
            dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC) for day in (date, date + dt.timedelta(days=1))
        )
        return Window(start, stop)

    def localize(self, moment: dt.datetime) -> dt.datetime:
        """Return the same moment in `timezone`."""
        return moment.astimezone(self._zone())

    def last_closed_day(self, now: dt.datetime) -> dt.date:
        """Return the newest day that may be extracted at `now`.

        In snapshot mode that is today; otherwise the last day whose grace period is over.
        """
        if self.mode == SNAPSHOT:
            return now.astimezone(self._zone()).date()
        return (now - self.settle).astimezone(self._zone()).date() - dt.timedelta(days=1)

    def is_past(self, date: dt.date, now: dt.datetime) -> bool:
        """Return whether a snapshot can no longer stand for `date`, as the following day is over too."""
        return self.mode == SNAPSHOT and date < self.last_closed_day(now) - dt.timedelta(days=1)

    def describe_past(self, now: dt.datetime) -> str:
        """Explain why a range refuses past days of a snapshot, and name the day to request."""
        return (
            "a snapshot shows all records as of now, so past days cannot be fetched. "
            f"Request {self.last_closed_day(now)}"
        )

    def check_closed(self, date: dt.date, now: dt.datetime) -> None:
        """Raise DayNotClosedError if `date` may not be extracted yet at `now`."""
        if date > self.last_closed_day(now):
            opens = self.window(date).start if self.mode == SNAPSHOT else self.window(date).stop + self.settle
            raise DayNotClosedError(
                f"{self.section} {date}: the day can be extracted from {opens:%Y-%m-%dT%H:%M:%SZ} on "
                f"(mode {self.mode}, timezone {self.timezone}, settle {self.settle}); "
                f"the newest day available is {self.last_closed_day(now)}"
            )

    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)
