"""What a backfill of some days would do, and what that would cost, by what earlier days cost.

Owns the state of each day and the estimate. Refuses to run anything, and to ask the source.
"""

import datetime as dt
import statistics
from typing import Literal, NamedTuple

import typer

from wholeday import clock
from wholeday.commands.arguments import Start, Stop
from wholeday.commands.reprocess import find_outdated
from wholeday.commands.screen import add_days, group_days, make_days_table, open_console
from wholeday.commands.session import open_datasets
from wholeday.commands.status import tell_time
from wholeday.errors import FolderError
from wholeday.load.warehouse import open_warehouse
from wholeday.log import count
from wholeday.schema.marker import Marker
from wholeday.storage.workspace import Workspace
from wholeday.tasks.days import list_span
from wholeday.tasks.failures import read_failures, select_open
from wholeday.transform import day as transform_stage

LEARN_FROM = 30  # days: the newest of the same mode
AT_ONCE = dt.timedelta(hours=1)  # a day that is loaded later than that was read by another run


class Step(NamedTuple):
    """What is to be done for a day, and why.

    `read`: everything; `clean`: all but reading; `load`: that alone; `reprocess`: nothing by a backfill, which takes it
    as loaded; `nothing`: it is loaded; `wait`: it is not closed; `past`: nobody can read it any more.
    """

    date: dt.date
    what: Literal["read", "clean", "load", "reprocess", "nothing", "wait", "past"]
    why: str


class Cost(NamedTuple):
    """What the median of the newest loaded days cost, and of how many: requests, and seconds from first to last."""

    of: int
    pages: float
    seconds: float


def plan(workspace: Workspace, start: dt.date, stop: dt.date) -> list[Step]:
    """A step for each day from `start` to the day before `stop`, the oldest first."""
    days = list_span(start, stop)
    settings, now = workspace.settings, clock.utc_now()
    last_closed = settings.last_closed_day(now)
    markers, outdated = open_warehouse(workspace).read_markers(), find_outdated(workspace, start, stop)
    loaded = {marker.date for marker in markers}
    past = set(workspace.list_past([day for day in days if day not in loaded], now))
    failed = select_open(read_failures(workspace.pipeline.data_dir, workspace.name), markers)

    def plan_day(date: dt.date) -> Step:
        if date in loaded:
            return (
                Step(date, "reprocess", f"outdated, {outdated[date]}")
                if date in outdated
                else Step(date, "nothing", "loaded")
            )
        if date in past:
            return Step(date, "past", settings.describe_past(now))
        if date > last_closed:
            return Step(date, "wait", f"not closed; the newest day that is: {last_closed}")
        what, why = _find_step(workspace, date)
        if failure := failed.get(date):
            why = f"failed at {tell_time(failure.at)}, {failure.stage}: {failure.line}"
        return Step(date, what, why)

    return [plan_day(day) for day in days]


def _find_step(workspace: Workspace, date: dt.date) -> tuple[Literal["read", "clean", "load"], str]:
    """Where a day that is not loaded is to be taken up."""
    if not workspace.folder("raw", date).exists():
        return "read", "missing"
    try:
        return ("load", "read and cleaned") if transform_stage.is_current(workspace, date) else ("clean", "read")
    except FolderError as error:
        return "clean", str(error)


def find_cost(workspace: Workspace) -> Cost | None:
    """What a day costs, as the markers of the newest loaded days say; None where none says anything."""
    mode = workspace.settings.mode
    markers = [marker for marker in open_warehouse(workspace).read_markers() if marker.mode == mode][-LEARN_FROM:]
    if not markers:
        return None
    pages, seconds = [marker.pages for marker in markers], map(_find_seconds, markers)
    return Cost(len(markers), statistics.median(pages), statistics.median(seconds))


def _find_seconds(marker: Marker) -> float:
    """How long a day took: of one that was loaded some time after it was read, to read it and to load it."""
    at_once = marker.loaded_at - marker.extracted_at < AT_ONCE
    until = marker.loaded_at if at_once else marker.extracted_at + dt.timedelta(seconds=marker.seconds)
    return float((until - marker.started_at).total_seconds())


def command(context: typer.Context, start: Start, stop: Stop) -> bool:
    """Print what a backfill of the days would do, and what it would cost."""
    console = open_console()
    with open_datasets(context) as loads:
        for workspace in (load.workspace() for load in loads):
            steps, table = plan(workspace, start, stop), make_days_table("to do")
            for (what, why), days in group_days(steps).items():
                add_days(table, what, days, why)
            console.print(table)
            if to_read := sum(step.what == "read" for step in steps):
                console.print(f"{workspace.name}: {_describe_cost(to_read, find_cost(workspace))}", soft_wrap=True)
    return True


def _describe_cost(days: int, cost: Cost | None) -> str:
    """Describe what it costs to read so many days."""
    if not cost:
        return f"no day is loaded from which to learn what {count(days, 'day')} may cost"
    requests, time = round(days * cost.pages), dt.timedelta(seconds=round(days * cost.seconds))
    return (
        f"about {count(requests, 'request')} and {time} with one worker to read {count(days, 'day')}, "
        f"by the median of {count(cost.of, 'loaded day')}"
    )
