"""Compare the files of a dataset's days with each other and with the warehouse.

Responsibilities: which days are compared, and what with what: the files of a day (transformed again), its marker, its
rows. The tables as a whole are compared in load/audit.py.
Non-goals: repairs. Files are only read, and the database is opened read-only.
"""

import datetime as dt
import re
import tempfile
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from wholeday import clock
from wholeday.commands.arguments import START, STOP
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_workspaces
from wholeday.days import check_span
from wholeday.errors import FolderError, InterruptedTransactionError, PipelineError, WarehouseError
from wholeday.guides import WRONG_CLOCK
from wholeday.load import day as load_stage
from wholeday.load.audit import Audit, Finding, compare
from wholeday.load.clean_day import CleanDay
from wholeday.load.database import Connection, connect_existing
from wholeday.load.warehouse import open_warehouse
from wholeday.log import count
from wholeday.schema.marker import Marker
from wholeday.storage.day_folder import MANIFEST, STAGES, DayFolder, Stage, list_all_days
from wholeday.storage.known_source import join_accepted
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import CleanManifest, Part, RawManifest
from wholeday.storage.names import strip_run
from wholeday.storage.parents import read_runs
from wholeday.storage.parquet import open_rows
from wholeday.storage.workspace import Workspace
from wholeday.tasks.workflow import spell_command
from wholeday.transform import parts

Manifest = TypeVar("Manifest", RawManifest, CleanManifest)
# The values of a marker that a load copies from the manifests.
COPIED = (
    *("mode", "source", "window_start", "window_stop", "started_at", "extracted_at", "as_of"),
    *("pages", "extracted", "raw_sha256", "clean_sha256", "accepted"),
)


def verify(workspace: Workspace, start: dt.date = dt.date.min, stop: dt.date = dt.date.max) -> Iterator[Finding]:
    """Yield the differences of the days from `start` to the day before `stop`, then the differences of the tables.

    The warehouse is read as of one moment. A day that is loaded meanwhile is a remark. A day without a marker is not
    loaded; if it has rows, they are compared with its files.
    """
    check_span(start, stop)
    database, is_open = open_warehouse(workspace).database, False
    try:
        with connect_existing(database) as db:
            is_open = True
            yield from _compare(workspace, db, start, stop)
    except WarehouseError as error:
        if not is_open or isinstance(error, InterruptedTransactionError):
            raise
        yield Finding(None, workspace.name, str(error))  # a table cannot be read


def _compare(workspace: Workspace, db: Connection | None, start: dt.date, stop: dt.date) -> Iterator[Finding]:
    audit, readable = None, True
    try:
        audit = Audit.open(db, workspace.dataset.declared) if db else None
    except WarehouseError as error:
        readable = False
        yield Finding(None, workspace.name, str(error))
    comparison = _Comparison(workspace, audit)
    markers = audit.markers if audit else {}
    yield from audit.check_tables() if audit else ()
    folders = set(list_all_days(workspace.pipeline.data_dir, workspace.name))
    days = audit.days if audit else set()
    for date in sorted(date for date in folders | markers.keys() | days if start <= date < stop):
        marker = markers.get(date)
        found = comparison.verify_day(date, marker)
        if marker is None and date not in folders:
            what = "neither a marker in loads nor files: restore the row from a copy, or run rebuild --drop-missing"
            found.append(Finding(date, f"_{workspace.name}_days", f"the day has {what}"))
        elif marker is None and readable and "loads" not in (audit.missing if audit else ()):
            found.append(Finding(date, "loads", "the day is not loaded", remark=True))
        if audit and not all(finding.remark for finding in found) and _is_changed(workspace, date, marker):
            found = [Finding(date, "loads", "the day was loaded meanwhile: run verify again", remark=True)]
        yield from found
    if audit:
        yield from audit.check_days()
        yield from audit.check_changes()
        yield from audit.check_present()
        yield from audit.check_children()
        yield from audit.check_history()


