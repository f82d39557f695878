"""What differs within the files of a dataset's days, and between them and the warehouse.

Owns which days are looked at, and what is held against what: hashes and counts against the files, clean files against
what the same code makes of the raw ones, markers against manifests; the tables are the business of audit.py. Refuses
to mend: files are read, and the database is opened so that nothing done to it stays.
"""

import datetime as dt
import re
import tempfile
from collections.abc import Generator, Iterator
from contextlib import nullcontext, suppress
from dataclasses import fields
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from wholeday import clock
from wholeday.commands.arguments import parse_day
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_datasets
from wholeday.errors import BrokenOffError, FolderError, PipelineError, WarehouseError
from wholeday.load import day as load_stage
from wholeday.load.audit import Audit, Finding, compare
from wholeday.load.clean_day import CleanDay, DayMetadata
from wholeday.load.database import Connection
from wholeday.load.warehouse import open_warehouse
from wholeday.log import count
from wholeday.schema.marker import Marker
from wholeday.storage.day_folder import MANIFEST, STAGES, DayFolder, Stage, list_all_days
from wholeday.storage.known_source import join_accepted
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import CleanManifest, Part, RawManifest
from wholeday.storage.names import strip_run
from wholeday.storage.parquet import open_rows
from wholeday.storage.workspace import Workspace
from wholeday.tasks.days import check_span
from wholeday.tasks.workflow import spell_command
from wholeday.transform import parts

Manifest = TypeVar("Manifest", RawManifest, CleanManifest)


def verify(workspace: Workspace, start: dt.date = dt.date.min, stop: dt.date = dt.date.max) -> Iterator[Finding]:
    """Compare the days from `start` to the one before `stop` of which there is any trace, and then the present.

    What is read of the warehouse is of one moment. A day that is loaded meanwhile is a remark. A day without a marker
    is not loaded: its rows, if it has any, are held against its files all the same.
    """
    check_span(start, stop)
    database, is_open = open_warehouse(workspace).database, False
    try:
        with database.connect(readonly=True) if database.exists() else nullcontext() as db:
            is_open = True
            yield from _compare(workspace, db, start, stop)
    except WarehouseError as error:
        if not is_open or isinstance(error, BrokenOffError):
            raise
        yield Finding(None, workspace.name, str(error))  # what a table holds cannot be read


def _compare(workspace: Workspace, db: Connection | None, start: dt.date, stop: dt.date) -> Iterator[Finding]:
    audit, readable = None, True
    try:
        audit = Audit.open(db, workspace.name, workspace.dataset.table) if db else None
    except WarehouseError as error:
        readable = False
        yield Finding(None, workspace.name, str(error))
    markers = audit.markers if audit else {}
    yield from audit.check_tables() if audit else ()
    folders = set(list_all_days(workspace.pipeline.data_dir, workspace.name))
    days = audit.days if audit else set()
    for date in sorted(date for date in folders | markers.keys() | days if start <= date < stop):
        marker = markers.get(date)
        found = _look_at(workspace, date, marker, audit)
        if marker is None and date not in folders:
            what = "neither a marker in loads nor files: bring the row back from a copy, or rebuild --drop-missing"
            found.append(Finding(date, f"_{workspace.name}_days", f"the day has {what}"))
        elif marker is None and readable and "loads" not in (audit.missing if audit else ()):
            found.append(Finding(date, "loads", "the day is not loaded", remark=True))
        if audit and not all(finding.remark for finding in found) and _is_changed(workspace, date, marker):
            found = [Finding(date, "loads", "the day was loaded during this: run verify again", remark=True)]
        yield from found
    if audit:
        yield from audit.check_days()
        yield from audit.check_changes()
        yield from audit.check_present()
        yield from audit.check_history()


