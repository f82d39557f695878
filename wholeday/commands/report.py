"""Write the page of `report`: the status of each dataset in one HTML file without scripts, requests or other files.

Responsibilities: the content of the page and its order: a verdict, what to do, days, charts.
All texts are escaped, as they may come from a source, a file or an error.
Non-goals: facts of its own. All but the growth of the table comes from `status`.
"""

import calendar
import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, NamedTuple

import jinja2
import typer

from wholeday.commands.screen import open_console
from wholeday.commands.session import open_workspaces
from wholeday.commands.status import (
    DAY,
    STATES,
    State,
    Status,
    build_command,
    format_newest,
    format_span,
    group_by_reason,
    read_status,
)
from wholeday.days import list_span
from wholeday.guides import WRONG_CLOCK, WRONG_SOURCE
from wholeday.load.day import COUNTS, describe_removed
from wholeday.load.warehouse import open_warehouse
from wholeday.log import count
from wholeday.schema.marker import Marker
from wholeday.storage.backends import open_storage
from wholeday.storage.workspace import Workspace
from wholeday.tasks.failures import build_page_name
from wholeday.tasks.workflow import spell_command

MONTHS = 12  # in the calendar
NEWEST = 14  # loads and failures to list
REASONS = 12  # for rejects to list
LARGE = 0.3  # share of the rows, or of a column's values, whose loss is a remedy
FEW_LOST = 5  # rows or values: fewer are never a large loss
LOSSES = 2  # in the headline
PAST = "not loaded, and past snapshots cannot be fetched again"
FILE = "Where to write it (default: in data_dir, report.html, or report-NAME.html with --dataset NAME)."

Values = list[float | None]


class Remedy(NamedTuple):
    """A problem: the state, number and names of its days, its cause, and the command that fixes it."""

    state: "State | Literal['lost']"
    number: int
    days: str
    why: str
    command: str
    """Empty if there is none."""


class Chart(NamedTuple):
    """A chart with its title, a line of figures, the names of its colours, and a text for screen readers."""

    title: str
    caption: str
    legend: dict[str, str]
    words: str
    svg: str


class Cell(NamedTuple):
    """A day of the calendar."""

    date: dt.date
    state: State
    words: str


class Month(NamedTuple):
    """A month of the calendar in weeks from Monday to Sunday. None is a day of another month or an unknown day."""

    name: str
    weeks: list[list[Cell | None]]


def write_report(workspaces: Sequence[Workspace], file: Path | None, days: int, only: str | None = None) -> str:
    """Write the page, with charts of the newest `days`, into a file or into data_dir. Return where it is.

    In data_dir the page is `report.html`, or `report-orders.html` if it shows `only` the dataset `orders`.
    Raises ConfigError, FolderError, WarehouseError.
    """
    sheets = [build_sheet(workspace, days) for workspace in workspaces]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["command"] = spell_command
    environment.filters["removed"] = describe_removed
    environment.filters["span"] = lambda seconds: format_span(dt.timedelta(seconds=seconds))
    environment.filters["time"] = lambda time: f"{time:%Y-%m-%d %H:%M} UTC"
    template = environment.from_string(Path(__file__).with_name("report.html").read_text("utf-8"))
    page = template.render(sheets=sheets, words=STATES, counts=COUNTS, newest=NEWEST, reasons=REASONS)
    settings = workspaces[0].pipeline
    storage = open_storage("" if file else settings.data_dir, settings.is_private)
    path = file or storage.root / build_page_name(only)
    storage.replace(path, page.encode())
    return storage.show(path)


def build_sheet(workspace: Workspace, number: int) -> dict[str, Any]:
    """Build the part of the page for a dataset, with charts of the newest `number` of days: names for report.html."""
    status = read_status(workspace)
    states, losses = status.get_states(), list[Remedy]()
    figures, charts, shown = {}, [], ""
    if status.first and status.newest:
        first = max(status.first, status.last_closed - dt.timedelta(days=number - 1))
        days = list_span(first, max(status.last_closed, status.newest) + DAY)
        totals = accumulate(open_warehouse(workspace).compute_growth(), status.first, status.newest)
        charts = [*build_charts(status, days), draw_growth(workspace.name, status.first, totals)]
        shown = f"{days[0]} to {days[-1]}"
        by_day = {status.first + number * DAY: total for number, total in enumerate(totals)}
        losses = list_losses(status, by_day, first)
        figures = {
            workspace.name: f"{totals[-1]:,}",
            "days loaded": f"{status.days:,}",
            "newest day": str(status.newest),
            "records, newest day": f"{status.loads[-1].extracted:,}",
        }
    remedies = list_remedies(status, losses)
    grade, headline = summarize(status, remedies)
    return {
        "status": status,
        "grade": grade,
        "headline": headline,
        "remedies": remedies,
        "figures": figures,
        "months": build_months(status, states),
        "states": Counter(states.values()),
        "charts": charts,
        "shown": shown,
        "recovered": [failure for failure in status.failures if failure.date not in status.failed][:NEWEST],
    }


