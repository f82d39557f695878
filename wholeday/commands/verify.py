"""Compare the files of a dataset's days with each other and with the warehouse.

*Responsibilities*: which days are compared, and what with what: the files of a day (verify_files.py), its marker, its
rows. The tables as a whole are compared in load/audit.py.
*Non-goals*: repairs. Files are only read, and the database is opened read-only.
"""

import datetime as dt
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields
from typing import Annotated

import typer

from wholeday import clock
from wholeday.commands import verify_files
from wholeday.commands.arguments import parse_day
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_datasets
from wholeday.errors import FolderError, InterruptedTransactionError, PipelineError, WarehouseError
from wholeday.load import day as load_stage
from wholeday.load.audit import Audit, Finding
from wholeday.load.clean_day import CleanDay, DayMetadata
from wholeday.load.database import Connection
from wholeday.load.warehouse import open_warehouse
from wholeday.log import count
from wholeday.schema.marker import Marker
from wholeday.storage.day_folder import STAGES, list_all_days
from wholeday.storage.manifest import CleanManifest, RawManifest
from wholeday.storage.workspace import Workspace
from wholeday.tasks.days import check_span


def verify(workspace: Workspace, start: dt.date = dt.date.min, stop: dt.date = dt.date.max) -> Iterator[Finding]:
    """Yield the differences of the days from `start` to the day before `stop`, then the differences of the tables.

    The warehouse is read as of one moment. A day that is loaded meanwhile is a remark. A day without a marker is not
    loaded; if it has rows, they are compared with its files.
    """
    check_span(start, stop)
    database, is_open = open_warehouse(workspace).database, False
    try:
        with database.connect(readonly=True) if database.exists() else nullcontext() as db:
            is_open = True
            yield from _compare(workspace, db, start, stop)
    except WarehouseError as error:
        if not is_open or isinstance(error, InterruptedTransactionError):
            raise
        yield Finding(None, workspace.name, str(error))  # a table cannot be read


def _compare(workspace: Workspace, db: Connection | None, start: dt.date, stop: dt.date) -> Iterator[Finding]:
    audit, readable = None, True
    try:
        audit = Audit.open(db, workspace.name, workspace.dataset.table) if db else None
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
        raw, clean = yield from verify_files.verify_files(self.workspace, date, marker)
        if self.audit and marker:
            yield from self.audit.check_marker(marker)
            yield from _check_clock(marker)
            if clean and clean.sha256 == marker.clean_sha256 and date not in self.audit.faults:
                yield from self._compare_loaded_rows(self.audit, marker, raw, clean)
        elif self.audit and raw and clean and clean.raw_sha256 == [part.sha256 for part in raw.parts]:
            day = load_stage.read_clean(self.workspace, date)
            # If they differ, the day was extracted again and is not loaded yet.
            if self.audit.is_loaded_from(day.metadata):
                yield from self._compare_rows(self.audit, None, day)

    def _compare_loaded_rows(
        self, audit: Audit, marker: Marker, raw: RawManifest | None, clean: CleanManifest
    ) -> Iterator[Finding]:
        """Compare the tables with the clean files that the day was loaded from."""
        folder = self.workspace.folder("clean", marker.date)
        values = {
            field.name: getattr(marker, field.name) for field in fields(DayMetadata) if hasattr(marker, field.name)
        }
        # If the raw files are not the loaded ones, only the marker knows the number of erased lines.
        erased = raw.forgotten if raw and raw.sha256 == marker.raw_sha256 else marker.forgotten
        left = clean.rows + clean.rejected
        day = DayMetadata(**values | {"extracted": left + erased, "rejected": clean.rejected, "forgotten": erased})
        rows = load_stage.read_rows(folder, clean.parts)
        rejects = load_stage.read_rejects(self.workspace, folder, clean.rejects)
        yield from self._compare_rows(audit, marker, CleanDay(day, rows, rejects))

    def _compare_rows(self, audit: Audit, marker: Marker | None, day: CleanDay) -> Iterator[Finding]:
        """Compare the tables with a day as it would be loaded."""
        try:
            yield from audit.check_rows(marker, day)
        except PipelineError as error:
            yield Finding(day.metadata.date, self.workspace.name, str(error))


def _check_clock(marker: Marker) -> Iterator[Finding]:
    """Yield the times of a marker that lie in the future."""
    for name in ("started_at", "extracted_at", "as_of"):
        time = getattr(marker, name)
        if time and clock.is_future(time):
            what = f"{name} is {time:%Y-%m-%dT%H:%M:%SZ}, in the future: docs/operating.md, A wrong clock"
            yield Finding(marker.date, "loads", what)


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