def _look_at(workspace: Workspace, date: dt.date, marker: Marker | None, audit: Audit | None) -> list[Finding]:
    """Verify a day. If something differs, verify it again while no other process can work on its files."""
    found = _list_findings(workspace, date, marker, audit)
    if all(finding.remark for finding in found):
        return found
    raw, clean = (workspace.folder(stage, date) for stage in STAGES)
    with raw.watch() as raw_is_free, clean.watch() as clean_is_free:
        if raw_is_free and clean_is_free:
            return _list_findings(workspace, date, marker, audit)
    busy = "another process is working on the day: run verify again"
    return [Finding(date, "clean" if raw_is_free else "raw", busy, remark=True)]


def _list_findings(workspace: Workspace, date: dt.date, marker: Marker | None, audit: Audit | None) -> list[Finding]:
    try:
        return list(_verify_day(workspace, date, marker, audit))
    except FolderError as error:  # files may vanish while they are read
        return [Finding(date, workspace.name, str(error))]


def _verify_day(workspace: Workspace, date: dt.date, marker: Marker | None, audit: Audit | None) -> Iterator[Finding]:
    """Hold the files of a day, its marker and its rows against each other."""
    raw, clean = yield from _verify_files(workspace, date, marker)
    if audit and marker:
        yield from audit.check_marker(marker)
        yield from _check_clock(marker)
        if clean and clean.sha256 == marker.clean_sha256 and date not in audit.faults:
            yield from _verify_rows(workspace, audit, marker, raw, clean)
    elif audit and raw and clean and clean.raw_sha256 == [part.sha256 for part in raw.parts]:
        day = load_stage.read_clean(workspace, date)
        if audit.is_loaded_from(day.metadata):  # else it was read again, and is not loaded yet
            yield from _compare_rows(workspace, audit, None, day)


def _is_changed(workspace: Workspace, date: dt.date, marker: Marker | None) -> bool:
    """Whether the marker of a day is another by now: what is read of the warehouse is of an earlier moment."""
    with suppress(WarehouseError):  # it cannot be read, then as now
        return open_warehouse(workspace).read_marker(date) != marker
    return False


def _verify_files(
    workspace: Workspace, date: dt.date, marker: Marker | None
) -> Generator[Finding, None, tuple[RawManifest | None, CleanManifest | None]]:
    """Hold the folders of a day against their manifests, each other and the marker; returns the sound manifests."""
    raw_folder, clean_folder = (workspace.folder(stage, date) for stage in STAGES)
    pruned = bool(marker and marker.pruned_at)
    owed = bool(marker) and not pruned
    raw, raw_findings = _read_folder(raw_folder, "raw", RawManifest, owed)
    clean, clean_findings = _read_folder(clean_folder, "clean", CleanManifest, owed and bool(raw))
    yield from [*raw_findings, *clean_findings]
    should: dict[str, Any] = {"clean_sha256": clean.sha256} if clean else {}
    if raw and clean and clean.raw_sha256 != [part.sha256 for part in raw.parts]:
        yield Finding(date, "clean", "is not made of the raw files that are there: reprocess makes it again")
        should = {"raw_sha256": raw.sha256}
    elif raw and clean:
        here = {"records": raw.records - raw.forgotten}
        yield from compare(date, "clean", {"records": clean.rows + clean.rejected}, here)
        if clean.transform_version == workspace.version and not [*raw_findings, *clean_findings]:
            yield from _make_again(workspace, raw_folder, raw, clean_folder, clean)
        # The marker's `rejected` leaves out those of forgotten keys that are in the files; its `forgotten` has them.
        day = load_stage.read_clean(workspace, date).metadata
        others = ("transform_version", "rejected", "forgotten")
        should = {name: value for name, value in vars(day).items() if name not in others}
    if marker:
        behind = _find_behind(marker, raw, clean)
        if behind:
            should = {name: value for name, value in should.items() if name not in behind}
            what = "forget has erased lines of its files, and not yet of the tables: run it again: "
            yield Finding(date, "loads", what + spell_command(workspace.name, "forget"))
        if "accepted" in should and marker.accepted:  # a load may let another source through, too
            should["accepted"] = join_accepted(should["accepted"], marker.accepted)
        # A null is named by audit.py, but in `source`, where it may be right.
        said = {
            name: value
            for name, value in msgspec.structs.asdict(marker).items()
            if value is not None or name == "source"
        }
        yield from compare(date, "loads", said, {name: value for name, value in should.items() if name in said})
        if marker.transform_version != workspace.version:
            again = "its raw files are pruned" if pruned and not raw else "reprocess makes it again"
            yield Finding(date, "loads", f"the day was made by other code: {again}", remark=True)
    return None if raw_findings else raw, None if clean_findings else clean


