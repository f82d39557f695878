"""Read the table `loads`.

Responsibilities: which days are loaded, their markers, and the source that a dataset is loaded from.
Non-goals: writing markers. A load writes its own; see warehouse.py.
"""

import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from wholeday.config.days import SNAPSHOT
from wholeday.errors import WarehouseError
from wholeday.load.database import Connection, connect_existing, decode, find_database
from wholeday.schema.marker import Marker, list_nullable
from wholeday.schema.tables import LOADS, join_names
from wholeday.storage.known_source import KnownSource

NULLABLE = list_nullable()


class StoredMarker(NamedTuple):
    """A row of `loads`, possibly edited by hand."""

    marker: Marker
    """An unreadable value is None, although its type may not allow it."""
    faults: dict[str, str]
    """Problems by column."""


def find_loaded(database: str, dataset: str, dates: Iterable[dt.date]) -> set[dt.date]:
    """Return the loaded days among `dates`, with one SELECT. `database` is a URL.

    A missing database holds no day and is not created.
    """
    dates = set(dates)
    with _open_loads(database, LOADS.key) as db:
        if not dates or db is None:
            return set()
        sql = "select date from loads where dataset = :dataset and date between :first and :last"
        rows = db.run(sql, dataset=dataset, first=min(dates), last=max(dates)).fetchall()
        return dates & {decode(db, "a day in loads", date, "date") for (date,) in rows}


def has_snapshot(database: str, dataset: str, since: dt.date | dt.datetime) -> bool:
    """Whether a snapshot is loaded that is as of this time or later; for a day: the snapshot of that day or later."""
    column = "as_of" if isinstance(since, dt.datetime) else "date"
    with _open_loads(database, (*LOADS.key, "mode", column)) as db:
        sql = f"select 1 from loads where dataset = :dataset and mode = :mode and {column} >= :since limit 1"  # noqa: S608
        return db is not None and db.run(sql, dataset=dataset, mode=SNAPSHOT, since=since).fetchone() is not None


@contextmanager
def _open_loads(database: str, columns: Iterable[str]) -> Iterator[Connection | None]:
    """Open a database whose table `loads` has these columns. Yield None if the database or the table is missing."""
    with connect_existing(find_database(database)) as db:
        stored = db.describe(LOADS.name).columns if db else {}
        if stored and (missing := [column for column in columns if column not in stored]):
            raise WarehouseError(
                f'{db}: cannot ask which days are loaded: column "{missing[0]}" does not exist: '
                "if the table loads is another program's, choose another database"
            )
        yield db if stored else None


def read_markers(db: Connection, dataset: str, condition: str = "", **params: Any) -> list[Marker]:
    """Return the markers of a dataset by date; with an SQL condition, only the matching ones.

    Raises WarehouseError if a value has another type than its column, or is null.
    """
    markers = []
    for marker, faults in scan_markers(db, dataset, condition, **params):
        if faults:
            raise WarehouseError(
                f"{db}: loads, {dataset} {marker.date or 'of no day'}: {next(iter(faults.values()))}: "
                "correct the value, or delete the row and run the day again"
            )
        markers.append(marker)
    return markers


def scan_markers(db: Connection, dataset: str, condition: str = "", **params: Any) -> Iterator[StoredMarker]:
    """Yield the markers of a dataset by date, each with its faults."""
    sql = f"select {join_names(LOADS.columns)} from loads where dataset = :dataset {condition} order by date"  # noqa: S608
    for row in db.run(sql, dataset=dataset, **params).fetchall():
        values: dict[str, Any] = {}
        faults = {}
        nulls = {}
        for (column, kind), value in zip(LOADS.columns.items(), row, strict=True):
            values[column] = None
            try:
                values[column] = _parse_details(value) if column == "details" else decode(db, column, value, kind)
            except WarehouseError as error:
                faults[column] = str(error)
            if value is None and column not in NULLABLE:
                nulls[column] = f"{column} is null"
        yield StoredMarker(Marker(**values), faults | nulls)


def _parse_details(text: Any) -> dict[str, dict[str, int]] | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, dict[str, int]], strict=True)
    except (msgspec.DecodeError, TypeError) as error:
        raise WarehouseError(f"details is {text!r}, not a JSON object of counts") from error


def has_markers(db: Connection, dataset: str) -> bool:
    """Whether a day of the dataset is loaded."""
    return db.run("select 1 from loads where dataset = :dataset limit 1", dataset=dataset).fetchone() is not None


def read_known_source(db: Connection, dataset: str) -> KnownSource | None:
    """Return the source of the newest loaded day that names one."""
    sql = "select date, source from loads where dataset = :dataset and source is not null order by date desc limit 1"
    row = db.run(sql, dataset=dataset).fetchone()
    return KnownSource(decode(db, f"{dataset}: a day in loads", row[0], "date"), row[1]) if row else None