def _is_changed(workspace: Workspace, date: dt.date, marker: Marker | None) -> bool:
    """Tell whether a day was loaded since the warehouse was read."""
    with suppress(WarehouseError):  # a marker that could not be read before
        return open_warehouse(workspace).read_marker(date) != marker
    return False


@dataclass(frozen=True)
class _Comparison:
    """A comparison of a dataset's days with its tables, if there are any."""

    workspace: Workspace
    audit: Audit | None

    def verify_day(self, date: dt.date, marker: Marker | None) -> list[Finding]:
        """Verify a day. If something differs, verify it again while no other process can work on its files."""
        found = self._list_findings(date, marker)
        if all(finding.remark for finding in found):
            return found
        raw, clean = (self.workspace.folder(stage, date) for stage in STAGES)
        with raw.watch() as raw_is_free, clean.watch() as clean_is_free:
            if raw_is_free and clean_is_free:
                return self._list_findings(date, marker)
        busy = "another process is working on the day: run verify again"
        return [Finding(date, "clean" if raw_is_free else "raw", busy, remark=True)]

    def _list_findings(self, date: dt.date, marker: Marker | None) -> list[Finding]:
        try:
            return list(self._compare_day(date, marker))
        except FolderError as error:  # another process may remove files meanwhile
            return [Finding(date, self.workspace.name, str(error))]

    def _compare_day(self, date: dt.date, marker: Marker | None) -> Iterator[Finding]:
        """Compare the files of a day, its marker and its rows."""
        raw, clean = yield from verify_files(self.workspace, date, marker)
        if self.audit and marker:
            yield from self.audit.check_marker(marker)
            yield from _check_clock(marker)
            if clean and clean.sha256 == marker.clean_sha256 and date not in self.audit.faults:
                yield from self._compare_loaded_rows(self.audit, marker, raw, clean)
        elif self.audit and raw and clean and clean.raw_sha256 == raw.hashes:
            day = load_stage.read_clean(self.workspace, date)
            # If they differ, the day was extracted again and is not loaded yet.
            if self.audit.is_loaded_from(day.draft):
                yield from self._compare_rows(self.audit, None, day)

    def _compare_loaded_rows(
        self, audit: Audit, marker: Marker, raw: RawManifest | None, clean: CleanManifest
    ) -> Iterator[Finding]:
        """Compare the tables with the clean files that the day was loaded from."""
        folder = self.workspace.folder("clean", marker.date)
        # If the raw files are not the loaded ones, only the marker knows the number of erased lines.
        erased = raw.forgotten if raw and raw.sha256 == marker.raw_sha256 else marker.forgotten
        left = clean.rows + clean.rejected
        draft = marker.replace(extracted=left + erased, rejected=clean.rejected, forgotten=erased)
        rows = load_stage.read_rows(folder, clean.parts)
        rejects = load_stage.read_rejects(self.workspace, folder, clean.rejects)
        yield from self._compare_rows(audit, marker, CleanDay(draft, rows, rejects))

    def _compare_rows(self, audit: Audit, marker: Marker | None, day: CleanDay) -> Iterator[Finding]:
        """Compare the tables with a day as it would be loaded."""
        try:
            yield from audit.check_rows(marker, day)
        except PipelineError as error:
            yield Finding(day.draft.date, self.workspace.name, str(error))


def _check_clock(marker: Marker) -> Iterator[Finding]:
    """Yield the times of a marker that lie in the future."""
    for name in ("started_at", "extracted_at", "as_of"):
        time = getattr(marker, name)
        if time and clock.is_future(time):
            what = f"{name} is {time:%Y-%m-%dT%H:%M:%SZ}, in the future: {WRONG_CLOCK}"
            yield Finding(marker.date, "loads", what)


