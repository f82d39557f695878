"""Find the days that wait for a failed day of a dataset that they need."""

import datetime as dt

from wholeday import clock
from wholeday.load.markers import find_loaded
from wholeday.load.needs import find_needed_day
from wholeday.load.warehouse import open_warehouse
from wholeday.storage.workspace import Workspace
from wholeday.tasks.failures import read_failures, select_open
from wholeday.tasks.stages import read_workspace

DAY = dt.timedelta(days=1)


def list_missing(loaded: list[dt.date], last_closed: dt.date) -> list[dt.date]:
    """List the days from the first loaded one to the last closed one that are not loaded."""
    days = range((last_closed - loaded[0]).days + 1) if loaded else ()
    return sorted({loaded[0] + number * DAY for number in days}.difference(loaded))


def list_waiting(workspace: Workspace) -> dict[dt.date, str]:
    """Return the days that cannot be extracted, as another dataset failed, with the failure. Raises FolderError."""
    parent = workspace.dataset.find_parent(workspace.settings)
    if parent is None or not (causes := _list_causes(parents := read_workspace(parent))):
        return {}
    now = clock.utc_now()
    last_closed = workspace.settings.last_closed_day(now)
    loaded = [marker.date for marker in open_warehouse(workspace).read_markers()]
    first = loaded[0] if loaded else min(last_closed, *causes)
    found = {}
    for day in sorted({*causes, *list_missing(loaded, last_closed), last_closed}.difference(loaded)):
        if first <= day <= last_closed and not workspace.folder("raw", day).exists():
            needed = find_needed_day(workspace, parents, day, now)
            if needed in causes:
                found[day] = causes[needed]
    return found


def _list_causes(workspace: Workspace) -> dict[dt.date, str]:
    """Return the days of a dataset that failed or wait, with the failure."""
    failures = read_failures(workspace.pipeline.data_dir, workspace.name)
    failed = select_open(failures, open_warehouse(workspace).read_markers())
    return list_waiting(workspace) | {
        day: f"{workspace.name} {day} failed, {failure.stage}: {failure.line}" for day, failure in failed.items()
    }


def list_loaded_first(workspace: Workspace, days: list[dt.date]) -> dict[dt.date, str]:
    """Return the days whose extraction loads a day of another dataset first, with the words for it."""
    parent = workspace.dataset.find_parent(workspace.settings)
    if parent is None or not days:
        return {}
    parents, now = read_workspace(parent), clock.utc_now()
    needed = {day: find_needed_day(workspace, parents, day, now) for day in days}
    wanted = {each for each in needed.values() if each}
    missing = wanted - find_loaded(parents.pipeline.database, parents.name, wanted)
    return {
        day: f"loads {'the same day of ' if each == day else ''}{parents.name}{'' if each == day else f' {each}'} first"
        for day, each in needed.items()
        if each in missing
    }