def _find_behind(marker: Marker, raw: RawManifest | None, clean: CleanManifest | None) -> set[str]:
    """Return the digests of the marker that are those before an erasure: `forget` is at work, or was interrupted."""
    manifests = {"raw_sha256": raw, "clean_sha256": clean}
    return {
        name
        for name, manifest in manifests.items()
        if manifest
        and getattr(marker, name) != manifest.sha256
        and getattr(marker, name) in {erasure.sha256 for erasure in manifest.erasures}
    }


def _check_clock(marker: Marker) -> Iterator[Finding]:
    """Name the times of a marker that lie in the future."""
    for name in ("started_at", "extracted_at", "as_of"):
        time = getattr(marker, name)
        if time and clock.is_future(time):
            what = f"{name} is {time:%Y-%m-%dT%H:%M:%SZ}, in the future: docs/operating.md, A wrong clock"
            yield Finding(marker.date, "loads", what)


def _verify_rows(
    workspace: Workspace, audit: Audit, marker: Marker, raw: RawManifest | None, clean: CleanManifest
) -> Iterator[Finding]:
    """Hold the tables against the clean files that the day was loaded from."""
    folder = workspace.folder("clean", marker.date)
    said = {field.name: getattr(marker, field.name) for field in fields(DayMetadata) if hasattr(marker, field.name)}
    # Of other raw files than those that were loaded only the marker can tell how many lines had been erased.
    erased = raw.forgotten if raw and raw.sha256 == marker.raw_sha256 else marker.forgotten
    left = clean.rows + clean.rejected
    day = DayMetadata(**said | {"extracted": left + erased, "rejected": clean.rejected, "forgotten": erased})
    rows, rejects = load_stage.read_rows(folder, clean.parts), load_stage.read_rejects(workspace, folder, clean.rejects)
    yield from _compare_rows(workspace, audit, marker, CleanDay(day, rows, rejects))


def _compare_rows(workspace: Workspace, audit: Audit, marker: Marker | None, day: CleanDay) -> Iterator[Finding]:
    """Hold the tables against a day as it would be loaded."""
    try:
        yield from audit.check_rows(marker, day)
    except PipelineError as error:
        yield Finding(day.metadata.date, workspace.name, str(error))


def _read_folder(
    folder: DayFolder, stage: Stage, kind: type[Manifest], owed: bool
) -> tuple[Manifest | None, list[Finding]]:
    """The manifest of a folder, where it can be read, and what is wrong with its files.

    They are `owed` where the day is loaded and was not pruned.
    """
    files = folder.list_parts()
    if not folder.exists():
        if files:
            what = f"{folder} has files, but no {MANIFEST}: the day is not finished"
            return None, [Finding(folder.date, stage, what, remark=not owed)]
        lost = "bring them back from a copy" if stage == "raw" else "reprocess makes them again"
        return None, [Finding(folder.date, stage, f"the files are gone: {lost}")] if owed else []
    try:
        manifest = folder.read_manifest(kind)
    except FolderError as error:
        return None, [Finding(folder.date, stage, str(error))]
    groups = _group_parts(manifest)
    parts = {part.name: part for group in groups.values() for part in group}
    faults = [f"{name}: the manifest does not name it" for name in sorted(files - parts.keys())]
    faults += [fault for part in parts.values() if (fault := _check_part(folder, part))]
    faults += [f"date is {manifest.date}, should be {folder.date}"] if manifest.date != folder.date else []
    for name, group in groups.items():
        said, total = getattr(manifest, name), sum(part.records for part in group)
        total += manifest.forgotten if isinstance(manifest, RawManifest) else 0
        faults += [f"{name} is {said}, the parts have {total}"] if said != total else []
    return manifest, [Finding(folder.date, stage, fault) for fault in faults]


