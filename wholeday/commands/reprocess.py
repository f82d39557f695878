"""Transform and load days again from their raw files, without a request to the source.

Responsibilities: which days are outdated, and the outcome for each requested day.
Non-goals: days without raw files. They are named, and their Load task extracts them.
"""

import datetime as dt
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated

import typer

from wholeday.commands.arguments import Start, Stop
from wholeday.commands.screen import Outcome, open_console
from wholeday.commands.session import open_workspaces
from wholeday.days import list_span, name_days
from wholeday.errors import FolderError, PipelineError, QualityError
from wholeday.load import day as load_stage
from wholeday.load.warehouse import open_warehouse
from wholeday.schema.marker import Marker
from wholeday.storage.day_folder import STAGES, DayFolder, list_days
from wholeday.storage.known_source import SOURCE_GATE, KnownSource, describe_ways_out
from wholeday.storage.manifest import RawManifest
from wholeday.storage.workspace import Workspace
from wholeday.tasks import stages
from wholeday.transform import day as transform_stage


def list_outdated(
    workspace: Workspace, loads: Iterable[Marker], start: dt.date = dt.date.min, stop: dt.date = dt.date.max
) -> dict[dt.date, str]:
    """List the days with raw files whose rows are not what the current code makes of these files, and why.

    `loads`: the markers of the dataset. Look at the files of the days from `start` to the day before `stop` only.
    Oldest first.
    """
    markers, outdated = {marker.date: marker for marker in loads}, {}
    for date in list_raw(workspace, start, stop):
        raw, clean = (workspace.folder(stage, date) for stage in STAGES)
        if reason := _explain_outdated(raw, clean, markers.get(date), workspace.version):
            outdated[date] = reason
    return outdated


def reprocess(workspace: Workspace, start: dt.date, stop: dt.date, everything: bool = False) -> Iterator[Outcome]:
    """Transform and load the outdated days from `start` to the day before `stop`, or all days with `everything`.

    Yield the outcome for each day as it comes, oldest first. A failed day does not stop the others. `done`: the day is
    loaded. `current`: nothing to do. `missing`: no raw files. `pruned`: no raw files, after `prune`. `skipped`: it
    comes from another source. `failed`: the reason is the error.
    """
    days = list_span(start, stop)
    markers = {marker.date: marker for marker in open_warehouse(workspace).read_markers()}
    outdated = list_outdated(workspace, markers.values(), start, stop)
    raw = list_raw(workspace, start, stop)
    others = {} if workspace.settings.accept else find_other_sources(workspace, raw)
    for date in days:
        if date not in raw:
            yield _explain_missing(date, markers.get(date))
        elif date in others:
            yield Outcome(date, "skipped", others[date])
        elif date not in outdated and not everything:
            yield Outcome(date, "current", "loaded by the current version")
        else:
            try:
                with workspace.folder("clean", date).lock():  # which a Transform task takes
                    transform_if_outdated(workspace, date, everything)
                load_stage.load_day(workspace, date)
                yield Outcome(date, "done", outdated.get(date, "requested"))
            except PipelineError as error:
                if workspace.folder("raw", date).exists():
                    yield Outcome(date, "failed", str(error))
                else:  # its files were removed meanwhile, by prune or by a person
                    yield _explain_missing(date, open_warehouse(workspace).read_marker(date))


def _explain_missing(date: dt.date, marker: Marker | None) -> Outcome:
    """Return the outcome for a day without raw files."""
    if not marker:
        return Outcome(date, "missing", "no raw files: run its Load task, which extracts the day")
    if marker.pruned_at:
        return Outcome(date, "pruned", "its files are pruned, its rows stay")
    why = "the raw files are missing: restore them from a copy, or delete the row in loads and run the day again"
    return Outcome(date, "missing", why)


