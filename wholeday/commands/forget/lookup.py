"""Look up the traces of keys before `forget` erases them.

Responsibilities: how many rows a key has, and on which days rows or lines.
Non-goals: changing anything. A file that cannot be read is skipped here; `forget` names it as a problem.
"""

import datetime as dt
import json
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from wholeday.commands.forget.search import DayFiles, Search
from wholeday.commands.forget.tables import find_rejects, match_key
from wholeday.errors import ConfigError, FolderError
from wholeday.load.database import Connection
from wholeday.load.old_tables import refuse_old_tables
from wholeday.load.warehouse import open_warehouse
from wholeday.schema.kinds import DATE, INTEGER, UUID
from wholeday.schema.raw_fields import INTEGERS
from wholeday.schema.tables import REJECTS, Declared
from wholeday.storage.day_folder import list_days
from wholeday.storage.tombstones import Finder, Key
from wholeday.storage.workspace import Workspace


@dataclass
class Trace:
    """The traces of a key: the number of its rows in the warehouse, and its days in the warehouse and the files."""

    text: str
    rows: int = 0
    days: set[dt.date] = field(default_factory=set)

    @property
    def is_known(self) -> bool:
        return bool(self.rows or self.days)


def look_up(workspace: Workspace, keys: Sequence[str]) -> list[Trace]:
    """Return a trace for each of the `keys` that has no tombstone yet.

    The files are read only for keys that the warehouse does not have. Raises ConfigError for text that cannot be a
    key, WarehouseError, FolderError.
    """
    database = open_warehouse(workspace).database
    declared = workspace.dataset.declared
    asked = {parse_key(declared, text): text for text in keys}
    forgotten = set(workspace.tombstones().keys())
    traces = {key: Trace(text) for key, text in asked.items() if key not in forgotten}
    if traces and database.exists():
        with database.connect(readonly=True) as db:
            refuse_old_tables(db, workspace.name)
            for key, trace in traces.items():
                _search_tables(db, declared, key, trace)
                if not trace.is_known:
                    _search_rejects(db, workspace, key, trace)
    if unknown := [key for key, trace in traces.items() if not trace.is_known]:
        for date, key in _search_files(workspace, unknown, list(declared.key)):
            traces[key].days.add(date)
    return list(traces.values())


def _search_tables(db: Connection, declared: Declared, key: Key, trace: Trace) -> None:
    stored = declared.stored
    same_key, values = match_key(declared, key)
    for table in (stored.present, stored.past, stored.events, stored.changes):
        if columns := db.describe(table.name).columns:
            day = "load_date" if "load_date" in columns else "null"
            rows = db.run(f'select {day} from "{table.name}" where {same_key}', **values).fetchall()  # noqa: S608
            trace.rows += len(rows)
            trace.days |= {db.decode(date, "date") for (date,) in rows if date}


def _search_rejects(db: Connection, workspace: Workspace, key: Key, trace: Trace) -> None:
    if db.describe(REJECTS.name).columns:
        rejects = list(find_rejects(db, workspace.name, Finder(workspace.conversion.key_readers, [key])))
        trace.rows += len(rejects)
        trace.days |= {db.decode(date, "date") for date, _, _ in rejects}


def parse_key(declared: Declared, text: str) -> Key:
    """Parse a key into values of the kinds of its columns. Raises ConfigError if the table cannot hold such a key."""
    kinds = list(declared.key.values())
    with suppress(ValueError):
        values = [text] if len(kinds) == 1 and kinds != [INTEGER] else json.loads(text)
        return parse_values(declared, values if isinstance(values, list) else [values])
    columns = ", ".join(f"{column} ({kind})" for column, kind in declared.key.items())
    form = "as a JSON array" if len(kinds) > 1 else "as the table shows it"
    raise ConfigError(f"{text!r} is not a key of {declared.name}: give {columns} {form}")


def parse_values(declared: Declared, values: Sequence[Any]) -> Key:
    """Return values as a key of their kinds. Raises ValueError if the table cannot hold such a key."""
    return tuple(_parse_value(value, kind) for value, kind in zip(values, declared.key.values(), strict=True))


def _parse_value(value: Any, kind: str) -> int | str:
    """Return a value as a key of its kind holds it. Raises ValueError if there is no such key."""
    if kind == INTEGER and type(value) is int and value in INTEGERS:
        return value
    if kind == INTEGER or not isinstance(value, str) or b"\0" in value.encode():
        raise ValueError(value)
    if kind == UUID:
        return str(uuid.UUID(value))
    return str(dt.date.fromisoformat(value)) if kind == DATE else value


def _search_files(workspace: Workspace, keys: Sequence[Key], columns: list[str]) -> Iterator[tuple[dt.date, Key]]:
    """Yield each day with each of the keys that its files have."""
    for date in list_days(workspace.pipeline.data_dir, "raw", workspace.name):
        search = Search(workspace, Finder(workspace.conversion.key_readers, keys), columns)
        with suppress(FolderError):
            deque(search.search_day(DayFiles.read(workspace, date)), maxlen=0)
        yield from ((date, key) for key in search.finder.found)
