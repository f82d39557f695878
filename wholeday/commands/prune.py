"""Delete the files of old days, raw and clean. Their rows and markers stay.

Responsibilities: which days are pruned: old ones, except the newest days, which the quality gates compare new days
with. A day is pruned only if the warehouse holds it, that is, if its marker names exactly these files.
Non-goals: lost days. First the marker says that the day is pruned (`pruned_at`), then the clean files go, then the
raw ones, each manifest first. So a day without raw files is either pruned or lost, never in doubt, and the next run
completes an interrupted one.
"""

import datetime as dt
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.filesize import decimal

from wholeday import clock
from wholeday.commands.screen import Outcome, group_days, open_console
from wholeday.commands.session import open_workspaces
from wholeday.days import name_days
from wholeday.errors import FolderError
from wholeday.load.warehouse import open_warehouse
from wholeday.log import count
from wholeday.schema.marker import Marker
from wholeday.storage.day_folder import list_all_days
from wholeday.storage.manifest import CleanManifest, RawManifest
from wholeday.storage.workspace import Workspace

OLDER_THAN = "Prune days that lie so many days or more before the last closed day."
KEEP = "Always keep the N newest days that have files: the gates compare a new day with them."


def prune(workspace: Workspace, older_than: int, keep: int, dry_run: bool) -> Iterator[Outcome]:
    """Delete the files of the days that lie `older_than` or more days before the last closed one, oldest first.

    The files of a day are `pruned`, `kept`, or could not be deleted (`failed`). Always keep the newest `keep` days that
    have files. With `dry_run` nothing is changed.
    """
    last = workspace.settings.last_closed_day(clock.utc_now())
    days = list_all_days(workspace.pipeline.data_dir, workspace.name)
    for date in days[: max(0, len(days) - keep)]:
        if (last - date).days >= older_than:
            try:
                yield _check_day(workspace, date)[1] if dry_run else _prune_day(workspace, date)
            except FolderError as error:
                yield Outcome(date, "failed", str(error))


def _prune_day(workspace: Workspace, date: dt.date) -> Outcome:
    raw, clean = workspace.folder("raw", date), workspace.folder("clean", date)
    with raw.lock(), clean.lock():
        marker, outcome = _check_day(workspace, date)
        if not marker or outcome.what != "pruned":
            return outcome
        if not open_warehouse(workspace).mark_pruned(marker):
            return Outcome(date, "kept", "loaded again meanwhile")
        clean.remove()
        raw.remove()
        return outcome


def _check_day(workspace: Workspace, date: dt.date) -> tuple[Marker | None, Outcome]:
    """Return the marker of a day, and whether its files may be deleted. Raises FolderError."""
    raw, clean = workspace.folder("raw", date), workspace.folder("clean", date)
    marker, size = open_warehouse(workspace).read_marker(date), 0
    if not marker:
        return None, Outcome(date, "kept", "not loaded")
    files: dict[str, Any] = {}
    if raw.exists():
        raw_manifest = raw.read_manifest(RawManifest)
        files |= {"raw_sha256": raw_manifest.sha256, "as_of": raw_manifest.as_of}
        size += sum(part.bytes for part in raw_manifest.files)
    if clean.exists():
        clean_manifest = clean.read_manifest(CleanManifest)
        files |= {"clean_sha256": clean_manifest.sha256}
        size += sum(part.bytes for part in (*clean_manifest.parts, *clean_manifest.rejects))
    if not marker.has(**files):
        return marker, Outcome(date, "kept", "loaded from other files")
    if not marker.pruned_at and any(folder.has_folder() and not folder.exists() for folder in (raw, clean)):
        return marker, Outcome(date, "kept", "its files are incomplete")
    return marker, Outcome(date, "pruned", bytes=size)


def command(
    context: typer.Context,
    older_than: Annotated[int, typer.Option(min=0, metavar="DAYS", help=OLDER_THAN)],
    keep: Annotated[int, typer.Option(min=0, metavar="N", help=KEEP)] = 7,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; otherwise only show what would be deleted.")] = False,
) -> bool:
    """Print which days are pruned, or would be, and which are kept. Return whether none failed."""
    console, sound = open_console(), True
    with open_workspaces(context) as workspaces:
        for workspace in workspaces:
            outcomes = list(prune(workspace, older_than, keep, dry_run=not yes))
            groups = group_days(outcomes)
            pruned = groups.pop(("pruned", ""), [])
            for (what, why), days in groups.items():
                line = f"{workspace.name} {name_days(days)}: {what}, {why}"
                if what == "failed":
                    sys.stderr.write(f"ERROR: {line}\n")
                else:
                    console.print(line, style="yellow")
            sound &= all(outcome.what != "failed" for outcome in outcomes)
            if not pruned:
                console.print(f"{workspace.name}: no day is to be pruned")
                continue
            size = decimal(sum(outcome.bytes for outcome in outcomes))
            done = "pruned" if yes else "would be pruned; nothing is touched without --yes"
            days_and_size = f"{count(len(pruned), 'day')}, {size}"
            console.print(f"{workspace.name} {name_days(pruned)}: {days_and_size}, {done}")
    return sound