def verify_files(
    workspace: Workspace, date: dt.date, marker: Marker | None
) -> Generator[Finding, None, tuple[RawManifest | None, CleanManifest | None]]:
    """Compare the folders of a day with their manifests, each other and the marker. Return the sound manifests."""
    raw_folder, clean_folder = (workspace.folder(stage, date) for stage in STAGES)
    pruned = bool(marker and marker.pruned_at)
    required = bool(marker) and not pruned
    raw, raw_findings = _read_folder(raw_folder, "raw", RawManifest, required)
    clean, clean_findings = _read_folder(clean_folder, "clean", CleanManifest, required and bool(raw))
    yield from [*raw_findings, *clean_findings]
    expected: dict[str, Any] = {"clean_sha256": clean.sha256} if clean else {}
    if raw and clean and clean.raw_sha256 != raw.hashes:
        yield Finding(date, "clean", "does not belong to the raw files: reprocess the day")
        expected = {"raw_sha256": raw.sha256}
    elif raw and clean:
        left = {"records": raw.records - raw.forgotten}
        yield from compare(date, "clean", {"records": clean.rows + clean.rejected}, left)
        if clean.transform_version == workspace.version and not [*raw_findings, *clean_findings]:
            yield from _compare_transform(workspace, raw_folder, raw, clean_folder, clean)
        draft = load_stage.read_clean(workspace, date).draft
        expected = {name: getattr(draft, name) for name in COPIED}
    if marker:
        yield from _compare_marker(workspace, marker, expected, raw, clean)
    return None if raw_findings else raw, None if clean_findings else clean


def _compare_marker(
    workspace: Workspace, marker: Marker, expected: dict[str, Any], raw: RawManifest | None, clean: CleanManifest | None
) -> Iterator[Finding]:
    date = marker.date
    behind = _list_erased_hashes(marker, raw, clean)
    if behind:
        expected = {name: value for name, value in expected.items() if name not in behind}
        again = spell_command(workspace.name, "forget")
        yield Finding(date, "loads", f"forget erased lines of the files, but not of the tables yet: run {again}")
    if "accepted" in expected and marker.accepted:  # a load may accept another source
        expected = expected | {"accepted": join_accepted(expected["accepted"], marker.accepted)}
    # The audit reports a null. In `source` a null may be right.
    stored = {
        name: value for name, value in msgspec.structs.asdict(marker).items() if value is not None or name == "source"
    }
    yield from compare(date, "loads", stored, {name: value for name, value in expected.items() if name in stored})
    if marker.transform_version != workspace.version:
        next_step = "its raw files are pruned" if marker.pruned_at and not raw else "reprocess it"
        yield Finding(date, "loads", f"the day was transformed by another version: {next_step}", remark=True)


def _list_erased_hashes(marker: Marker, raw: RawManifest | None, clean: CleanManifest | None) -> set[str]:
    """Return the hashes in the marker that are older than an erasure: `forget` is running, or was interrupted."""
    manifests = {"raw_sha256": raw, "clean_sha256": clean}
    return {
        name
        for name, manifest in manifests.items()
        if manifest
        and getattr(marker, name) != manifest.sha256
        and getattr(marker, name) in {erasure.sha256 for erasure in manifest.erasures}
    }


def _read_folder(
    folder: DayFolder, stage: Stage, kind: type[Manifest], required: bool
) -> tuple[Manifest | None, list[Finding]]:
    """Read the manifest of a folder, if possible, and check its files. They are `required` for a loaded day."""
    files = folder.list_parts()
    if not folder.exists():
        if files:
            what = f"{folder} has files, but no {MANIFEST}: the day is incomplete"
            return None, [Finding(folder.date, stage, what, remark=not required)]
        next_step = "restore them from a copy" if stage == "raw" else "reprocess the day"
        return None, [Finding(folder.date, stage, f"the files are missing: {next_step}")] if required else []
    try:
        manifest = folder.read_manifest(kind)
    except FolderError as error:
        return None, [Finding(folder.date, stage, str(error))]
    groups = {"records": manifest.parts}  # by the field that counts the records of the parts
    if isinstance(manifest, CleanManifest):
        groups = {"rows": manifest.parts, "rejected": manifest.rejects}
    named = {part.name: part for group in groups.values() for part in group}
    lists = [manifest.parents] if isinstance(manifest, RawManifest) and manifest.parents else []
    named |= {part.name: part for part in lists}
    faults = [f"{name}: not in the manifest" for name in sorted(files - named.keys())]
    faults += [fault for part in named.values() if (fault := _check_part(folder, part))]
    faults += [f"date is {manifest.date}, should be {folder.date}"] if manifest.date != folder.date else []
    for name, group in groups.items():
        stored, total = getattr(manifest, name), sum(part.records for part in group)
        total += manifest.forgotten if isinstance(manifest, RawManifest) else 0
        faults += [f"{name} is {stored}, the parts have {total}"] if stored != total else []
    if isinstance(manifest, RawManifest) and lists and not faults:
        faults += _check_parents(folder, manifest)
    return manifest, [Finding(folder.date, stage, fault) for fault in faults]


