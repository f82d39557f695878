"""Read the clock of the program, in UTC."""

import datetime as dt

FUTURE_TOLERANCE = dt.timedelta(minutes=5)  # how far the clocks of machines that share a data_dir may differ


def utc_now() -> dt.datetime:
    """Return the time now, in UTC. Tests replace this function."""
    return dt.datetime.now(dt.UTC)


def is_future(time: dt.datetime) -> bool:
    """Return whether a time lies in the future of the clock: the clock was wrong when the time was written."""
    return time - utc_now() > FUTURE_TOLERANCE
