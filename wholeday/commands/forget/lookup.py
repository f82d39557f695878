"""Look up the traces of keys before `forget` erases them.

*Responsibilities*: how many rows a key has, and on which days rows or lines.
*Non-goals*: changing anything. A file that cannot be read is skipped here; `forget` names it as a problem.
"""

import datetime as dt
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from wholeday.commands.forget.search import DayFiles, Search
from wholeday.commands.forget.steps import parse_key
from wholeday.errors import FolderError
from wholeday.load.database import Connection
from wholeday.load.old_names import refuse_old_names
from wholeday.load.warehouse import open_warehouse
from wholeday.schema.tables import REJECTS, Declared
from wholeday.storage.day_folder import DayFolder, list_days
from wholeday.storage.manifest import CleanManifest, RawManifest
from wholeday.storage.tombstones import Finder, Key
from wholeday.storage.workspace import Workspace

BATCH = 10_000  # rejects


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
    declared = Declared.read(workspace.name, workspace.dataset.table)
    asked = {parse_key(declared, text): text for text in keys}
    forgotten = set(workspace.tombstones().keys())
    traces = {key: Trace(text) for key, text in asked.items() if key not in forgotten}
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
    same_key = " and ".join(f'"{column}" = :key_{number}' for number, column in enumerate(declared.key))
    for table in (stored.present, stored.events, stored.changes):
        if not db.describe(table.name).columns:
            continue
        day = "null" if table == stored.changes else "load_date"
        for key, trace in traces.items():
            values = {f"key_{number}": value for number, value in enumerate(key)}
            for (date,) in db.run(f'select {day} from "{table.name}" where {same_key}', **values).fetchall():  # noqa: S608
                trace.rows += 1
                trace.days |= {db.decode(date, "date")} if date else set()


def _search_rejects(db: Connection, workspace: Workspace, traces: Mapping[Key, Trace]) -> None:
    finders = {key: Finder(workspace.dataset.key, [key]) for key, trace in traces.items() if not trace.is_known}
    if not finders or not db.describe(REJECTS.name).columns:
        return
    rejects = db.stream("select load_date, key, record from rejects where dataset = :name", name=workspace.name)
    while batch := list(islice(rejects, BATCH)):
        for key, finder in finders.items():
            found = finder.find_rejects(reject[1] for reject in batch)
            found |= {line - 1 for line in finder.find_lines([reject[2].encode() for reject in batch])}
            traces[key].rows += len(found)
            traces[key].days |= {db.decode(batch[number][0], "date") for number in found}


def _search_files(workspace: Workspace, keys: Sequence[Key], columns: list[str]) -> Iterator[tuple[dt.date, Key]]:
    """Yield each day with each of the keys that its files have."""
    for date in list_days(workspace.pipeline.data_dir, "raw", workspace.name):
        raw, clean = workspace.folder("raw", date), workspace.folder("clean", date)
        search = Search(workspace, Finder(workspace.dataset.key, keys), columns)
        with suppress(FolderError):
            raw_manifest = raw.read_manifest(RawManifest)
            day = DayFiles(raw, clean, raw_manifest, _read_clean_manifest(clean, raw_manifest))
            deque(search.search_day(day), maxlen=0)
        yield from ((date, key) for key in search.finder.found)


def _read_clean_manifest(clean: DayFolder, raw_manifest: RawManifest) -> CleanManifest | None:
    """Read the clean manifest that belongs to a raw day. Return None if there is none."""
    with suppress(FolderError):
        manifest = clean.read_manifest(CleanManifest)
        if manifest.raw_sha256 == [part.sha256 for part in raw_manifest.parts]:
            return manifest
    return None
