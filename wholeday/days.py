"""Ranges of days: a first day and the day after the last one; and sets of days as text."""

import datetime as dt
from collections.abc import Iterable

from wholeday.errors import ConfigError


def name_days(days: Iterable[dt.date]) -> str:
    """Return days as text, oldest first: `2026-11-02, 2026-11-05..2026-11-09`."""
    runs: list[list[dt.date]] = []
    for day in sorted(days):
        if runs and day - runs[-1][-1] == dt.timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)


def list_span(start: dt.date, stop: dt.date) -> list[dt.date]:
    """List the days from `start` to the day before `stop`. Raises ConfigError if there are none."""
    check_span(start, stop)
    return [start + dt.timedelta(days=number) for number in range((stop - start).days)]


def check_span(start: dt.date, stop: dt.date) -> None:
    """Raise ConfigError if `stop` is not after `start`."""
    if start >= stop:
        raise ConfigError(f"STOP {stop} is not after START {start}: STOP is the day after the last one")
