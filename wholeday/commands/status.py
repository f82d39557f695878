"""Describe the status of a dataset: the state of each day, and what is missing, outdated, failed or rejected.

Responsibilities: the facts for people and for machines. The fields of `Status` are the keys of `status --json`.
Non-goals: changing anything, or a request to the source.
"""

import datetime as dt
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
import typer
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wholeday import clock
from wholeday.commands.arguments import parse_duration
from wholeday.commands.reprocess import list_outdated
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_workspaces
from wholeday.commands.waiting import list_missing, list_waiting
from wholeday.config.days import SNAPSHOT
from wholeday.config.placeholders import find_placeholders
from wholeday.config.source import Source
from wholeday.days import name_days
from wholeday.guides import FAILED_DAY, STATUS_KEYS, WRONG_CLOCK
from wholeday.load.day import COUNTS, describe_removed
from wholeday.load.orphans import Orphans, find_orphans
from wholeday.load.warehouse import RejectReason, open_warehouse
from wholeday.log import count, encode_json
from wholeday.schema.marker import Marker
from wholeday.storage.workspace import Workspace
from wholeday.tasks import alerts
from wholeday.tasks.failures import Failure, read_failures, select_open
from wholeday.tasks.workflow import spell_command

DAY = dt.timedelta(days=1)
RANGES = 12  # of days in one text

State = Literal["loaded", "pruned", "outdated", "failed", "missing", "open"]
STATES: dict[State, str] = {
    "loaded": "loaded",
    "pruned": "loaded, files pruned",
    "outdated": "outdated",
    "failed": "failed",
    "missing": "missing",
    "open": "not over yet",
}
"""The states of a day and their descriptions. A day in several states is shown in the last of them."""


