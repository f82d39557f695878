"""Observe the values that records hold at each place.

Responsibilities: counts, kinds and forms of values, over all records seen. Non-goals: conclusions from them.
"""

import datetime as dt
import decimal
import json
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from wholeday.schema.depth import is_deep
from wholeday.schema.raw_fields import RawRecord

# The kinds of JSON values, and the forms of texts.
BOOLEAN, INTEGER, NUMBER, TEXT, OBJECT, LIST, OTHER = "boolean", "integer", "number", "text", "object", "list", "other"
WHOLE, DECIMAL, TRUTH, GUID, MOMENT, DAY, CLOCK, MAIL, PHONE, LINK, EMPTY, LOCAL = (
    *("whole", "decimal", "truth", "guid", "moment", "day", "clock", "mail", "phone", "link", "empty", "local"),
)
OTHER_TIMES = {  # what RFC 3339 does not write, by the format of strptime
    "%a, %d %b %Y %H:%M:%S %z": re.compile(
        r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d ([+-]\d{4}|GMT)"
    ),
    "%a %b %d %H:%M:%S %z %Y": re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d [+-]\d{4} \d{4}"),
    "%Y-%m-%dT%H:%M%z": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(Z|[+-]\d\d:?\d\d)"),
    "%Y-%m-%dT%H:%M": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d"),
    "%Y-%m-%d %H:%M": re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d"),
    "%Y/%m/%d %H:%M:%S": re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d"),
    "%Y-%m-%d %H:%M:%S %z": re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}"),
    "%Y-%m-%d %H:%M:%S UTC": re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"),
    "%Y%m%dT%H%M%S%z": re.compile(r"\d{8}T\d{6}Z"),
}
NUMERIC = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d{1,3})?")
ZONE = re.compile(r"([zZ]|[+-]\d\d:?\d\d)$")
CLOCK_TEXT = re.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?")
MAIL_TEXT = re.compile(r"[^@\s]+@[^@\s]+\.[a-zA-Z]{2,}")
PHONE_TEXT = re.compile(r"\+[\d ().-]{7,20}|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}")
LINK_TEXT = re.compile(r"https?://\S+")
LONGEST_FORM = 60  # characters of a text that may be more than a text


@dataclass
class Seen:
    """The observations at one place of the records."""

    count: int = 0
    """How many values came, null included."""
    kinds: Counter[str] = field(default_factory=Counter)
    """The values by their kind; null has none."""
    forms: Counter[str] = field(default_factory=Counter)
    """The texts by their form. A text of no special form has none."""
    low: int | None = None
    high: int | None = None
    """The bounds of the whole numbers, also of those in texts."""
    digits: int = 0
    """The most digits before the point, of numbers and of numbers in texts."""
    places: int = 0
    """The most digits after the point."""
    even_places: set[int] = field(default_factory=set)
    """The numbers of digits after the point that came."""
    fields: dict[str, "Seen"] = field(default_factory=dict)
    """The members of objects."""
    items: "Seen | None" = None
    """The items of lists."""
    repeated: set[str] = field(default_factory=set)
    """The names whose value came twice within one list of objects."""

    @property
    def present(self) -> int:
        """How many values came that are not null."""
        return self.kinds.total()

    @property
    def objects(self) -> int:
        return self.kinds[OBJECT]

    def add(self, value: Any) -> None:
        """Add a value, decoded with `load_exact`."""
        self.count += 1
        match value:
            case None:
                pass
            case bool():
                self.kinds[BOOLEAN] += 1
            case int():
                self.kinds[INTEGER] += 1
                self._add_whole(value)
                self._add_digits(decimal.Decimal(value))
            case decimal.Decimal():
                self.kinds[NUMBER] += 1
                self._add_digits(value)
            case str():
                self.kinds[TEXT] += 1
                self._add_text(value)
            case dict():
                self.kinds[OBJECT] += 1
                for name, member in value.items():
                    if (seen := self.fields.get(name)) is None:
                        seen = self.fields[name] = Seen()
                    seen.add(member)
            case list():
                self.kinds[LIST] += 1
                self._add_items(value)
            case _:
                self.kinds[OTHER] += 1

    def _add_whole(self, number: int) -> None:
        self.low = number if self.low is None else min(self.low, number)
        self.high = number if self.high is None else max(self.high, number)

    def _add_digits(self, number: decimal.Decimal) -> None:
        exponent = number.as_tuple().exponent
        places = max(0, -exponent) if isinstance(exponent, int) else 0
        self.places = max(self.places, places)
        self.even_places.add(places)
        self.digits = max(self.digits, number.adjusted() + 1 if number else 1)

    def _add_text(self, text: str) -> None:
        if form := classify(text):
            self.forms[form] += 1
            if form in (WHOLE, DECIMAL):
                self._add_digits(decimal.Decimal(text))
            if form == WHOLE:
                self._add_whole(int(text))
            if form == MOMENT and not ZONE.search(text):
                self.forms[LOCAL] += 1

    def _add_items(self, items: list[Any]) -> None:
        if self.items is None:
            self.items = Seen()
        for item in items:
            self.items.add(item)
        objects = [item for item in items if isinstance(item, dict)]
        if len(objects) > 1:
            values: dict[str, set[str]] = {}
            for item in objects:
                for name, value in item.items():
                    if not isinstance(value, dict | list):
                        values.setdefault(name, set()).add(str(value))
            self.items.repeated |= {name for name, found in values.items() if len(found) < len(objects)}


def classify(text: str) -> str:
    """Return the form of a text; empty if it is only a text."""
    if text == "":
        return EMPTY
    if len(text) > LONGEST_FORM:
        return LINK if LINK_TEXT.fullmatch(text) else ""
    if text in ("true", "false"):
        return TRUTH
    if match := NUMERIC.fullmatch(text):
        return DECIMAL if match[2] or match[3] else WHOLE
    if len(text) == 36 and text.count("-") == 4:
        with suppress(ValueError):
            uuid.UUID(text)
            return GUID
    if text[:4].isdecimal() and text[4:5] == "-":
        with suppress(ValueError):
            dt.date.fromisoformat(text)
            if len(text) == len("2026-11-20"):
                return DAY
        with suppress(msgspec.ValidationError):
            msgspec.convert(text, dt.datetime)
            return MOMENT
    if CLOCK_TEXT.fullmatch(text):
        return CLOCK
    forms = {MAIL: MAIL_TEXT, LINK: LINK_TEXT, **OTHER_TIMES, PHONE: PHONE_TEXT}
    return next((form for form, pattern in forms.items() if pattern.fullmatch(text)), "")


def load_exact(record: RawRecord) -> Any:
    """Decode a record; a number with a fraction or an exponent keeps its digits. None if it is not usable JSON."""
    with suppress(ValueError, decimal.InvalidOperation):
        return None if is_deep(record) else json.loads(bytes(record), parse_float=decimal.Decimal, parse_constant=float)
    return None


def load_all(records: Iterable[RawRecord]) -> Iterator[Any]:
    """Decode the records that are objects."""
    for record in records:
        if isinstance(value := load_exact(record), dict):
            yield value