def list_remedies(status: Status, losses: Sequence[Remedy] = ()) -> list[Remedy]:
    """List the problems with their remedies, worst first. `losses` are some of them."""
    name, failed = status.dataset, status.open_failures

    def propose(state: State, days: Sequence[dt.date], why: str, command: str = "backfill") -> Remedy:
        return Remedy(state, len(days), format_newest(days), why, build_command(name, command, days))

    waiting = {date: why for date, why in status.waiting.items() if date not in status.failed}
    missing = [date for date in status.wanted if date not in {*status.failed, *waiting}]
    past = [date for date in status.missing if date not in {*status.wanted, *status.failed}]
    lacking = {*status.missing, *status.failed}
    outdated = group_by_reason({date: why for date, why in status.outdated.items() if date not in lacking})

    remedies = []
    if status.future:
        why = "extracted while the clock was ahead: later loads may have no effect"
        days = format_newest(status.future)
        remedies.append(Remedy("failed", len(status.future), days, why, WRONG_CLOCK))
    remedies += [propose("failed", [failure.date], f"{failure.stage}: {failure.line}") for failure in failed[:NEWEST]]
    if older := [failure.date for failure in failed[NEWEST:]]:
        see = spell_command(name, "status", "--json")
        remedies.append(propose("failed", older, f"older failures: {see} shows the causes"))
    remedies += [propose("missing", days, f"waits: {why}") for why, days in group_by_reason(waiting).items()]
    if missing:
        remedies.append(propose("missing", missing, "not loaded"))
    if past:
        remedies.append(Remedy("missing", len(past), format_newest(past), PAST, ""))
    remedies += losses
    remedies += [propose("outdated", days, why, "reprocess") for why, days in outdated.items()]
    if status.pending_keys:
        keys = count(status.pending_keys, "key")
        remedies.append(Remedy("outdated", 0, "every day", f"{keys} not fully erased", spell_command(name, "forget")))
    return remedies


def list_losses(status: Status, totals: Mapping[dt.date, int], first: dt.date) -> list[Remedy]:
    """List the days since `first` that lost a large share of the rows, or of a column's values.

    `totals` are the numbers of rows at the end of each day.
    """
    found: list[tuple[dt.date, str]] = []
    for (_, before), (date, after) in pairwise(totals.items()):
        if date >= first and before - after >= max(FEW_LOST, LARGE * before):
            found.append((date, f"{status.dataset} fell from {before:,} to {after:,} rows"))
    large = max(FEW_LOST, LARGE * max(totals.values(), default=0))
    for marker in (marker for marker in status.loads if marker.date >= first):
        details = marker.details or {}
        lost = {f"{count(n, 'value')} of {column} became null": n for column, n in details.get("nulled", {}).items()}
        lost |= {f"{count(n, 'row')} of {table} were removed": n for table, n in details.get("removed", {}).items()}
        found += [(marker.date, why) for why, number in lost.items() if number >= large]
    return [Remedy("lost", 1, str(date), why, WRONG_SOURCE) for date, why in sorted(found, reverse=True)[:NEWEST]]


def summarize(status: Status, remedies: Sequence[Remedy]) -> tuple[str, str]:
    """Return the worst state, and the headline."""
    if not remedies:
        return ("loaded", "All is well") if status.loads else ("open", "Nothing is loaded yet")
    days: Counter[str] = Counter()
    for remedy in remedies:
        days[remedy.state] += remedy.number
    lost = [f"{remedy.why} on {remedy.days}" for remedy in remedies if remedy.state == "lost"]
    parts = [f"{count(number, 'day')} {state}" for state, number in days.items() if number and state != "lost"]
    parts += [*lost[:LOSSES], *([f"{len(lost) - LOSSES} more losses"] if len(lost) > LOSSES else [])]
    return remedies[0].state, ", ".join(parts or [remedies[0].why])