REASONS = 10  # for rejects, on the screen
FAILURES = 5  # on the screen
WEEKS = 6  # in the calendar of the screen
LETTERS = dict(zip(STATES, ".pOFM-", strict=True))
STYLES = dict(zip(STATES, ("green", "green", "yellow", "bold red", "red", "dim"), strict=True))
JSON = f"Print one JSON document; its keys: {STATUS_KEYS}"
MAX_AGE = "Exit with 1 if the known changes end longer ago than that, as '36 hours' or '2 days'."


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset at the time `at`. Days are listed oldest first, failures newest first. Times are UTC."""

    dataset: str
    database: str
    at: dt.datetime
    last_closed: dt.date
    """The newest day that can be loaded."""
    days: int
    """The number of loaded days. `first` and `newest` are the oldest and the newest of them."""
    first: dt.date | None
    newest: dt.date | None
    source: str | None
    """The source of the newest loaded day with a known source."""
    known_until: dt.datetime | None
    """All changes before this time are loaded: the end of the last day without a gap before it, or the `as_of` of a
    snapshot."""
    age_seconds: float | None
    """The age of `known_until`."""
    missing: list[dt.date]
    """The days from the first loaded one to the last closed one that are not loaded, and days before it that failed."""
    past: list[dt.date]
    """The missing days that cannot be fetched again: past snapshots."""
    failed: list[dt.date]
    """The days that failed and are not loaded."""
    waiting: dict[dt.date, str]
    """The days that need a day of another dataset which failed, and its failure."""
    outdated: dict[dt.date, str]
    """The days that `reprocess` would process, and why."""
    pruned: list[dt.date]
    """The loaded days whose files `prune` deleted."""
    failures: list[Failure]
    """The newest failure of each day, loaded or not."""
    future: list[dt.date]
    """The loaded days that were extracted while the clock was ahead: they supersede later loads."""
    rejects: list[RejectReason]
    """The most frequent first."""
    orphans: Orphans | None
    """The rows whose parent is not in the table of the parents; null without any."""
    pending_keys: int
    """The number of keys that are not fully erased: the next `forget` completes them."""
    loads: list[Marker]
    """The rows of the table `loads`."""

    @property
    def wanted(self) -> list[dt.date]:
        """The missing days that can be loaded."""
        return [date for date in self.missing if date not in self.past]

    @property
    def open_failures(self) -> list[Failure]:
        """The failures of days that are not loaded."""
        return [failure for failure in self.failures if failure.date in self.failed]

    def get_states(self) -> dict[dt.date, State]:
        """Return the state of each day that is loaded, missing or failed."""
        loaded: dict[dt.date, State] = {marker.date: "loaded" for marker in self.loads}
        states = loaded | dict.fromkeys(self.missing, "missing") | dict.fromkeys(self.pruned, "pruned")
        states |= dict.fromkeys(self.outdated.keys() & loaded.keys(), "outdated")
        return states | dict.fromkeys(self.failed, "failed")


def read_status(workspace: Workspace) -> Status:
    """Read the current status of a dataset. Raises ConfigError, FolderError, WarehouseError."""
    warehouse, data_dir, now = open_warehouse(workspace), workspace.pipeline.data_dir, clock.utc_now()
    settings = workspace.settings
    loads = warehouse.read_markers()
    loaded = [marker.date for marker in loads]
    last_closed = settings.last_closed_day(now)
    future = [marker.date for marker in loads if _is_of_future(marker)]
    trusted = [marker for marker in loads if marker.date not in future]
    unbroken = _select_unbroken(trusted, _fills_gaps(settings))
    ends = (marker.as_of if marker.mode == SNAPSHOT else marker.window_stop for marker in unbroken)
    known_until = max(ends, default=None)
    failures = read_failures(data_dir, workspace.name)
    failed = list(select_open(failures, loads))
    early = [date for date in failed if loaded and date < loaded[0]]
    missing = [*early, *list_missing(loaded, last_closed)]
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
        failed=failed,
        waiting=list_waiting(workspace),
        outdated=list_outdated(workspace, loads),
        pruned=[marker.date for marker in loads if marker.pruned_at],
        failures=sorted(newest.values(), key=lambda failure: failure.at, reverse=True),
        future=future,
        rejects=warehouse.count_rejects(),
        orphans=find_orphans(workspace),
        pending_keys=workspace.tombstones().count_pending(),
        loads=loads,
    )


def _is_of_future(marker: Marker) -> bool:
    """Tell whether a day was extracted while the clock was ahead."""
    times = (marker.started_at, marker.extracted_at, marker.as_of)
    return any(time and clock.is_future(time) for time in times)


def _fills_gaps(settings: Source) -> bool:
    """Tell whether a day starts from the watermark, so that it includes the changes of missing days before it."""
    used = set() if settings.mode == SNAPSHOT else find_placeholders(settings)
    return "watermark" in used and used.isdisjoint({"date", "day_start"})


def _select_unbroken(loads: list[Marker], fills_gaps: bool) -> list[Marker]:
    """Return the loaded days up to the first gap. A snapshot is complete by itself, even after a gap."""
    known = 0
    for number, marker in enumerate(loads):
        follows = not number or marker.date - loads[number - 1].date == DAY
        if fills_gaps or marker.mode == SNAPSHOT or (follows and known == number):
            known = number + 1
    return loads[:known]


def format_newest(days: Iterable[dt.date]) -> str:
    """Format the newest ranges of some days, and the number of ranges before them."""
    ranges = name_days(days).split(", ")
    before = f"{count(len(ranges) - RANGES, 'other range')} before, " if len(ranges) > RANGES else ""
    return before + ", ".join(ranges[-RANGES:])


def build_command(dataset: str, command: str, days: Sequence[dt.date]) -> str:
    """Build the command that processes some days. It leaves alone the days between them that need nothing."""
    return spell_command(dataset, command, min(days), max(days) + DAY)


def format_time(time: dt.datetime) -> str:
    """Format a time in UTC to the second, as 2026-11-22T00:00:00Z."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def format_span(span: dt.timedelta) -> str:
    """Format a length of time by its two largest units, as 3 days 4 hours."""
    minutes, seconds = divmod(max(0, round(span.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "day"), (hours, "hour"), (minutes, "minute"), (seconds, "second")]
    largest = next((number for number, (amount, _) in enumerate(units) if amount), 3)
    return " ".join(count(amount, unit) for amount, unit in units[largest : largest + 2] if amount) or "0 seconds"


def command(
    context: typer.Context,
    days: Annotated[int, typer.Option(min=1, help="How many of the newest days to list.")] = 14,
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    max_age: Annotated[
        dt.timedelta | None, typer.Option(parser=parse_duration, metavar="DURATION", help=MAX_AGE)
    ] = None,
) -> bool:
    """Print the status of each dataset. Return whether none is older than `max_age`."""
    with open_workspaces(context) as workspaces:
        statuses = list(map(read_status, workspaces))
        late = []
        for workspace, status in zip(workspaces, statuses, strict=True):
            if line := _describe_delay(status, max_age):
                late.append(f"ERROR: {line}\n")
                alerts.send_alert(workspace.dataset, Failure(status.at, status.last_closed, alerts.LATE, line))
        try:
            if json:
                newest = [msgspec.structs.replace(status, loads=status.loads[-days:]) for status in statuses]
                sys.stdout.write(f"{encode_json({'datasets': newest})}\n")
            else:
                for status in statuses:
                    _show_status(status, days)
        finally:  # on a full disk nothing but these lines can be shown
            sys.stderr.writelines(late)
        return not late


def _show_status(status: Status, days: int) -> None:
    console, name = open_console(), status.dataset
    if status.pending_keys:
        pending = count(status.pending_keys, "key")
        console.print(f"{name}: {pending} not fully erased: {spell_command(name, 'forget')}")
    if status.first and status.newest and status.known_until:
        missing = f"{count(len(status.missing), 'day')} missing up to the last closed day, {status.last_closed}"
        span = f"{count(status.days, 'day')}, {status.first} to {status.newest}"
        age = format_span(status.at - status.known_until)
        console.print(f"{name} in {status.database}: {span}; {missing if status.missing else 'no day is missing'}")
        console.print(f"all changes before {format_time(status.known_until)} are loaded ({age} ago)")
        if status.source:
            console.print(f"source: {status.source}")
    else:
        console.print(f"{name}: no day is loaded in {status.database}")
    if status.future:
        console.print(f"wrong clock: {_describe_future(status)}", style="red")
    if states := status.get_states():
        legend = Columns((Text(f"{LETTERS[state]} {STATES[state]}", STYLES[state]) for state in STATES), padding=(0, 3))
        console.print("", _make_calendar(states, status.last_closed), legend, "", sep="\n", soft_wrap=False)
    if status.loads:
        _show_loads(console, status.loads[-days:])
    if status.wanted:
        next_ = build_command(name, "backfill", status.wanted)
        console.print(f"missing: {format_newest(status.wanted)}: {next_}", style="red")
    if status.past:
        past = f"past: {format_newest(status.past)}: past snapshots cannot be fetched again"
        console.print(past, style="red")
    for failure in status.failures[:FAILURES]:
        over, style = ("", "red") if failure.date in status.failed else (", loaded now", "dim")
        what = f"failed at {format_time(failure.at)}{over}: {failure.date}, {failure.stage}"
        console.print(f"{what}: {failure.line}", style=style)
    if status.failed:
        console.print(f"what to do: {FAILED_DAY}")
    for why, dates in group_by_reason(status.waiting).items():
        console.print(f"waiting: {format_newest(dates)}: {why}", style="red")
    for why, dates in group_by_reason(status.outdated).items():
        console.print(f"outdated, {why}: {format_newest(dates)}", style="yellow")
    if orphans := status.orphans:
        key = orphans.example[0] if len(orphans.example) == 1 else encode_json(orphans.example)
        line = f"orphans: {count(orphans.rows, 'row')} without a row in {orphans.parents}, such as {key}"
        console.print(line, style="yellow")
    for rejected in status.rejects[:REASONS]:
        where = f"{count(rejected.records, 'record')} of {count(rejected.days, 'day')}"
        console.print(f"rejected, {where}: {rejected.reason}")


def group_by_reason(reasons: Mapping[dt.date, str]) -> dict[str, list[dt.date]]:
    """Group days by the reason for their state."""
    groups: dict[str, list[dt.date]] = {}
    for date, why in reasons.items():
        groups.setdefault(why, []).append(date)
    return groups


def _show_loads(console: Console, markers: Sequence[Marker]) -> None:
    """Print a row of counts for each day. On a narrow terminal, name the counts that are all 0 in one line."""
    names, zero = ["extracted", *COUNTS], []
    if len("  ".join(["2026-11-21", *names, "seconds"])) > console.width:
        zero = [name for name in names if not any(marker.counts[name] for marker in markers)]
    shown = [name for name in names if name not in zero]
    rows = [[*(f"{marker.counts[name]:,}" for name in shown), f"{marker.seconds:.2f}"] for marker in markers]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("date", no_wrap=True)
    for name, values in zip((*shown, "seconds"), zip(*rows, strict=True), strict=True):  # names may wrap
        table.add_column(name, justify="right", overflow="fold", min_width=max(map(len, values)))
    for marker, row in zip(markers, rows, strict=True):
        table.add_row(str(marker.date), *row)
    console.print(table, soft_wrap=False)
    if zero:
        console.print(f"0 on all these days: {', '.join(zero)}", style="dim")
    for marker in markers:
        if removed := describe_removed(marker):
            console.print(f"{marker.date} {removed}", style="yellow")


def _make_calendar(states: Mapping[dt.date, State], last_closed: dt.date) -> Table:
    """Build a table with a row for each of the last weeks, from the first known day to the last closed day."""
    newest = max(last_closed, *states)
    start = max(min(states), newest - dt.timedelta(weeks=WEEKS - 1))
    monday = start - dt.timedelta(days=start.weekday())
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("week of")
    for name in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"):
        table.add_column(name, justify="right")
    while monday <= newest:
        week = [monday + number * DAY for number in range(7)]
        found = [(day, states.get(day, "open" if day > last_closed else None)) for day in week]
        cells = (Text(f"{day.day} {LETTERS[state]}", STYLES[state]) if state else Text() for day, state in found)
        table.add_row(str(monday), *cells)
        monday += dt.timedelta(weeks=1)
    return table


def _describe_delay(status: Status, max_age: dt.timedelta | None) -> str | None:
    """Return the error if the known changes end longer ago than `max_age`, and the cause; else None."""
    if max_age is not None and status.future:
        return f"{status.dataset}: {_describe_future(status)}"
    if max_age is None or (status.known_until and status.at - status.known_until <= max_age):
        return None
    known = "no day is loaded"
    if status.known_until:
        age = format_span(status.at - status.known_until)
        known = f"the known changes end at {format_time(status.known_until)}, {age} ago"
    return f"{status.dataset}: {known}, and --max-age allows {format_span(max_age)}: {_describe_next_step(status)}"


def _describe_future(status: Status) -> str:
    """Name the days that were extracted while the clock was ahead, and the next step."""
    days = format_newest(status.future)
    return f"{days}: extracted while the clock was ahead, so later loads may have no effect: {WRONG_CLOCK}"


def _describe_next_step(status: Status) -> str:
    """Name what holds a dataset back: the failure of its oldest missing day, or the command to run."""
    failed = {failure.date: failure for failure in status.open_failures}
    lacking = status.wanted or list(failed) or list(status.waiting)
    if not lacking:
        return f"see {spell_command(status.dataset, 'status')}"
    missing = f"{count(len(lacking), 'day')} missing"
    if failure := failed.get(lacking[0]):
        before = f"{missing}, " if len(lacking) > 1 else ""
        return f"{before}{failure.date} failed, {failure.stage}: {failure.line}"
    if why := status.waiting.get(lacking[0]):
        return f"{missing}, {lacking[0]} waits: {why}"
    return f"{missing}: {build_command(status.dataset, 'backfill', lacking)}"
