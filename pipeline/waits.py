"""What the headers of an answer say about time: when to ask again, and the source's own clock."""

import datetime as dt
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from pipeline import config as settings

REMAINING = ("X-RateLimit-Remaining", "RateLimit-Remaining", "X-Rate-Limit-Remaining")
RESET = ("X-RateLimit-Reset", "RateLimit-Reset", "X-Rate-Limit-Reset")
FIRST_EPOCH = 1e9  # a number from here on is a point in time, and from a hundred times that on in milliseconds


def is_limited(headers: Mapping[str, str]) -> bool:
    """Whether an answer is about too many requests: it says when to come back, or that none are left."""
    return "Retry-After" in headers or any(headers.get(name, "").strip() == "0" for name in REMAINING)


def find_wait(status: int, headers: Mapping[str, str]) -> float:
    """The seconds to wait after a refusal: Retry-After, else until an exhausted rate limit is reset; 0: not said."""
    texts = [headers.get("Retry-After")]
    if is_limited(headers) or (status == 429 and not any(name in headers for name in REMAINING)):
        texts += [headers.get(name) for name in RESET]
    now = find_time(headers) or settings.utc_now()
    for text in texts:
        if text is None:
            continue
        if re.fullmatch(r"\d{1,15}(\.\d+)?", text.strip()):
            number = float(text)
            if number >= FIRST_EPOCH:
                number = (number / 1000 if number >= 100 * FIRST_EPOCH else number) - now.timestamp()
            return max(0.0, number)
        moment = _parse_http_date(text)
        if moment is not None:
            return max(0.0, (moment - now).total_seconds())
    return 0.0


def find_time(headers: Mapping[str, str]) -> dt.datetime | None:
    """The source's clock when it answered: the Date header, and the Age that a cache adds; None if it does not say."""
    moment = _parse_http_date(headers.get("Date", ""))
    age = headers.get("Age", "").strip()
    try:
        return moment + dt.timedelta(seconds=int(age)) if moment and re.fullmatch(r"\d{1,9}", age) else moment
    except OverflowError:
        return None


def _parse_http_date(text: str) -> dt.datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
