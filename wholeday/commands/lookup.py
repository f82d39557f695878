"""Look up what is known of a key before `forget` erases it.

Responsibilities: how many rows and lines a key has, and on which days.
Non-goals: changing anything. A file that cannot be read is passed over; `forget` names it.
"""

import datetime as dt
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from wholeday.commands.forget import find_gone, parse_key
from wholeday.errors import FolderError
from wholeday.load.database import Connection
from wholeday.load.old_names import refuse_old_names
from wholeday.load.warehouse import open_warehouse
from wholeday.schema.tables import REJECTS, Declared
from wholeday.storage.day_folder import DayFolder, list_days
from wholeday.storage.manifest import CleanManifest, RawManifest
from wholeday.storage.tombstones import Finder, Key
from wholeday.storage.workspace import Workspace

AT_ONCE = 10_000  # rejects


@dataclass
class Trace:
    """What is known of a key: rows of the warehouse, and days in the warehouse and the files."""

    text: str
    rows: int = 0
    days: set[dt.date] = field(default_factory=set)

    @property
    def is_known(self) -> bool:
        return bool(self.rows or self.days)


def look_up(workspace: Workspace, keys: Sequence[str]) -> list[Trace]:
    """Find what is known of those of the `keys` that are not forgotten yet.

    The files are read only if the warehouse does not know one of them. Raises ConfigError for text that cannot be a
    key, WarehouseError, FolderError.
    """
    declared = Declared.read(workspace.name, workspace.dataset.table)
    asked = {parse_key(declared, text): text for text in keys}
    forgotten = set(workspace.tombstones().keys())
    traces = {key: Trace(text) for key, text in asked.items() if key not in forgotten}
    database = open_warehouse(workspace).database
    if traces and database.exists():
        with database.connect(readonly=True) as db:
            refuse_old_names(db, workspace.name)
            _search_tables(db, declared, traces)
            _search_rejects(db, workspace, traces)
    if unknown := [key for key, trace in traces.items() if not trace.is_known]:
        for date, key in _search_files(workspace, unknown, list(declared.key)):
            traces[key].days.add(date)
    return list(traces.values())


def _search_tables(db: Connection, declared: Declared, traces: Mapping[Key, Trace]) -> None:
    stored = declared.stored()
    same = " and ".join(f'"{column}" = :key_{number}' for number, column in enumerate(declared.key))
    for table in (stored.present, stored.events, stored.changes):
        if not db.describe(table.name).columns:
            continue
        day = "null" if table == stored.changes else "load_date"
        for key, trace in traces.items():
            values = {f"key_{number}": value for number, value in enumerate(key)}
            for (date,) in db.run(f'select {day} from "{table.name}" where {same}', **values).fetchall():  # noqa: S608
                trace.rows += 1
                trace.days |= {db.decode(date, "date")} if date else set()


def _search_rejects(db: Connection, workspace: Workspace, traces: Mapping[Key, Trace]) -> None:
    finders = {key: Finder(workspace.dataset.key, [key]) for key, trace in traces.items() if not trace.is_known}
    if not finders or not db.describe(REJECTS.name).columns:
        return
    rejects = db.stream("select load_date, key, record from rejects where dataset = :name", name=workspace.name)
    while some := list(islice(rejects, AT_ONCE)):
        for key, finder in finders.items():
            found = finder.find_rejects(reject[1] for reject in some)
            found |= {line - 1 for line in finder.find_lines([reject[2].encode() for reject in some])}
            traces[key].rows += len(found)
            traces[key].days |= {db.decode(some[number][0], "date") for number in found}


def _search_files(workspace: Workspace, keys: Sequence[Key], columns: list[str]) -> Iterator[tuple[dt.date, Key]]:
    """Yield each of the keys that the files of a day have, with the day."""
    for date in list_days(workspace.pipeline.data_dir, "raw", workspace.name):
        raw, clean = workspace.folder("raw", date), workspace.folder("clean", date)
        finder = Finder(workspace.dataset.key, keys)
        with suppress(FolderError):
            read = raw.read_manifest(RawManifest)
            deque(find_gone(raw, clean, read, _read_clean(clean, read), finder, columns, workspace), maxlen=0)
        yield from ((date, key) for key in finder.found)


def _read_clean(clean: DayFolder, read: RawManifest) -> CleanManifest | None:
    """Read the clean manifest that was made of a raw day; None if there is none."""
    with suppress(FolderError):
        made = clean.read_manifest(CleanManifest)
        if made.raw_sha256 == [part.sha256 for part in read.parts]:
            return made
    return None
