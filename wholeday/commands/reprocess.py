"""Days made again from their raw files, without the source: one by one in place, or the whole warehouse at once.

Owns which days are outdated, and what becomes of each day that is asked for. Refuses the source: a day without raw
files is named and left to its Load task.
"""

import datetime as dt
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from wholeday.commands.arguments import Start, Stop
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_datasets
from wholeday.days import name_days
from wholeday.errors import FolderError, PipelineError, QualityError
from wholeday.load import day as load_stage
from wholeday.load.warehouse import open_warehouse
from wholeday.schema.marker import Marker
from wholeday.storage.day_folder import DayFolder, list_days
from wholeday.storage.known_source import SOURCE_GATE, KnownSource, describe_ways_out, join_accepted
from wholeday.storage.manifest import RawManifest
from wholeday.storage.workspace import Workspace
from wholeday.tasks import stages
from wholeday.tasks.days import list_span
from wholeday.transform import day as transform_stage

if TYPE_CHECKING:
    from wholeday.load.clean_day import CleanDay


class Outcome(NamedTuple):
    """What became of a day, and why: it was made again, is current as it is, has no raw files (or prune has given it
    up), was skipped as it comes from another source, or failed."""

    date: dt.date
    what: Literal["done", "current", "missing", "pruned", "skipped", "failed"]
    why: str


def find_outdated(
    workspace: Workspace, start: dt.date = dt.date.min, stop: dt.date = dt.date.max
) -> dict[dt.date, str]:
    """The days with raw files that are not loaded as the code of today makes them of these, and why; oldest first.

    Of those from `start` to the day before `stop`; the files of others are not looked at.
    """
    markers = {marker.date: marker for marker in open_warehouse(workspace).read_markers()}
    outdated = {}
    for date in list_raw(workspace, start, stop):
        raw, clean = (workspace.folder(stage, date) for stage in ("raw", "clean"))
        if reason := _find_reason(raw, clean, markers.get(date), workspace.version):
            outdated[date] = reason
    return outdated


def reprocess(workspace: Workspace, start: dt.date, stop: dt.date, everything: bool = False) -> Iterator[Outcome]:
    """Make the outdated days from `start` to the day before `stop` again, the oldest first, or with `everything` each.

    A day that fails does not keep the others from being made: what became of each is told as it happens.
    """
    days = list_span(start, stop)
    outdated = find_outdated(workspace, start, stop)
    markers = {marker.date: marker for marker in open_warehouse(workspace).read_markers()}
    raw = [date for date in days if workspace.folder("raw", date).exists()]
    others = {} if workspace.settings.accept else _find_others(workspace, raw)
    for date in days:
        if date not in raw:
            yield _pass_over(date, markers.get(date))
        elif date in others:
            yield Outcome(date, "skipped", others[date])
        elif date not in outdated and not everything:
            yield Outcome(date, "current", "loaded as the code of today makes it")
        else:
            try:
                _clean(workspace, date, everything)
                load_stage.load_day(workspace, date)
                yield Outcome(date, "done", outdated.get(date, "asked for"))
            except PipelineError as error:
                if workspace.folder("raw", date).exists():
                    yield Outcome(date, "failed", str(error))
                else:  # prune, or a person, removed its files meanwhile
                    yield _pass_over(date, open_warehouse(workspace).read_marker(date))


def _pass_over(date: dt.date, marker: Marker | None) -> Outcome:
    """What becomes of a day without raw files."""
    if not marker:
        return Outcome(date, "missing", "no raw files: its Load task reads them from the source")
    if marker.pruned_at:
        return Outcome(date, "pruned", "its files are given up: it stays as it was loaded")
    return Outcome(
        date,
        "missing",
        "its raw files are gone: bring them back from a copy, or delete its row of loads, and run the day again",
    )


def rebuild(workspace: Workspace, drop_missing: bool = False) -> list[Outcome]:
    """Make the warehouse of the dataset anew of all days with raw files, and put it in the old one's place at once.

    Raises PipelineError, and leaves the old one, where a day that is loaded has no raw files (unless `drop_missing`)
    or cannot be made again. A day that was never loaded is left out and named if it cannot be made again, or comes from
    another source.
    """
    warehouse = open_warehouse(workspace)
    loads: dict[dt.date, CleanDay] = {}
    failed: dict[dt.date, PipelineError] = {}
    _list_raw_to_rebuild(workspace)
    with workspace.folder("clean", dt.date.min).lock_all():  # a day is loaded under this lock: none is loaded meanwhile
        warehouse.rename_old_tables()
        kept = warehouse.read_days()
        accepted = warehouse.read_days_let_through()
        while True:
            days = _list_raw_to_rebuild(workspace)
            missing = kept.difference(days)
            if missing and not drop_missing:
                warehouse.refuse_to_lose(missing)
            others = _find_others(workspace, days)
            skipped = {} if workspace.settings.accept else others
            for date in days:
                if date not in loads and date not in failed and date not in skipped:
                    try:
                        _make_current(workspace, date)
                        load = load_stage.read_to_load(workspace, date)
                        loads[date] = _let_through(load) if date in others or date in accepted else load
                    except PipelineError as error:
                        failed[date] = error
            for date in sorted(kept & failed.keys()):
                raise failed[date]
            lost = warehouse.rebuild(sorted(loads.values(), key=lambda load: load.metadata.as_of), missing)
            if not lost:
                break
            kept |= lost  # in a bucket, which has no locks, they were loaded meanwhile
    done = [Outcome(date, "done", "made anew") for date in loads]
    left = [Outcome(date, "skipped", why) for date, why in skipped.items()]
    return sorted([*done, *left, *(Outcome(date, "failed", str(error)) for date, error in failed.items())])


