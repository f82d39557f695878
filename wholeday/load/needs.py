"""Decide which day of its parents a dataset needs, before the source is asked for each of them."""

import datetime as dt

from wholeday.config.days import SNAPSHOT
from wholeday.errors import QualityError
from wholeday.load.markers import has_snapshot
from wholeday.storage.workspace import Workspace


def find_needed_day(child: Workspace, parents: Workspace, date: dt.date, now: dt.datetime) -> dt.date | None:
    """Return the day of the parents that must be loaded before `date` of the child is extracted.

    None if a loaded snapshot of the parents is new enough: as of the end of the day or later. A snapshot of the child
    needs the snapshot of its date or a later one, and of incremental parents the last closed day up to its date.
    Raises WarehouseError.
    """
    newest, is_snapshot = parents.settings.last_closed_day(now), child.settings.mode == SNAPSHOT
    if parents.settings.mode != SNAPSHOT:
        return min(date, newest) if is_snapshot else date
    since = date if is_snapshot else child.settings.window(date).stop
    return None if has_snapshot(parents.pipeline.database, parents.name, since) else newest


def check_snapshot(child: Workspace, parents: Workspace, date: dt.date, now: dt.datetime) -> None:
    """Raise QualityError if the parents are snapshots, and none of the loaded ones is new enough for `date`.

    Luigi has loaded the newest one by then. It can still be too old: one that was extracted just after midnight shows
    the source as of a time before midnight. Raises DayNotClosedError first: the end of such a day is still to come.
    """
    child.settings.check_closed(date, now)
    if parents.settings.mode == SNAPSHOT and (newest := find_needed_day(child, parents, date, now)):
        raise QualityError(
            f"{child.name} {date}: no loaded snapshot of {parents.name} is as of the end of the day or later, so new "
            f"rows may be missing in it: load {parents.name} {newest}, or a later day, first"
        )
