"""Plan a backfill: what it would do for each day, and its cost, estimated from earlier days.

Responsibilities: the next step of each day, and the estimate.
Non-goals: running anything, or a request to the source.
"""

import datetime as dt
import statistics
from typing import NamedTuple

import typer

from wholeday import clock
from wholeday.commands.arguments import Start, Stop
from wholeday.commands.reprocess import list_outdated
from wholeday.commands.screen import Outcome, add_days, group_days, make_days_table, open_console
from wholeday.commands.session import open_workspaces
from wholeday.commands.status import format_time
from wholeday.commands.waiting import list_loaded_first
from wholeday.days import list_span
from wholeday.errors import FolderError
from wholeday.load.warehouse import open_warehouse
from wholeday.log import count
from wholeday.schema.marker import Marker
from wholeday.storage.workspace import Workspace
from wholeday.tasks.failures import read_failures, select_open
from wholeday.transform import day as transform_stage

SAMPLE = 30  # days: the newest of the same mode
AT_ONCE = dt.timedelta(hours=1)  # a day that is loaded later than this was extracted by another run


class Cost(NamedTuple):
    """The median cost of the newest loaded days: requests, and seconds from the first request to the load."""

    days: int
    """The size of the sample."""
    pages: float
    seconds: float


def plan(workspace: Workspace, start: dt.date, stop: dt.date) -> list[Outcome]:
    """Plan what to do for each day from `start` to the day before `stop`, oldest first, and why.

    `extract`, `transform` and `load` name the first stage to run. `reprocess`: the day is loaded and outdated, so a
    backfill leaves it. `nothing`: it is loaded. `wait`: it is not closed. `past`: it cannot be fetched again.
    """
    days = list_span(start, stop)
    settings, now = workspace.settings, clock.utc_now()
    last_closed = settings.last_closed_day(now)
    markers = open_warehouse(workspace).read_markers()
    outdated = list_outdated(workspace, markers, start, stop)
    loaded = {marker.date for marker in markers}
    past = set(workspace.list_past([day for day in days if day not in loaded], now))
    failed = select_open(read_failures(workspace.pipeline.data_dir, workspace.name), markers)
    stages = {day: _choose_stage(workspace, day) for day in days if day <= last_closed and day not in {*loaded, *past}}
    first = list_loaded_first(workspace, [day for day, (what, _) in stages.items() if what == "extract"])

    def plan_day(date: dt.date) -> Outcome:
        if date in loaded and date in outdated:
            return Outcome(date, "reprocess", f"outdated: {outdated[date]}")
        if date in loaded:
            return Outcome(date, "nothing", "loaded")
        if date in past:
            return Outcome(date, "past", settings.describe_past(now))
        if date > last_closed:
            return Outcome(date, "wait", f"not closed; the newest closed day is {last_closed}")
        what, why = stages[date]
        if failure := failed.get(date):
            why = f"failed at {format_time(failure.at)}, {failure.stage}: {failure.line}"
        return Outcome(date, what, f"{why}; {first[date]}" if date in first else why)

    return [plan_day(day) for day in days]


def _choose_stage(workspace: Workspace, date: dt.date) -> tuple[str, str]:
    """Return the first stage to run for a day that is not loaded, and why."""
    if not workspace.folder("raw", date).exists():
        return "extract", "missing"
    try:
        is_current = transform_stage.is_current(workspace, date)
    except FolderError as error:
        return "transform", str(error)
    return ("load", "extracted and transformed") if is_current else ("transform", "extracted")


def estimate_cost(workspace: Workspace) -> Cost | None:
    """Estimate the cost of a day from the markers of the newest loaded days. None if no day of this mode is loaded."""
    mode = workspace.settings.mode
    markers = [marker for marker in open_warehouse(workspace).read_markers() if marker.mode == mode][-SAMPLE:]
    if not markers:
        return None
    pages, seconds = [marker.pages for marker in markers], map(_measure_seconds, markers)
    return Cost(len(markers), statistics.median(pages), statistics.median(seconds))


def _measure_seconds(marker: Marker) -> float:
    """Return how long a day took. Leave out the pause between an extraction and a later load."""
    at_once = marker.loaded_at - marker.extracted_at < AT_ONCE
    until = marker.loaded_at if at_once else marker.extracted_at + dt.timedelta(seconds=marker.seconds)
    return float((until - marker.started_at).total_seconds())


def command(context: typer.Context, start: Start, stop: Stop) -> bool:
    """Print what a backfill of the days would do, and what it would cost."""
    console = open_console()
    with open_workspaces(context) as workspaces:
        for workspace in workspaces:
            steps, table = plan(workspace, start, stop), make_days_table("to do")
            for (what, why), days in group_days(steps).items():
                add_days(table, what, days, why)
            console.print(table, soft_wrap=False)
            if number := sum(step.what == "extract" for step in steps):
                console.print(f"{workspace.name}: {_describe_cost(number, estimate_cost(workspace))}")
    return True


def _describe_cost(days: int, cost: Cost | None) -> str:
    """Describe the cost of so many days."""
    if not cost:
        return f"cannot estimate the cost of {count(days, 'day')}, as no day is loaded"
    requests, time = round(days * cost.pages), dt.timedelta(seconds=round(days * cost.seconds))
    return (
        f"about {count(requests, 'request')} and {time} with one worker to extract {count(days, 'day')}, "
        f"by the median of {count(cost.days, 'loaded day')}"
    )