def _let_through(clean: "CleanDay") -> "CleanDay":
    """Return the day with the gate in its `accepted`."""
    accepted = join_accepted(clean.metadata.accepted, SOURCE_GATE)
    return replace(clean, metadata=replace(clean.metadata, accepted=accepted))


def _list_raw_to_rebuild(workspace: Workspace) -> list[dt.date]:
    """The days with raw files; raises FolderError where there is none."""
    if days := list_raw(workspace):
        return days
    folder, _, _ = str(workspace.folder("raw", dt.date.min)).rpartition("/")
    raise FolderError(f"{folder}: no day has raw files to rebuild from")


def _find_others(workspace: Workspace, days: Sequence[dt.date]) -> dict[dt.date, str]:
    """Find those of the days with raw files that were never loaded and come from another source; say so of each.

    Raises QualityError if nothing is loaded that could tell which of several sources is meant, unless all are accepted.
    """
    warehouse = open_warehouse(workspace)
    known, in_tables = warehouse.read_known_source(), warehouse.read_days()
    sources: dict[str, list[dt.date]] = {}
    for date in days:
        with suppress(FolderError):  # a damaged manifest is told when the day is worked on
            read = workspace.folder("raw", date).read_manifest(RawManifest)
            let_through = any(verdict.gate == SOURCE_GATE for verdict in read.gates)
            if read.source and date not in in_tables and not let_through:
                sources.setdefault(read.source, []).append(date)
    if not known and len(sources) > 1:
        if not workspace.settings.accept:
            named = "; ".join(f"{source}: {name_days(dates)}" for source, dates in sources.items())
            problem = f"{workspace.name}: the raw files come from several sources ({named})"
            raise QualityError(f"{problem}: {describe_ways_out(workspace.name)}")
        known = max(KnownSource(max(dates), source) for source, dates in sources.items())
    return {date: why for source, dates in sources.items() for date in dates if known and (why := known.refuse(source))}


def _clean(workspace: Workspace, date: dt.date, everything: bool = False) -> None:
    """Make the clean folder again where it is not current, alone among all processes, as a Transform task does."""
    with workspace.folder("clean", date).lock():
        _make_current(workspace, date, everything)


def _make_current(workspace: Workspace, date: dt.date, everything: bool = False) -> None:
    if everything or not transform_stage.is_current(workspace, date):
        stages.transform(workspace, date)


def list_raw(workspace: Workspace, start: dt.date = dt.date.min, stop: dt.date = dt.date.max) -> list[dt.date]:
    """The days from `start` to the day before `stop` that have all of their raw files, the oldest first."""
    data_dir = workspace.pipeline.data_dir
    days = sorted(date for date in list_days(data_dir, "raw", workspace.name) if start <= date < stop)
    return [date for date in days if DayFolder(data_dir, "raw", workspace.name, date).exists()]


def _find_reason(raw: DayFolder, clean: DayFolder, marker: Marker | None, version: str) -> str | None:
    """Why a day with raw files is outdated; None where it is not."""
    if not marker:
        return "not loaded"
    if marker.transform_version != version:
        return "made by other code"
    try:
        read = raw.read_manifest(RawManifest)
    except FolderError as error:
        return str(error)
    made = transform_stage.read_current(read, clean, version)
    if not made:
        return "its clean files are not what the code of today makes of its raw files"
    is_loaded = marker.has(raw_sha256=read.sha256, clean_sha256=made.sha256, as_of=read.as_of)
    return None if is_loaded else "loaded from other files"


def command(
    context: typer.Context,
    start: Start,
    stop: Stop,
    everything: Annotated[bool, typer.Option("--all", help="Take the days that are current too.")] = False,
) -> bool:
    """Reprocess the days, and print what becomes of each. Returns whether no day is missing, failed or skipped."""
    sound = True
    with open_datasets(context) as loads:
        for load in loads:
            outcomes = reprocess(load.workspace(), start, stop, everything)
            days = show_outcomes(load.workspace(), outcomes, each="made again from raw")
            sound &= not days["missing"] and not days["failed"] and not days["skipped"]
    return sound


def show_outcomes(workspace: Workspace, outcomes: Iterable[Outcome], each: str = "") -> dict[str, list[dt.date]]:
    """Print each outcome as it comes: a line for a day that failed, and with `each` for one that is done.

    Returns the days of each outcome.
    """
    console = open_console()
    days: dict[str, list[dt.date]] = {
        name: [] for name in ("done", "current", "missing", "pruned", "skipped", "failed")
    }
    missing: dict[str, list[dt.date]] = {}
    for date, what, why in outcomes:
        days[what].append(date)
        if what == "done" and each:
            console.print(f"{workspace.name} {date}: {why}; {each}", soft_wrap=True)
        elif what == "failed":
            sys.stderr.write(f"ERROR: {why}\n")
        elif what == "skipped":
            sys.stderr.write(f"WARNING: {workspace.name} {date}: skipped: {why}\n")
        elif what == "missing":
            missing.setdefault(why, []).append(date)
    if days["current"]:
        console.print(f"{workspace.name} {name_days(days['current'])}: current, left as it is", soft_wrap=True)
    if days["pruned"]:
        pruned = f"{workspace.name} {name_days(days['pruned'])}"
        console.print(f"{pruned}: given up by prune, left as loaded", style="yellow", soft_wrap=True)
    for why, dates in missing.items():
        sys.stderr.write(f"ERROR: {workspace.name} {name_days(dates)}: {why}\n")
    return days
