"""Decide which day of its parents a dataset needs, before the source is asked for each of them."""

import datetime as dt

from wholeday.config.days import SNAPSHOT
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
