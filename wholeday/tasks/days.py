"""Days as people give them: from a first one to the day after the last."""

import datetime as dt

from wholeday.errors import ConfigError


def list_span(start: dt.date, stop: dt.date) -> list[dt.date]:
    """The days from `start` to the day before `stop`; raises ConfigError where there is none."""
    check_span(start, stop)
    return [start + dt.timedelta(days=number) for number in range((stop - start).days)]


def check_span(start: dt.date, stop: dt.date) -> None:
    """Raise ConfigError where no day lies between them."""
    if start >= stop:
        raise ConfigError(f"STOP {stop} is not after START {start}: it is the day after the last one")
