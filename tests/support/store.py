"""Load days of the model into a warehouse, and read it in the terms of the model, with times in hours."""

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support import databases
from tests.support.model import ReadDay, Record
from tests.support.things import make_record_class
from wholeday.errors import ConfigError, DatasetError, WarehouseError
from wholeday.load.clean_day import CleanDay
from wholeday.load.warehouse import Warehouse
from wholeday.schema.dataset import Dataset
from wholeday.schema.marker import Marker
from wholeday.schema.record import Field
from wholeday.schema.reject import Reject
from wholeday.schema.tables import ChildTable

MIDNIGHT = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


def at(hours: float | None) -> dt.datetime | None:
    """Return the time this many hours after MIDNIGHT."""
    return None if hours is None else MIDNIGHT + dt.timedelta(hours=hours)


STATE = {"name": str | None, "updated_at": dt.datetime | None}
USER = {"user_id": int, **STATE}
Part = make_record_class({"name": str | None}, "Part")
Line = make_record_class(
    {"sku": str, "quantity": int | None, "parts": list[Part] | None},  # type: ignore[valid-type]
    "Line",
    sku=Field(primary_key=True),
)
Note = make_record_class({"text": str}, "Note")
LISTS = {"lines": list[Line] | None, "notes": list[Note] | None}  # type: ignore[valid-type]


def make_dataset(name: str, columns: dict[str, Any], *key: str, **fields: Any) -> Dataset:
    """Define a dataset with these types by column, and the columns of its key."""
    keys = {column: Field(primary_key=True) for column in key}
    return Dataset(name, make_record_class(columns, **keys | fields))


DATASETS = {
    dataset.name: dataset
    for dataset in (
        make_dataset("users", USER, "user_id"),
        make_dataset("orders", {"shop": str, "order": int, **STATE}, "shop", "order"),
        make_dataset("carts", {"id": int, **STATE, **LISTS}, "id"),
    )
}
MISCHIEF = {
    "sqlite": ["create trigger mischief after insert on users begin delete from users where user_id = 2; end"],
    "postgresql": [
        "create function remove() returns trigger language plpgsql as "
        "'begin delete from users where user_id = 2; return null; end'",
        "create trigger mischief after insert on users for each row execute function remove()",
    ],
}


def describe(day: ReadDay, **changed: Any) -> Marker:
    """Describe a day of the model as its manifests do."""
    said = Marker(
        dataset="users",
        date=day.date,
        mode=day.mode,
        window_start=day.window_stop - dt.timedelta(days=1),
        window_stop=day.window_stop,
        started_at=day.as_of,
        extracted_at=day.extracted_at,
        as_of=day.as_of,
        pages=1,
        extracted=0,
        raw_sha256=repr(day),
        clean_sha256="",
        transform_version="1",
    )
    return said.replace(**changed)


