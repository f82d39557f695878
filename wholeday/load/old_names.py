"""Recognise and rename the tables that versions before 1.0 made.

Responsibilities: the old names of `loads.superseded` and of the internal tables and columns.
Non-goals: reading tables under their old names. Every command but `rebuild` refuses them.
"""

from dataclasses import replace

from wholeday.errors import WarehouseError
from wholeday.load.database import Connection
from wholeday.load.sql import HISTORY, Words
from wholeday.schema.tables import LOADS, Declared

INTERNAL = ("days", "events", "changes", "forgotten")  # `users_days` is now `_users_days`
INDEXES = ("by_as_of", "by_key", "not_understood")
ADDED_TO_LOADS = ("details", "source")  # columns that the oldest versions did not have


def has_old_names(db: Connection, name: str) -> bool:
    """Whether `loads` or the tables of this dataset have the names of an older version."""
    if {"stale", "raw_sha256"} <= db.describe(LOADS.name).columns.keys():
        return True
    return not db.describe(f"_{name}_days").columns and _is_old(db, f"{name}_days")


def _is_old(db: Connection, table: str) -> bool:
    """Whether this is the old table of days. A dataset may have its name, but has other columns."""
    return list(db.describe(table).columns) == ["load_date", "mode", "as_of", "extracted_at"]


def refuse_old_names(db: Connection, name: str) -> None:
    """Raise WarehouseError if an older version made the tables of this dataset."""
    if has_old_names(db, name):
        raise WarehouseError(
            f"{db}: an older version made the tables of {name}: wholeday rebuild makes them again from the raw files"
        )


def rename_tables(db: Connection, declared: Declared) -> None:
    """Rename `loads.stale` and the internal tables of a dataset. The next load or rebuild makes the indexes."""
    name = declared.name
    loads = db.describe(LOADS.name).columns
    if "stale" in loads:
        db.run("alter table loads rename column stale to superseded")
        for column in ADDED_TO_LOADS:
            if column not in loads:
                db.add_column(LOADS, column)
    if not _is_old(db, f"{name}_days"):
        return
    if has_view := db.describe(f"{name}_history").kind == "view":
        db.run(f'drop view "{name}_history"')
    for index in INDEXES:
        db.run(f'drop index if exists "{name}_{index}"')
    for role in INTERNAL:
        old = db.describe(f"{name}_{role}").columns
        if old:
            db.run(f'alter table "{name}_{role}" rename to "_{name}_{role}"')
        if "gone" in old:
            db.run(f'alter table "_{name}_{role}" rename column gone to _state')
    tables = [set(db.describe(table.name).columns) for table in declared.stored()[:-1]]
    if has_view and all(tables):  # for readers, until the rebuild is committed
        row = {column: kind for column, kind in declared.row.items() if column in tables[0]}
        db.create_view(f"{name}_history", HISTORY.format_map(Words(replace(declared, row=row))))
