"""Ranges of days: a first day and the day after the last one."""

import datetime as dt

from wholeday.errors import ConfigError


def list_span(start: dt.date, stop: dt.date) -> list[dt.date]:
    """List the days from `start` to the day before `stop`. Raises ConfigError if there are none."""
    check_span(start, stop)
    return [start + dt.timedelta(days=number) for number in range((stop - start).days)]


def check_span(start: dt.date, stop: dt.date) -> None:
    """Raise ConfigError if `stop` is not after `start`."""
    if start >= stop:
        raise ConfigError(f"STOP {stop} is not after START {start}: STOP is the day after the last one")