def _group_parts(manifest: RawManifest | CleanManifest) -> dict[str, list[Part]]:
    """The parts by the field of the manifest that counts them."""
    if isinstance(manifest, RawManifest):
        return {"records": manifest.parts}
    return {"rows": manifest.parts, "rejected": manifest.rejects}


def _check_part(folder: DayFolder, part: Part) -> str | None:
    """What is wrong with a part; None where it is as the manifest says."""
    try:
        data = folder.read(part)
    except FolderError as error:
        return str(error)
    records = _count_records(part.name, data)
    return None if records == part.records else f"{part.name}: {records} records, the manifest says {part.records}"


def _count_records(name: str, data: bytes) -> int:
    if not name.endswith(".parquet"):
        return len(unpack(data))
    return int(open_rows(data).metadata.num_rows)


def _make_again(
    workspace: Workspace, raw_folder: DayFolder, raw: RawManifest, clean_folder: DayFolder, clean: CleanManifest
) -> Iterator[Finding]:
    """Make the clean files once more, in a folder that is thrown away, and compare their hashes."""
    with tempfile.TemporaryDirectory() as scratch:
        again = DayFolder(scratch, "clean", workspace.name, raw.date, workspace.pipeline.is_private)
        again.sweep()
        try:
            results = parts.transform_parts(workspace, raw_folder, raw.parts, again)
        except PipelineError as error:
            yield Finding(raw.date, "clean", f"the raw files cannot be cleaned again: {error}")
            return
        made = {part.name: part for result in results for part in (result.clean, result.rejects) if part}
        # A part from which lines were taken out has a new name, which ends in -r1, -r2, …
        kept = {re.sub(r"-r\d+\.", ".", strip_run(part.name)): part for part in (*clean.parts, *clean.rejects)}
        for name in sorted(made.keys() | kept.keys()):
            new, old = made.get(name), kept.get(name)
            if not new or not old:
                yield Finding(raw.date, "clean", f"{name} is kept or made of the raw files, but not both")
            elif new.sha256 != old.sha256:
                same = _hold_same(name, again.read(new), clean_folder.read(old))
                what = "has other bytes, though the same rows," if same else "has other rows"
                what = f"{old.name} {what} than the same code makes of the raw files"
                yield Finding(raw.date, "clean", what, remark=same)


def _hold_same(name: str, one: bytes, other: bytes) -> bool:
    """Whether two clean parts hold the same; another version of a library may write that in other bytes."""
    if not name.endswith(".parquet"):
        return unpack(one) == unpack(other)
    return bool(open_rows(one).read().equals(open_rows(other).read()))


def command(
    context: typer.Context,
    start: Annotated[dt.date | None, typer.Argument(parser=parse_day, metavar="START", help="The first day.")] = None,
    stop: Annotated[
        dt.date | None, typer.Argument(parser=parse_day, metavar="STOP", help="The day after the last one.")
    ] = None,
) -> bool:
    """Print each difference between the files of a dataset and its tables. Returns whether there is none."""
    console, sound = open_console(), True
    with open_datasets(context) as loads:
        for workspace in (load.workspace() for load in loads):
            number = 0
            for date, thing, what, remark in verify(workspace, start or dt.date.min, stop or dt.date.max):
                number += not remark
                day = f" {date}" if date else ""
                style = "yellow" if remark else "red"
                console.print(f"{workspace.name}{day} {thing}: {what}", style=style, soft_wrap=True)
            console.print(f"{workspace.name}: {count(number, 'difference') if number else 'nothing differs'}")
            sound &= not number
    return sound