def build_months(status: Status, states: dict[dt.date, State]) -> list[Month]:
    """Build the newest months up to the last closed day, oldest first. None is before the first known day."""
    if not states:
        return []
    markers = {marker.date: marker for marker in status.loads}
    first, month = min(states), max(status.last_closed, *states).replace(day=1)

    def build_cell(day: dt.date) -> Cell | None:
        state = states.get(day, "open" if day > status.last_closed else None)
        if day.month != month.month or not state:
            return None
        words = [STATES[state]]
        if marker := markers.get(day):
            words += [count(marker.extracted, "record"), f"{marker.rejected:,} rejected"]
        return Cell(day, state, f"{day}: {', '.join(words)}")

    months: list[Month] = []
    while len(months) < MONTHS and month >= first.replace(day=1):
        weeks = calendar.Calendar().monthdatescalendar(month.year, month.month)
        rows = [list(map(build_cell, week)) for week in weeks]
        months.append(Month(f"{month:%B %Y}", list(filter(any, rows))))
        month = (month - DAY).replace(day=1)
    return months[::-1]


def build_charts(status: Status, days: list[dt.date]) -> list[Chart]:
    """Build the charts of some days."""
    from wholeday.commands.charts import Layer, draw_bars  # matplotlib logs while it is imported

    markers = {marker.date: marker for marker in status.loads}

    def draw(title: str, **layers: tuple[str, Callable[[Marker], float]]) -> Chart:
        values = [[read(markers[day]) if day in markers else None for day in days] for _, read in layers.values()]
        colours = [colour for colour, _ in layers.values()]
        svg = draw_bars(f"{status.dataset} {title}", days, list(map(Layer, colours, values)))
        medians, most = ([_format_value(find, row) for row in values] for find in (median, max))
        caption = "median " + ", ".join(f"{value} {name}" for value, name in zip(medians, layers, strict=True))
        if len(layers) == 1:
            caption = f"median {medians[0]}, at most {most[0]}"
        if markers.keys().isdisjoint(days):
            caption = "no day of this range is loaded"
        ranges = "; ".join(f"{name} {a}, at most {b}" for name, a, b in zip(layers, medians, most, strict=True))
        not_loaded = count(sum(day not in markers for day in days), "day")
        words = f"{title}, {days[0]} to {days[-1]}. Medians: {ranges}. {not_loaded} not loaded."
        legend = dict(zip(layers, colours, strict=True)) if len(layers) > 1 else {}
        return Chart(title, caption, legend, words, svg)

    def read_seconds(marker: Marker) -> float:
        return max(0.0, (marker.extracted_at - marker.started_at).total_seconds())

    return [
        draw("Records per day", records=("main", lambda marker: marker.extracted)),
        draw(
            "Changes per day",
            new=("main", lambda marker: marker.inserted),
            updated=("second", lambda marker: marker.updated),
            deleted=("third", lambda marker: -marker.deleted - marker.vanished),
        ),
        draw("Rejects per day", rejected=("third", lambda marker: marker.rejected)),
        draw("Seconds per day", extract=("main", read_seconds), load=("second", lambda marker: marker.seconds)),
    ]


def _format_value(find: Callable[[Any], float], values: Values) -> str:
    """Format a figure of the known values, such as their median, as 1,204, 12 or 0.94."""
    number = find([abs(value) for value in values if value is not None] or [0])
    return f"{number:,.0f}" if number >= 10 or number == round(number) else f"{number:.2g}"


def draw_growth(name: str, first: dt.date, totals: list[int]) -> Chart:
    """Draw the number of rows at the end of each day."""
    from wholeday.commands.charts import Layer, draw_line

    days = list_span(first, first + len(totals) * DAY)
    caption = f"from {totals[0]:,} to {totals[-1]:,} since {first}"
    svg = draw_line(f"{name} total", days, Layer("main", totals))
    title = f"Total {name}"
    return Chart(title, caption, {}, f"{title}: {caption}.", svg)


def accumulate(growth: dict[dt.date, int], first: dt.date, last: dt.date) -> list[int]:
    """Return the totals at the end of each day from `first` to `last`, or to the last change."""
    days = list_span(first, max(last, *growth, first) + DAY)
    total = sum(change for day, change in growth.items() if day < first)
    totals = []
    for day in days:
        total += growth.get(day, 0)
        totals.append(total)
    return totals


def command(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help=FILE)] = None,
    days: Annotated[int, typer.Option(min=1, help="How many of the newest days the charts show.")] = 90,
) -> bool:
    """Write the page, and print where it is."""
    with open_workspaces(context) as workspaces:
        place = write_report(workspaces, file, days, context.obj.dataset)
    open_console().print(f"{place}: open it in a browser")
    return True
