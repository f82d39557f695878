"""Read what the headers of an answer say about time: when to ask again, and the source's clock."""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from wholeday import clock

RECOVERABLE = (408, 425, 429)
REMAINING = ("X-RateLimit-Remaining", "RateLimit-Remaining", "X-Rate-Limit-Remaining")
RESET = ("X-RateLimit-Reset", "RateLimit-Reset", "X-Rate-Limit-Reset")
COMMA = re.compile(r",(?!\s*\d{1,2}[ -][A-Za-z])")  # between values, but not the comma within a date
FIRST_EPOCH = 1e9  # larger numbers are points in time, and from a hundred times as large in milliseconds


def is_limited(headers: Mapping[str, str]) -> bool:
    """Return whether an answer reports a rate limit: it names a wait, or no remaining requests."""
    return "Retry-After" in headers or any(headers.get(name, "").strip() == "0" for name in REMAINING)


def may_pass(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether a request with this answer may succeed later."""
    return status >= 500 or status in RECOVERABLE or (status == 403 and is_limited(headers))


def parse_wait(status: int, headers: Mapping[str, str]) -> float:
    """Return the seconds to wait after a refusal; 0 if the source does not say.

    Retry-After counts first, then the reset of an exhausted rate limit. The longest of several values counts.
    """
    texts = [headers.get("Retry-After")]
    if is_limited(headers) or (status == 429 and not any(name in headers for name in REMAINING)):
        texts += [headers.get(name) for name in RESET]
    now = parse_time(headers) or clock.utc_now()
    for text in texts:
        parsed = [_parse_seconds(word.strip(), now) for word in COMMA.split(text or "")]
        if waits := [wait for wait in parsed if wait is not None]:
            return max(0.0, *waits)
    return 0.0


def _parse_seconds(text: str, now: dt.datetime) -> float | None:
    """Return the seconds from `now` to a time, or the number of seconds in a text."""
    if re.fullmatch(r"\d{1,15}(\.\d+)?", text):
        number = float(text)
        if number < FIRST_EPOCH:
            return number
        return (number / 1000 if number >= 100 * FIRST_EPOCH else number) - now.timestamp()
    moment = _parse(text, dt.datetime.fromisoformat) or _parse(text, parsedate_to_datetime)
    return None if moment is None else (moment - now).total_seconds()


def parse_time(headers: Mapping[str, str]) -> dt.datetime | None:
    """Return the time of the answer by the source's clock: Date plus the Age that a cache adds; None without Date."""
    moment = _parse(headers.get("Date", ""), parsedate_to_datetime)
    age = headers.get("Age", "").strip()
    try:
        return moment + dt.timedelta(seconds=int(age)) if moment and re.fullmatch(r"\d{1,9}", age) else moment
    except OverflowError:
        return None


def _parse(text: str, parse: Callable[[str], dt.datetime]) -> dt.datetime | None:
    """Return a parsed time, in UTC if it names no zone; None if the text is not a time."""
    try:
        moment = parse(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
