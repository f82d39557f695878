"""Read the current time, in UTC."""

import datetime as dt

FUTURE_TOLERANCE = dt.timedelta(minutes=5)  # allowed clock difference between machines that share a data_dir


def utc_now() -> dt.datetime:
    """Return the current time in UTC. Tests replace this function."""
    return dt.datetime.now(dt.UTC)


def is_future(time: dt.datetime) -> bool:
    """Return whether a time is in the future, so that the clock was wrong when it was written."""
    return time - utc_now() > FUTURE_TOLERANCE
