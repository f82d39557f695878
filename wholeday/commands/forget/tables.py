"""Erase rows, changes and rejects from the warehouse, and bring the markers of the days up to date.

Responsibilities: one transaction over all tables of a dataset, then a rewrite of the files of the database: deleted
rows leave their bytes there.
Non-goals: the table of tombstones, which keeps the keys.
"""

import datetime as dt
from collections.abc import Container, Iterator
from itertools import islice
from typing import Any

import msgspec

from wholeday.commands.forget.search import DayFiles
from wholeday.config.days import SNAPSHOT
from wholeday.load.database import Connection, decode
from wholeday.load.markers import read_markers
from wholeday.load.sql import Words
from wholeday.load.staging import list_values
from wholeday.load.warehouse import open_warehouse
from wholeday.schema.marker import CLASSES, Marker
from wholeday.schema.reject import Reject
from wholeday.schema.tables import REJECTS, Declared, Table
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import CleanManifest
from wholeday.storage.parquet import open_rows
from wholeday.storage.tombstones import Finder, Key
from wholeday.storage.workspace import Workspace

CLASSES_OF_ROWS = ("unchanged", "updated", "inserted", "superseded", "deleted")  # usually the most frequent first
BATCH = 10_000  # rejects


def erase_rows(
    workspace: Workspace, declared: Declared, finder: Finder, days: Container[dt.date]
) -> tuple[int, str | None]:
    """Delete the rows with the keys of a finder, and update the markers of `days` to their files.

    Return the number of deleted rows, and why their bytes are still in the files of the database, if they are.
    """
    with open_warehouse(workspace).database.connect(create=True) as db:
        db.begin(workspace.name)
        deleted = _delete_rows(db, declared, finder) + _delete_rejects(db, workspace.name, finder)
        for marker in read_markers(db, workspace.name):
            if marker.date in days:
                _update_marker(db, workspace, declared, marker)
        db.commit()
        children = [child.name for child in declared.children]
        return deleted, db.erase([*(table.name for table in declared.stored), *children, REJECTS.name])


def match_key(declared: Declared, key: Key) -> tuple[str, dict[str, int | str]]:
    """Return the SQL condition for a key, and its values."""
    columns = enumerate(declared.key)
    values = {f"key_{number}": value for number, value in enumerate(key)}
    return " and ".join(f'"{column}" = :key_{number}' for number, column in columns), values


def find_rejects(db: Connection, name: str, finder: Finder) -> Iterator[tuple[Any, Any, Any]]:
    """Yield day, part and line of each reject with a key of a finder, as stored."""
    rejects = db.stream("select load_date, part, line, key, record from rejects where dataset = :name", name=name)
    while batch := list(islice(rejects, BATCH)):
        found = finder.find_rejects(decode(db, "key in rejects", reject[3], "text") for reject in batch)
        records = [decode(db, "record in rejects", reject[4], "text") or "{}" for reject in batch]
        found |= {line - 1 for line in finder.find_lines([record.encode() for record in records])}
        yield from (batch[number][:3] for number in found)


def _delete_rows(db: Connection, declared: Declared, finder: Finder) -> int:
    deleted = 0
    for key in finder.keys:
        same_key, values = match_key(declared, key)
        for table in ("present", "past", "events", "changes"):
            number = db.run(f"delete from {Words(declared)[table]} where {same_key}", **values).rowcount  # noqa: S608
            finder.found.update([key] * bool(number))
            deleted += number
        for child in declared.children:
            same = " and ".join(f'"{column}" = :key_{number}' for number, column in enumerate(child.root_columns))
            deleted += db.run(f'delete from "{child.name}" where {same}', **values).rowcount  # noqa: S608
    return deleted


def _delete_rejects(db: Connection, name: str, finder: Finder) -> int:
    """Delete the rejects with such a key, and count them as forgotten in the markers of their days."""
    rejects = list(find_rejects(db, name, finder))
    for date, part, line in rejects:
        place = {"name": name, "date": date, "part": part, "line": line}
        db.run("delete from rejects where (dataset, load_date, part, line) = (:name, :date, :part, :line)", **place)
        move = "update loads set rejected = rejected - 1, forgotten = forgotten + 1"
        db.run(f"{move} where dataset = :name and date = :date", name=name, date=date)
    return len(rejects)


def _update_marker(db: Connection, workspace: Workspace, declared: Declared, marker: Marker) -> None:
    """Update the marker and the rejects of a day to its files, if these are the loaded files less erased lines."""
    if not workspace.folder("raw", marker.date).exists():
        return  # the marker still describes what was loaded
    day = DayFiles.read(workspace, marker.date)
    if not day.clean_manifest:
        return
    raw, clean = day.raw_manifest, day.clean_manifest
    hashes = {"raw_sha256": raw.sha256, "clean_sha256": clean.sha256}
    erasures = {"raw_sha256": raw.erasures, "clean_sha256": clean.erasures}
    erased = {name: {erasure.sha256 for erasure in found} for name, found in erasures.items()}
    if marker.has(**hashes) or any(getattr(marker, name) not in {now, *erased[name]} for name, now in hashes.items()):
        return
    values = hashes | _count_classes(db, declared, marker, day, day.clean_manifest)
    sets = ", ".join(f"{column} = :{column}" for column in values)
    sql = f"update loads set {sets} where dataset = :name and date = :date"  # noqa: S608
    db.run(sql, **values, name=workspace.name, date=marker.date)
    # Insert the rejects of the day again: the lines behind an erased one have new numbers.
    db.run("delete from rejects where dataset = :name and load_date = :date", name=workspace.name, date=marker.date)
    for part in day.clean_manifest.rejects:
        rejects = [msgspec.json.decode(line, type=Reject) for line in unpack(day.clean.read(part))]
        place = workspace.name, db.encode(marker.date)
        db.insert("rejects", REJECTS.columns, [place + list_values(reject) for reject in rejects])


def _count_classes(
    db: Connection, declared: Declared, marker: Marker, day: DayFiles, manifest: CleanManifest
) -> dict[str, int]:
    """Count the records of a day by class, after an erasure. `manifest` is its clean one.

    Rejected, forgotten and duplicate records are counted again. The class of an erased row is not stored: take the rows
    from the most frequent class, then from the next.
    """
    counts = {name: marker.counts[name] for name in CLASSES}
    counts |= {"forgotten": day.raw_manifest.forgotten, "rejected": manifest.rejected}
    if counts["duplicate"]:
        if marker.mode == SNAPSHOT:
            kept = _count_keys(db, declared, day.clean, manifest)
        else:  # each loaded record is a row
            sql = "select count(*) from {events} where load_date = :date".format_map(Words(declared))
            kept = int(db.run(sql, date=marker.date).fetchone()[0])
        counts["duplicate"] = manifest.rows - kept
    for name in CLASSES_OF_ROWS:
        counts[name] -= min(counts[name], sum(counts.values()) - marker.extracted)
    return counts


def _count_keys(db: Connection, declared: Declared, clean: DayFolder, clean_manifest: CleanManifest) -> int:
    """Count the distinct keys of a snapshot: each is one loaded record."""
    keys = Table("_keys", declared.key, tuple(declared.key))
    db.create(keys, temporary=True)
    for part in clean_manifest.parts:
        table = open_rows(clean.read(part)).read(columns=list(declared.key))
        rows = zip(*(table.column(name).to_pylist() for name in declared.key), strict=True)
        db.insert(keys.name, keys.columns, rows, skip_known=True)
    number = db.run("select count(*) from _keys").fetchone()[0]
    db.run("drop table _keys")
    return int(number)
