"""How a dataset stands: the state of each day, how old the newest is, what is missing, outdated, failed and rejected.

Owns what is said of a dataset to people and to machines: the fields of `Status` are the keys of `status --json`.
Refuses to change anything, and to ask the source.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from wholeday import clock
from wholeday.commands.reprocess import find_outdated
from wholeday.config.days import SNAPSHOT
from wholeday.config.placeholders import find_placeholders
from wholeday.config.source import Source
from wholeday.days import name_days
from wholeday.load.warehouse import RejectReason, open_warehouse
from wholeday.log import count
from wholeday.schema.marker import Marker
from wholeday.storage.workspace import Workspace
from wholeday.tasks.failures import Failure, read_failures, select_open
from wholeday.tasks.registry import spell_command

DAY = dt.timedelta(days=1)
RUNS = 12  # of days that are named in one text

State = Literal["loaded", "pruned", "outdated", "failed", "missing", "open"]
STATES: dict[State, str] = {
    "loaded": "loaded",
    "pruned": "loaded, raw files given up",
    "outdated": "outdated",
    "failed": "failed",
    "missing": "missing",
    "open": "not over yet",
}
"""Of a day, in words; where several are true, the later one of these."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset at the time `at`. Days come oldest first, failures newest first; times are UTC."""

    dataset: str
    database: str
    at: dt.datetime
    last_closed: dt.date
    """The newest day that could be loaded."""
    days: int
    """How many are loaded, of which the next two are the oldest and the newest."""
    first: dt.date | None
    newest: dt.date | None
    source: str | None
    """The source of the newest loaded day of which the source is known."""
    known_until: dt.datetime | None
    """What changed before is known: the end of the last day before which none is missing, or a snapshot's `as_of`."""
    age_seconds: float | None
    """How long ago that was."""
    missing: list[dt.date]
    """The days that are not loaded, from the first loaded one to the last closed one."""
    past: list[dt.date]
    """Those of the missing days that nobody can read any more: past snapshots."""
    failed: list[dt.date]
    """The days that failed and are not loaded."""
    outdated: dict[dt.date, str]
    """The days that `reprocess` would make again, and why."""
    pruned: list[dt.date]
    """The loaded days whose files `prune` has given up."""
    failures: list[Failure]
    """The newest one of each day, whether it is loaded or not."""
    future: list[dt.date]
    """The loaded days that were read under a clock that was ahead: they supersede what is loaded later."""
    rejects: list[RejectReason]
    """The most frequent first."""
    unforgotten: int
    """How many keys are not wholly erased: `forget` goes on with them."""
    loads: list[Marker]
    """The rows of the table `loads`."""

    @property
    def wanted(self) -> list[dt.date]:
        """The missing days to be loaded: of snapshots those that are not past."""
        return [date for date in self.missing if date not in self.past]

    @property
    def open_failures(self) -> list[Failure]:
        """Those of the days that are not loaded."""
        return [failure for failure in self.failures if failure.date in self.failed]

    def find_states(self) -> dict[dt.date, State]:
        """The state of each day that is loaded, missing or failed."""
        loaded: dict[dt.date, State] = {marker.date: "loaded" for marker in self.loads}
        states = loaded | dict.fromkeys(self.missing, "missing") | dict.fromkeys(self.pruned, "pruned")
        states |= dict.fromkeys(self.outdated.keys() & loaded.keys(), "outdated")
        return states | dict.fromkeys(self.failed, "failed")


def find_status(workspace: Workspace) -> Status:
    """How a dataset stands now. Raises ConfigError, FolderError, WarehouseError."""
    warehouse, data_dir, now = open_warehouse(workspace), workspace.pipeline.data_dir, clock.utc_now()
    loads = warehouse.read_markers()
    loaded = [marker.date for marker in loads]
    last_closed = workspace.settings.last_closed_day(now)
    future = [marker.date for marker in loads if _is_of_future(marker)]
    present = [marker for marker in loads if marker.date not in future]
    known_until = max(map(_find_end, _find_unbroken(present, _makes_up(workspace.settings))), default=None)
    missing = _find_missing(loaded, last_closed)
    failures = read_failures(data_dir, workspace.name)
    newest = {failure.date: failure for failure in failures}
    return Status(
        dataset=workspace.name,
        database=str(warehouse.database),
        at=now,
        last_closed=last_closed,
        days=len(loads),
        first=loaded[0] if loaded else None,
        newest=loaded[-1] if loaded else None,
        source=next((marker.source for marker in reversed(loads) if marker.source), None),
        known_until=known_until,
        age_seconds=(now - known_until).total_seconds() if known_until else None,
        missing=missing,
        past=workspace.list_past(missing, now),
        failed=list(select_open(failures, loads)),
        outdated=find_outdated(workspace),
        pruned=[marker.date for marker in loads if marker.pruned_at],
        failures=sorted(newest.values(), key=lambda failure: failure.at, reverse=True),
        future=future,
        rejects=warehouse.count_rejects(),
        unforgotten=workspace.tombstones().count_pending(),
        loads=loads,
    )


def _is_of_future(marker: Marker) -> bool:
    """Whether a day was read under a clock that was ahead."""
    times = (marker.started_at, marker.extracted_at, marker.as_of)
    return any(time and clock.is_future(time) for time in times)


def _makes_up(settings: Source) -> bool:
    """Whether a day is read from where the newest before it ends, whichever that is, and so for those between them."""
    found = set() if settings.mode == SNAPSHOT else find_placeholders(settings)
    return "watermark" in found and found.isdisjoint({"date", "day_start"})


def _find_unbroken(loads: list[Marker], made_up: bool) -> list[Marker]:
    """The loaded days up to the newest before which none is missing that matters; a snapshot is whole by itself."""
    known = 0
    for number, marker in enumerate(loads):
        follows = not number or marker.date - loads[number - 1].date == DAY
        if made_up or marker.mode == SNAPSHOT or (follows and known == number):
            known = number + 1
    return loads[:known]


def _find_end(marker: Marker) -> dt.datetime:
    """Up to when a loaded day tells what changed."""
    end: dt.datetime = marker.as_of if marker.mode == SNAPSHOT else marker.window_stop
    return end


def _find_missing(loaded: list[dt.date], last_closed: dt.date) -> list[dt.date]:
    """The days that are not loaded, from the first loaded one to the last closed one."""
    days = range((last_closed - loaded[0]).days + 1) if loaded else ()
    return sorted({loaded[0] + dt.timedelta(days=number) for number in days}.difference(loaded))


def name_newest(days: Iterable[dt.date]) -> str:
    """Days in words: the newest runs of them, and how many runs there are before."""
    runs = name_days(days).split(", ")
    before = f"{count(len(runs) - RUNS, 'other run')} before, " if len(runs) > RUNS else ""
    return before + ", ".join(runs[-RUNS:])


def tell_command(dataset: str, command: str, days: Sequence[dt.date]) -> str:
    """The command that does something to these days; it leaves alone what needs nothing between them."""
    return spell_command(dataset, command, min(days), max(days) + DAY)


def tell_time(time: dt.datetime) -> str:
    """A time in UTC to the second, as 2026-11-22T00:00:00Z."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def tell_span(span: dt.timedelta) -> str:
    """A length of time by its two largest units: 3 days 4 hours."""
    minutes, seconds = divmod(max(0, round(span.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "day"), (hours, "hour"), (minutes, "minute"), (seconds, "second")]
    largest = next((number for number, (amount, _) in enumerate(units) if amount), 3)
    return " ".join(count(amount, unit) for amount, unit in units[largest : largest + 2] if amount) or "0 seconds"
