"""Erase rows, changes and rejects from the warehouse, and bring the markers of the days up to date.

*Responsibilities*: one transaction over all tables of a dataset, then a rewrite of the files of the database: deleted
rows leave their bytes there.
*Non-goals*: the table of tombstones, which keeps the keys.
"""

import datetime as dt
from collections.abc import Container
from itertools import islice
from typing import Any

import msgspec

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
from wholeday.storage.manifest import CleanManifest, RawManifest
from wholeday.storage.parquet import open_rows
from wholeday.storage.tombstones import Finder
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
        return deleted, db.erase([*(table.name for table in declared.stored()), REJECTS.name])


def _delete_rows(db: Connection, declared: Declared, finder: Finder) -> int:
    deleted = 0
    same_key = " and ".join(f'"{column}" = :key_{number}' for number, column in enumerate(declared.key))
    for key in finder.keys:
        values = {f"key_{number}": value for number, value in enumerate(key)}
        for table in ("present", "events", "changes"):
            number = db.run(f"delete from {Words(declared)[table]} where {same_key}", **values).rowcount  # noqa: S608
            finder.found.update([key] * bool(number))
            deleted += number
    return deleted


def _delete_rejects(db: Connection, name: str, finder: Finder) -> int:
    """Delete the rejects with such a key, and count them as forgotten in the markers of their days."""
    rejects = db.stream("select load_date, part, line, key, record from rejects where dataset = :name", name=name)
    deleted: list[tuple[Any, ...]] = []
    while batch := list(islice(rejects, BATCH)):
        found = finder.find_rejects(decode(db, "key in rejects", reject[3], "text") for reject in batch)
        records = [decode(db, "record in rejects", reject[4], "text") or "{}" for reject in batch]
        found |= {line - 1 for line in finder.find_lines([record.encode() for record in records])}
        deleted += [batch[number][:3] for number in found]
    for date, part, line in deleted:
        place = {"name": name, "date": date, "part": part, "line": line}
        db.run("delete from rejects where (dataset, load_date, part, line) = (:name, :date, :part, :line)", **place)
        move = "update loads set rejected = rejected - 1, forgotten = forgotten + 1"
        db.run(f"{move} where dataset = :name and date = :date", name=name, date=date)
    return len(deleted)


def _update_marker(db: Connection, workspace: Workspace, declared: Declared, marker: Marker) -> None:
    """Update the marker and the rejects of a day to its files, if these are the loaded files less erased lines."""
    date, raw, clean = (
        marker.date,
        workspace.folder("raw", marker.date),
        workspace.folder("clean", marker.date),
    )
    if not raw.exists() or not clean.exists():
        return  # the marker still describes what was loaded
    raw_manifest, clean_manifest = raw.read_manifest(RawManifest), clean.read_manifest(CleanManifest)
    if clean_manifest.raw_sha256 != [part.sha256 for part in raw_manifest.parts]:
        return
    hashes = {"raw_sha256": raw_manifest.sha256, "clean_sha256": clean_manifest.sha256}
    erasures = {"raw_sha256": raw_manifest.erasures, "clean_sha256": clean_manifest.erasures}
    before = {name: {erasure.sha256 for erasure in found} for name, found in erasures.items()}
    if marker.has(**hashes):
        return
    if any(getattr(marker, name) not in {now, *before[name]} for name, now in hashes.items()):
        return
    values = hashes | _count_classes(db, declared, marker, raw_manifest, clean, clean_manifest)
    sets = ", ".join(f"{column} = :{column}" for column in values)
    sql = f"update loads set {sets} where dataset = :name and date = :date"  # noqa: S608
    db.run(sql, **values, name=workspace.name, date=date)
    _replace_rejects(db, workspace.name, date, clean, clean_manifest)


def _count_classes(
    db: Connection,
    declared: Declared,
    marker: Marker,
    raw_manifest: RawManifest,
    clean: DayFolder,
    clean_manifest: CleanManifest,
) -> dict[str, int]:
    """Count the records of a day by class, after an erasure.

    Rejected, forgotten and duplicate records are counted again. The class of an erased row is not stored: take the rows
    from the most frequent class, then from the next.
    """
    counts = {name: marker.counts[name] for name in CLASSES}
    counts |= {"forgotten": raw_manifest.forgotten, "rejected": clean_manifest.rejected}
    if counts["duplicate"]:
        if marker.mode == SNAPSHOT:
            kept = _count_keys(db, declared, clean, clean_manifest)
        else:
            kept = _count_events(db, declared, marker.date)
        counts["duplicate"] = clean_manifest.rows - kept
    for name in CLASSES_OF_ROWS:
        counts[name] -= min(counts[name], sum(counts.values()) - marker.extracted)
    return counts


def _replace_rejects(db: Connection, name: str, date: dt.date, clean: DayFolder, clean_manifest: CleanManifest) -> None:
    """Insert the rejects of a day again: the lines behind an erased one have new numbers."""
    db.run("delete from rejects where dataset = :name and load_date = :date", name=name, date=date)
    for part in clean_manifest.rejects:
        rejects = [msgspec.json.decode(line, type=Reject) for line in unpack(clean.read(part))]
        day = name, db.encode(date)
        db.insert("rejects", REJECTS.columns, [day + list_values(reject) for reject in rejects])


def _count_events(db: Connection, declared: Declared, date: dt.date) -> int:
    """Count the loaded records of an incremental day: one row each."""
    sql = "select count(*) from {events} where load_date = :date"
    return int(db.run(sql.format_map(Words(declared)), date=date).fetchone()[0])


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