def find_other_sources(workspace: Workspace, days: Sequence[dt.date]) -> dict[dt.date, str]:
    """Find the days that were never loaded and come from another source than the table. Return why they are refused.

    Raises QualityError if no day is loaded and the raw files come from several sources, unless all are accepted.
    """
    warehouse = open_warehouse(workspace)
    known, in_tables = warehouse.read_known_source(), warehouse.read_days()
    sources: dict[str, list[dt.date]] = {}
    for date in days:
        with suppress(FolderError):  # a damaged manifest fails the day when it is processed
            manifest = workspace.folder("raw", date).read_manifest(RawManifest)
            let_through = any(verdict.gate == SOURCE_GATE for verdict in manifest.gates)
            if manifest.source and date not in in_tables and not let_through:
                sources.setdefault(manifest.source, []).append(date)
    if not known and len(sources) > 1:
        if not workspace.settings.accept:
            named = "; ".join(f"{source}: {name_days(dates)}" for source, dates in sources.items())
            problem = f"{workspace.name}: the raw files come from several sources ({named})"
            raise QualityError(f"{problem}: {describe_ways_out(workspace.name)}")
        known = max(KnownSource(max(dates), source) for source, dates in sources.items())
    return {date: why for source, dates in sources.items() for date in dates if known and (why := known.refuse(source))}


def transform_if_outdated(workspace: Workspace, date: dt.date, everything: bool = False) -> None:
    if everything or not transform_stage.is_current(workspace, date):
        stages.transform(workspace, date)


def list_raw(workspace: Workspace, start: dt.date = dt.date.min, stop: dt.date = dt.date.max) -> list[dt.date]:
    """List the extracted days from `start` to the day before `stop`, oldest first."""
    dates = list_days(workspace.pipeline.data_dir, "raw", workspace.name)
    days = sorted(date for date in dates if start <= date < stop)
    return [date for date in days if workspace.folder("raw", date).exists()]


def _explain_outdated(raw: DayFolder, clean: DayFolder, marker: Marker | None, version: str) -> str | None:
    """Return why a day with raw files is outdated; None if it is not."""
    if not marker:
        return "not loaded"
    if marker.transform_version != version:
        return "transformed by another version"
    try:
        raw_manifest = raw.read_manifest(RawManifest)
    except FolderError as error:
        return str(error)
    clean_manifest = transform_stage.read_current(raw_manifest, clean, version)
    if not clean_manifest:
        return "its clean files are missing or outdated"
    is_loaded = marker.has(raw_sha256=raw_manifest.sha256, clean_sha256=clean_manifest.sha256, as_of=raw_manifest.as_of)
    return None if is_loaded else "loaded from other files"


def command(
    context: typer.Context,
    start: Start,
    stop: Stop,
    everything: Annotated[bool, typer.Option("--all", help="Take the days that are current too.")] = False,
) -> bool:
    """Reprocess the days, and print what becomes of each. Returns whether no day is missing, failed or skipped."""
    sound = True
    with open_workspaces(context) as workspaces:
        for workspace in workspaces:
            outcomes = reprocess(workspace, start, stop, everything)
            days = show_outcomes(workspace, outcomes, each="reprocessed from raw")
            sound &= not days["missing"] and not days["failed"] and not days["skipped"]
    return sound


def show_outcomes(workspace: Workspace, outcomes: Iterable[Outcome], each: str = "") -> dict[str, list[dt.date]]:
    """Print each outcome as it comes: a line for a day that failed, and with `each` for one that is done.

    Returns the days of each outcome.
    """
    console = open_console()
    days, missing = defaultdict[str, list[dt.date]](list), defaultdict[str, list[dt.date]](list)
    for date, what, why, _ in outcomes:
        days[what].append(date)
        if what == "done" and each:
            console.print(f"{workspace.name} {date}: {why}; {each}")
        elif what == "failed":
            sys.stderr.write(f"ERROR: {why}\n")
        elif what == "skipped":
            sys.stderr.write(f"WARNING: {workspace.name} {date}: skipped: {why}\n")
        elif what == "missing":
            missing[why].append(date)
    if days["current"]:
        console.print(f"{workspace.name} {name_days(days['current'])}: current, nothing to do")
    if days["pruned"]:
        pruned = f"{workspace.name} {name_days(days['pruned'])}"
        console.print(f"{pruned}: pruned, left as loaded", style="yellow")
    for why, dates in missing.items():
        sys.stderr.write(f"ERROR: {workspace.name} {name_days(dates)}: {why}\n")
    return days
