"""Times of a day in the url, params, body and headers of a source: `{day_start}`, `{watermark:epoch}` and their like.

Owns how a time is written for a source. A lower bound is always written a little too low: what then comes
twice is harmless, what a filter left out would be lost.
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote as percent_encode

from pipeline.config import SNAPSHOT, Source
from pipeline.errors import ConfigError

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
UNITS = {
    "iso": dt.timedelta(seconds=1),
    "date": dt.timedelta(days=1),
    "epoch": dt.timedelta(seconds=1),
    "epoch_ms": dt.timedelta(milliseconds=1),
}
LOWER_BOUNDS = ("day_start", "watermark")
NAMES = ("date", "day_start", "day_stop", "watermark")
PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)(?::([^{}]*))?\}")


def render(text: str, values: Mapping[str, dt.datetime | dt.date], quote: bool = False) -> str:
    """`text` with its placeholders `{name}` or `{name:format}` replaced by `values`; with `quote`, percent-encoded.

    Formats: iso (2026-10-31T00:00:00Z, the default), date, epoch, epoch_ms. A lower bound is rounded down to its
    format and less one unit of it, so that no comparison at the source loses what lies on it; the upper bound is
    rounded up. A day of the calendar is written as 2026-10-31. Raises ConfigError for an unknown name or format.
    """

    def replace(match: re.Match[str]) -> str:
        name, form = _check_placeholder(match)
        value = values[name]
        shown = _format_time(name, value, form) if isinstance(value, dt.datetime) else value.isoformat()
        return percent_encode(shown, safe="") if quote else shown

    return PLACEHOLDER.sub(replace, text)


def find_placeholders(config: Source) -> set[str]:
    """The names of the placeholders that `url`, `params`, `body` and `headers` hold.

    Raises ConfigError for an unknown name or format, and in mode snapshot for one that would filter.
    """
    names = set()
    for text in walk_texts([config.url, config.params, config.body, config.headers]):
        for match in PLACEHOLDER.finditer(text):
            name, _ = _check_placeholder(match)
            if config.mode == SNAPSHOT and name != "date":
                raise ConfigError(
                    f"[{config.section}] {match[0]} cannot be used in mode snapshot, which reads everybody: whoever a "
                    "filter leaves out would look gone. Leave it out, or set mode = incremental"
                )
            names.add(name)
    return names


def _check_placeholder(match: re.Match[str]) -> tuple[str, str]:
    name, form = match[1], match[2] if match[2] is not None else "iso"
    if name not in NAMES:
        raise ConfigError(f"there is no placeholder {match[0]}: there are {', '.join(f'{{{each}}}' for each in NAMES)}")
    if form not in UNITS or (name == "date" and form not in ("iso", "date")):
        known = ", ".join(UNITS if name != "date" else ("date",))
        raise ConfigError(f"{match[0]} has no format '{form}': there are {known}")
    return name, form


def _format_time(name: str, value: dt.datetime, form: str) -> str:
    unit = UNITS[form]
    beyond = (value - EPOCH) % unit
    if name in LOWER_BOUNDS:
        value -= beyond
        if value > EPOCH:  # nothing changed before it, and many a source refuses a negative number
            value -= unit
    elif beyond:
        value += unit - beyond
    match form:
        case "date":
            return f"{value:%Y-%m-%d}"
        case "iso":
            return f"{value:%Y-%m-%dT%H:%M:%SZ}"
        case _:
            return str((value - EPOCH) // unit)


def walk_texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from walk_texts(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from walk_texts(item)


def render_all(value: Any, values: Mapping[str, dt.datetime | dt.date]) -> Any:
    if isinstance(value, str):
        return render(value, values)
    if isinstance(value, Mapping):
        return {name: render_all(item, values) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [render_all(item, values) for item in value]
    return value