class Store:
    """A warehouse that loads days of the model and returns results in the model's form."""

    def __init__(self, where: str | Path, name: str = "users") -> None:
        """Take the URL of a database, or the path of a SQLite file."""
        self.url = where if isinstance(where, str) else f"sqlite:///{where}"
        self.name, self.key = name, list(DATASETS[name].declared.key)
        self.row = [column for column in DATASETS[name].declared.row if column != "updated_at"]
        self.warehouse = Warehouse(self.url, DATASETS[name])

    def load(self, day: ReadDay) -> Marker:
        rejects = [
            Reject(line=line, reason="is wrong", field="name", key=self.write_key(r.key), record=json.dumps(r.row))
            for line, r in enumerate(day.records, 1)
            if r.rejected
        ]
        described = describe(day, dataset=self.name, extracted=len(day.records), rejected=len(rejects))
        return self.warehouse.load(CleanDay(described, self.batches(day), rejects))

    def batches(self, day: ReadDay) -> Iterator[pa.RecordBatch]:
        rows = [r for r in day.records if not r.rejected]
        for some in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            keys = list(zip(*(self.values(r.key) for r in some), strict=True)) or [[] for _ in self.key]
            columns = dict(zip(self.key, keys, strict=True))
            states = [r.row if isinstance(r.row, tuple) else (r.row,) for r in some]
            columns |= {name: pa.array([row[n] for row in states], pa.string()) for n, name in enumerate(self.row)}
            columns |= {"updated_at": pa.array([r.updated_at for r in some], pa.timestamp("us", "UTC"))}
            columns |= {"deleted": pa.array([r.deleted for r in some], pa.bool_())}
            yield pa.record_batch(columns)

    def values(self, key: Any) -> list[Any]:
        return list(key) if isinstance(key, tuple) else [key]

    def join_row(self, values: Sequence[str | None]) -> Any:
        """Return the columns of a row as the model has them."""
        return tuple(values) if len(self.row) > 1 else values[0]

    def write_key(self, key: Any) -> str | None:
        """Return a key as stored in a reject."""
        return None if key is None else json.dumps(self.values(key))

    def forget(self, key: Any) -> None:
        """Erase a key in the warehouse: add a tombstone and delete its rows."""
        same = " and ".join(f'"{column}" = {value!r}' for column, value in zip(self.key, self.values(key), strict=True))
        tables = (self.name, f"_{self.name}_past", f"_{self.name}_events", f"_{self.name}_changes")
        children = self.list_children()
        self.execute(
            f"insert into _{self.name}_forgotten values ({', '.join(map(repr, self.values(key)))})",
            *(f"delete from {table} where {same}" for table in tables),
            *(f"delete from {child.name} where {child.root_columns[0]} = {key!r}" for child in children),
            f"delete from rejects where key = '{json.dumps(self.values(key))}'",
        )

    @property
    def kind(self) -> str:
        return self.url.partition("+")[0].partition(":")[0]

    def make_room(self) -> None:
        """Create the database or schema without a table."""
        with self.warehouse.database.connect(create=True):
            pass

    def list_tables(self) -> list[str]:
        return databases.list_tables(self.url)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return databases.query(self.url, sql)

    def execute(self, *statements: str) -> None:
        databases.execute(self.url, *statements)

    def unmark(self, day: ReadDay) -> None:
        """Delete a marker by hand."""
        self.execute(f"delete from loads where date = '{day.date}'")

    def dump_all(self) -> list[str]:
        """Return the whole content, definitions and other datasets included."""
        return databases.dump(self.url)

    def select(self, columns: str, table: str) -> Iterator[tuple[Any, ...]]:
        width = len(self.key)
        keys = ", ".join(f'"{column}"' for column in self.key)
        for row in self.query(f"select {keys}, {columns} from {table}"):
            yield (row[0] if width == 1 else row[:width], *row[width:])

    def present(self) -> dict[Any, tuple[Any, ...]]:
        rows = self.select(f"updated_at, load_date, {', '.join(self.row)}", self.name)
        return {
            key: (self.join_row(row), time(updated), dt.date.fromisoformat(date)) for key, updated, date, *row in rows
        }

    def history(self) -> set[tuple[Any, ...]]:
        rows = self.select(f"updated_at, valid_from, valid_to, {', '.join(self.row)}", f"{self.name}_history")
        return {(key, self.join_row(row), *map(time, times)) for key, *times, row in ((*r[:4], r[4:]) for r in rows)}

    def children(self) -> dict[str, set[tuple[Any, ...]]]:
        """Return the rows of the child tables."""
        return {child.name: set(self.query(f"select * from {child.name}")) for child in self.list_children()}

    def child_history(self) -> dict[str, set[tuple[Any, ...]]]:
        """Return the rows of the views of the history of child tables."""
        rows = {child.name: self.query(f"select * from {child.name}_history") for child in self.list_children()}
        return {name: {(*row[:-2], *map(time, row[-2:])) for row in found} for name, found in rows.items()}

    def list_children(self) -> tuple[ChildTable, ...]:
        return self.warehouse.dataset.declared.children

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        internal = (f"_{self.name}_{role}" for role in ("past", "days", "events", "changes", "forgotten"))
        children = [child.name for child in self.list_children()]
        views = [f"{name}_history" for name in (self.name, *children)]
        names = [self.name, *internal, *children, *views, "rejects"]
        rows = databases.query_each(self.url, *(f"select * from {name}" for name in names))
        return {name: sorted(found, key=repr) for name, found in zip(names, rows, strict=True)}


def time(text: str | None) -> dt.datetime | None:
    return text and dt.datetime.fromisoformat(text)


def snapshot(date: int, as_of: float, *records: Record, took: float = 1) -> ReadDay:
    """Build a snapshot of day `date` of November. Times are hours after MIDNIGHT."""
    return ReadDay(dt.date(2026, 11, date), "snapshot", at(as_of), at(as_of + took), at(24 * date), records)


def incremental(date: int, *records: Record, read: float | None = None) -> ReadDay:
    """Build the incremental day `date` of November, extracted an hour after its end by default."""
    read = 24 * date + 1 if read is None else read
    return ReadDay(dt.date(2026, 11, date), "incremental", at(read), at(read + 1), at(24 * date), records)


def user(key: Any, row: str | None, updated_at: float | None = None, **flags: bool) -> Record:
    return Record(key, at(updated_at), row, **flags)


def in_hours(instant: dt.datetime | None) -> float | None:
    return None if instant is None else (instant - MIDNIGHT) / dt.timedelta(hours=1)


def intervals(store: Store, key: Any = 1) -> list[tuple[str, float, float | None]]:
    """Return the history of a user: name, from, to, in hours."""
    found = [(name, in_hours(start), in_hours(stop)) for k, name, _, start, stop in store.history() if k == key]
    return sorted(found, key=lambda interval: interval[1])


def names(store: Store) -> dict[Any, str]:
    return {key: name for key, (name, *_) in store.present().items()}


def load_error(store: Store, day: ReadDay, **changed: Any) -> str:
    """Load a day that must fail; return the message. Check that the database does not change."""
    before = store.dump_all() if store.warehouse.database.exists() else None
    rows = changed.pop("rows", store.batches(day))
    with pytest.raises((WarehouseError, ConfigError, DatasetError)) as error:
        store.warehouse.load(
            CleanDay(describe(day, dataset=store.name, **{"extracted": len(day.records)} | changed), rows, [])
        )
    if before:
        assert store.dump_all() == before
    assert "\n" not in str(error.value)
    return str(error.value)


def declare(store: Store, columns: dict[str, Any], *key: str, **fields: Any) -> None:
    """Declare the columns of a store's dataset, and those of its key, otherwise. `fields` holds results of Field."""
    store.warehouse = Warehouse(store.url, make_dataset(store.name, columns, *key, **fields))
