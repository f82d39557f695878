"""A transformed day, as a load takes it."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wholeday.schema.reject import Reject

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class DayMetadata:
    """A day by its manifests. All times are aware, in UTC."""

    date: dt.date
    mode: str
    window_start: dt.datetime
    window_stop: dt.datetime
    started_at: dt.datetime
    extracted_at: dt.datetime
    as_of: dt.datetime
    pages: int
    extracted: int
    rejected: int
    raw_sha256: str
    clean_sha256: str
    transform_version: str
    accepted: str = ""
    forgotten: int = 0
    """How many of the extracted records were erased from the raw files."""
    source: str | None = None
    """None if an older version extracted the day: its manifest names no source."""
    absent: dict[str, int] = field(default_factory=dict)
    """Fields that no record has although they usually come, for the `details` of the marker."""


@dataclass(frozen=True)
class CleanDay:
    """A day as `load` takes it. Rows and rejects are read once, a batch at a time."""

    metadata: DayMetadata
    rows: "Iterable[pa.RecordBatch]"
    """The columns of the table in any order, and optionally `deleted` (boolean: the record is a deletion)."""
    rejects: Iterable[Reject]
