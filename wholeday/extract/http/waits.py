"""What the headers of an answer say about time: when to ask again, and the source's own clock."""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from wholeday import clock

REMAINING = ("X-RateLimit-Remaining", "RateLimit-Remaining", "X-Rate-Limit-Remaining")
RESET = ("X-RateLimit-Reset", "RateLimit-Reset", "X-Rate-Limit-Reset")
COMMA = re.compile(r",(?!\s*\d{1,2}[ -][A-Za-z])")  # between what a header says, but not that within a date
FIRST_EPOCH = 1e9  # a number from here on is a point in time, and from a hundred times that on in milliseconds


def is_limited(headers: Mapping[str, str]) -> bool:
    """Whether an answer is about too many requests: it says when to come back, or that none are left."""
    return "Retry-After" in headers or any(headers.get(name, "").strip() == "0" for name in REMAINING)


def find_wait(status: int, headers: Mapping[str, str]) -> float:
    """The seconds to wait after a refusal: Retry-After, else until an exhausted rate limit is reset; 0: not said.

    Of a header that says several the longest counts.
    """
    texts = [headers.get("Retry-After")]
    if is_limited(headers) or (status == 429 and not any(name in headers for name in REMAINING)):
        texts += [headers.get(name) for name in RESET]
    now = find_time(headers) or clock.utc_now()
    for text in texts:
        said = [_read_wait(word.strip(), now) for word in COMMA.split(text or "")]
        if waits := [wait for wait in said if wait is not None]:
            return max(0.0, *waits)
    return 0.0


def _read_wait(text: str, now: dt.datetime) -> float | None:
    """The seconds from `now` that a number, or a time in it, stands for."""
    if re.fullmatch(r"\d{1,15}(\.\d+)?", text):
        number = float(text)
        if number < FIRST_EPOCH:
            return number
        return (number / 1000 if number >= 100 * FIRST_EPOCH else number) - now.timestamp()
    moment = _parse_iso(text) or _parse_http_date(text)
    return None if moment is None else (moment - now).total_seconds()


def find_time(headers: Mapping[str, str]) -> dt.datetime | None:
    """The source's clock when it answered: the Date header, and the Age that a cache adds; None if it does not say."""
    moment = _parse_http_date(headers.get("Date", ""))
    age = headers.get("Age", "").strip()
    try:
        return moment + dt.timedelta(seconds=int(age)) if moment and re.fullmatch(r"\d{1,9}", age) else moment
    except OverflowError:
        return None


def _parse_http_date(text: str) -> dt.datetime | None:
    return _parse(parsedate_to_datetime, text)


def _parse_iso(text: str) -> dt.datetime | None:
    return _parse(dt.datetime.fromisoformat, text)


def _parse(read: Callable[[str], dt.datetime], text: str) -> dt.datetime | None:
    """A time as `read` understands it, in UTC where it names no zone."""
    try:
        moment = read(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