def _check_parents(folder: DayFolder, manifest: RawManifest) -> list[str]:
    """Return how the list of parents differs from the parts."""
    try:
        read_runs(folder, manifest)
    except FolderError as error:
        return [str(error)]
    return []


def _check_part(folder: DayFolder, part: Part) -> str | None:
    """Return how a part differs from the manifest; None if it does not."""
    try:
        data = folder.read(part)
    except FolderError as error:
        return str(error)
    records = open_rows(data).metadata.num_rows if part.name.endswith(".parquet") else len(unpack(data))
    return None if records == part.records else f"{part.name}: {records} records, the manifest says {part.records}"


def _compare_transform(
    workspace: Workspace, raw_folder: DayFolder, raw: RawManifest, clean_folder: DayFolder, clean: CleanManifest
) -> Iterator[Finding]:
    """Transform the raw files again into a temporary folder, and compare the parts."""
    with tempfile.TemporaryDirectory() as scratch:
        again = DayFolder(scratch, "clean", workspace.name, raw.date)
        again.clear()
        try:
            results = parts.transform_parts(workspace, raw_folder, raw, again)
        except PipelineError as error:
            yield Finding(raw.date, "clean", f"cannot transform the raw files again: {error}")
            return
        made = {part.name: part for result in results for part in (result.clean, result.rejects) if part}
        # A part with erased lines has a new name that ends in -r1, -r2, …
        kept = {re.sub(r"-r\d+\.", ".", strip_run(part.name)): part for part in (*clean.parts, *clean.rejects)}
        for name in sorted(made.keys() | kept.keys()):
            new, old = made.get(name), kept.get(name)
            if not old:
                yield Finding(raw.date, "clean", f"{name} is missing from the manifest: the raw files yield it")
            elif not new:
                yield Finding(raw.date, "clean", f"{name} is in the manifest: the raw files do not yield it")
            elif new.sha256 != old.sha256:
                same = _hold_same(name, again.read(new), clean_folder.read(old))
                what = "other bytes, but the same rows as" if same else "other rows than"
                yield Finding(raw.date, "clean", f"{old.name} has {what} a new transform of the raw files", remark=same)


def _hold_same(name: str, one: bytes, other: bytes) -> bool:
    """Tell whether two clean parts hold the same rows. Another version of a library may write other bytes."""
    if not name.endswith(".parquet"):
        return unpack(one) == unpack(other)
    new, old = (open_rows(data).read() for data in (one, other))
    # Arrow has two types of text: pandas chooses one, and a column without values has the other.
    return new.schema.names == old.schema.names and bool(new.cast(old.schema).equals(old))


def command(
    context: typer.Context, start: Annotated[dt.date | None, START] = None, stop: Annotated[dt.date | None, STOP] = None
) -> bool:
    """Print each difference between the files of a dataset and its tables. Returns whether there is none."""
    console, sound = open_console(), True
    with open_workspaces(context) as workspaces:
        for workspace in workspaces:
            number = 0
            for date, thing, what, remark in verify(workspace, start or dt.date.min, stop or dt.date.max):
                number += not remark
                day = f" {date}" if date else ""
                style = "yellow" if remark else "red"
                console.print(f"{workspace.name}{day} {thing}: {what}", style=style)
            console.print(f"{workspace.name}: {count(number, 'difference') if number else 'nothing differs'}")
            sound &= not number
    return sound
