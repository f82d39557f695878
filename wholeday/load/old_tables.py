"""Recognise and upgrade the tables that versions before 1.0 made.

Responsibilities: the old names of `loads.superseded` and of the internal tables and columns, and the stored history.
Non-goals: reading old tables. Every command but `rebuild` refuses them.
"""

from dataclasses import replace

from wholeday.errors import WarehouseError
from wholeday.load.database import Connection
from wholeday.load.history import fill_history
from wholeday.load.sql import HISTORY, Words
from wholeday.schema.tables import LOADS, Declared

INTERNAL = ("days", "events", "changes", "forgotten")  # `users_days` is now `_users_days`
INDEXES = ("by_as_of", "by_key", "not_understood")
ADDED_TO_LOADS = ("details", "source")  # columns that the oldest versions did not have


def has_old_tables(db: Connection, name: str) -> bool:
    """Whether `loads` or the tables of this dataset are those of an older version."""
    if {"stale", "raw_sha256"} <= db.describe(LOADS.name).columns.keys():
        return True
    if db.describe(f"_{name}_days").columns:
        return bool(db.describe(name).columns) and "valid_from" not in db.describe(name).columns
    return _is_old(db, f"{name}_days")


def _is_old(db: Connection, table: str) -> bool:
    """Whether this is the old table of days. A dataset may have its name, but has other columns."""
    return list(db.describe(table).columns) == ["load_date", "mode", "as_of", "extracted_at"]


def refuse_old_tables(db: Connection, name: str) -> None:
    """Raise WarehouseError if an older version made the tables of this dataset."""
    if has_old_tables(db, name):
        raise WarehouseError(
            f"{db}: an older version made the tables of {name}: wholeday rebuild makes them again from the raw files"
        )


def upgrade_tables(db: Connection, declared: Declared) -> None:
    """Rename `loads.stale` and the internal tables of a dataset, and store its history.

    The next load or rebuild makes the indexes.
    """
    name = declared.name
    loads = db.describe(LOADS.name).columns
    if "stale" in loads:
        db.run("alter table loads rename column stale to superseded")
        for column in ADDED_TO_LOADS:
            if column not in loads:
                db.add_column(LOADS, column)
    if _is_old(db, f"{name}_days"):
        db.run(f'drop view if exists "{name}_history"')
        for index in INDEXES:
            db.run(f'drop index if exists "{name}_{index}"')
        for role in INTERNAL:
            old = db.describe(f"{name}_{role}").columns
            if old:
                db.run(f'alter table "{name}_{role}" rename to "_{name}_{role}"')
            if "gone" in old:
                db.run(f'alter table "_{name}_{role}" rename column gone to _state')
    _store_history(db, declared)


def _store_history(db: Connection, declared: Declared) -> None:
    """Store the history, which was computed by the view, in tables that have all facts."""
    stored = declared.stored
    columns = [
        db.describe(table.name).columns for table in (stored.present, stored.days, stored.events, stored.changes)
    ]
    if all(columns) and "valid_from" not in columns[0]:
        declared = replace(declared, row={name: kind for name, kind in declared.row.items() if name in columns[0]})
        db.run(f'drop view if exists "{declared.name}_history"')
        db.create(declared.stored.past)
        db.add_column(stored.present, "valid_from")
        fill_history(db, declared)
        db.create_view(f"{declared.name}_history", HISTORY.format_map(Words(declared)))
