"""The marker of a day: the row of `loads` that says that the day is loaded."""

import datetime as dt
from types import NoneType
from typing import Any, get_args

import msgspec

from wholeday import clock

# Every extracted record is in exactly one of these classes.
CLASSES = ("rejected", "forgotten", "duplicate", "superseded", "unchanged", "inserted", "updated", "deleted")
KINDS = {str: "text", int: "integer", float: "float", dt.date: "date", dt.datetime: "timestamp"}


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded day: where it came from, its counts, and when it was loaded. Times are aware, in UTC."""

    dataset: str
    date: dt.date
    mode: str
    source: str | None = None
    """None if an older version extracted the day: its manifest names no source."""
    window_start: dt.datetime
    window_stop: dt.datetime
    started_at: dt.datetime
    extracted_at: dt.datetime
    as_of: dt.datetime
    pages: int
    extracted: int
    """The sum of the classes, which follow."""
    rejected: int = 0
    forgotten: int = 0
    duplicate: int = 0
    superseded: int = 0
    unchanged: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    vanished: int = 0
    reverted: int = 0
    watermark: dt.datetime | None = None
    raw_sha256: str
    clean_sha256: str
    transform_version: str
    accepted: str = ""
    """The quality gates that were let through, separated by commas."""
    loaded_at: dt.datetime = msgspec.field(default_factory=clock.utc_now)
    seconds: float = 0.0
    pruned_at: dt.datetime | None = None
    details: dict[str, dict[str, int]] | None = {}
    """What the load changed besides rows: `{"nulled": {"email": 98}, "removed": {"orders_line_items": 3}}`.

    `nulled` counts values that became null, by column; `added` and `removed` rows, by child table; `absent` the
    records of the day, by each usual field that none of them has. None if an older version wrote the marker.
    """

    @property
    def counts(self) -> dict[str, int]:
        """How many records were extracted and are in each class, and how many users vanished or reverted."""
        return {name: getattr(self, name) for name in ("extracted", *CLASSES, "vanished", "reverted")}

    def has(self, **values: Any) -> bool:
        """Whether the marker has all of these values."""
        return all(getattr(self, name) == value for name, value in values.items())

    def replace(self, **values: Any) -> "Marker":
        """Return a copy with other values."""
        return msgspec.structs.replace(self, **values)


def list_columns() -> dict[str, str]:
    """Return the columns of `loads` with their kinds. `details` is stored as JSON."""
    fields = {field.name: (field.type, *get_args(field.type)) for field in msgspec.structs.fields(Marker)}
    return {name: next((KINDS[type_] for type_ in types if type_ in KINDS), "text") for name, types in fields.items()}


def list_nullable() -> set[str]:
    """Return the columns of `loads` that may be null."""
    return {field.name for field in msgspec.structs.fields(Marker) if NoneType in get_args(field.type)}
