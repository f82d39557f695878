"""The page of `report`: how each dataset stands, as one HTML file that needs nothing else, and no network.

Owns what stands on it, and in which order: first whether all is well, then what to do, then the days and their charts.
Refuses to find anything out that status does not say, but for how the table grew; and to trust a text: whatever came
from a source, a file or an error is escaped, and the page's policy lets no script run and nothing be asked for.
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

from wholeday.commands.charts import Layer, draw_bars, draw_line
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_datasets
from wholeday.commands.status import DAY, STATES, State, Status, find_status, name_newest, tell_command, tell_span
from wholeday.load.day import COUNTS, describe_removed
from wholeday.load.warehouse import open_warehouse
from wholeday.log import count
from wholeday.schema.marker import Marker
from wholeday.storage.backends import open_storage
from wholeday.storage.workspace import Workspace
from wholeday.tasks.days import list_span
from wholeday.tasks.failures import Failure, build_page_name
from wholeday.tasks.workflow import spell_command

MONTHS = 12  # of the calendar
NEWEST = 14  # loads, and failures, that are named
REASONS = 12  # for rejects
LARGE = 0.3  # the share of the rows, or of a column's values, whose loss is told first
FEW_LOST = 5  # rows or values; so few may go
LOSSES = 2  # in the headline
PAST = "not loaded, and past snapshots cannot be fetched again"
LOST = "docs/operating.md, a day was read while the source was wrong"

Values = list[float | None]


class Remedy(NamedTuple):
    """What is not well, of how many days and which, and the command that mends it."""

    state: "State | Literal['lost']"
    number: int
    days: str
    why: str
    command: str
    """Empty if nothing can be done."""


class Chart(NamedTuple):
    """A picture with its title, what it says in a line, the names of its colours, and what it shows in words."""

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
    """A month of the calendar: weeks from Monday on; None is a day of another month, or before all that are known."""

    name: str
    weeks: list[list[Cell | None]]


class Sheet(NamedTuple):
    """All that the page says of one dataset."""

    status: Status
    grade: str
    headline: str
    remedies: list[Remedy]
    figures: dict[str, str]
    months: list[Month]
    states: Counter[State]
    charts: list[Chart]
    shown: str
    """The days of the charts."""
    healed: list[Failure]


def write_report(workspaces: Sequence[Workspace], file: Path | None, days: int, only: str | None = None) -> str:
    """Write the page, at once, with charts of the newest `days`: into a file, or into data_dir. Returns its place.

    In data_dir the page is `report.html`, or `report-orders.html` where it shows `only` the dataset `orders`.
    Raises ConfigError, FolderError, WarehouseError.
    """
    sheets = [make_sheet(workspace, days) for workspace in workspaces]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["command"] = spell_command
    environment.filters["removed"] = describe_removed
    environment.filters["span"] = lambda seconds: tell_span(dt.timedelta(seconds=seconds))
    environment.filters["time"] = lambda time: f"{time:%Y-%m-%d %H:%M} UTC"
    template = environment.from_string(Path(__file__).with_name("report.html").read_text("utf-8"))
    page = template.render(sheets=sheets, words=STATES, counts=COUNTS, newest=NEWEST, reasons=REASONS)
    settings = workspaces[0].pipeline
    storage = open_storage("" if file else settings.data_dir, settings.is_private)
    path = file or storage.root / build_page_name(only)
    storage.replace(path, page.encode())
    return storage.show(path)


def make_sheet(workspace: Workspace, number: int) -> Sheet:
    """What the page says of a dataset, with charts of the newest `number` of days."""
    status = find_status(workspace)
    states, losses = status.find_states(), list[Remedy]()
    figures, charts, shown = {}, [], ""
    if status.first and status.newest:
        first = max(status.first, status.last_closed - dt.timedelta(days=number - 1))
        days = list_span(first, max(status.last_closed, status.newest) + DAY)
        totals = add_up(open_warehouse(workspace).compute_growth(), status.first, status.newest)
        charts = [*make_charts(status, days), draw_growth(workspace.name, status.first, totals)]
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
    grade, headline = judge(status, remedies)
    healed = [failure for failure in status.failures if failure.date not in status.failed][:NEWEST]
    return Sheet(
        status, grade, headline, remedies, figures, make_months(status, states), Counter(states.values()), charts,
        shown, healed,
    )  # fmt: skip


def list_remedies(status: Status, losses: Sequence[Remedy] = ()) -> list[Remedy]:
    """What is to be done, the gravest first, with these `losses`. Nothing can be done for a snapshot not taken."""
    name, failed = status.dataset, status.open_failures

    def mend(state: State, days: Sequence[dt.date], why: str, command: str = "backfill") -> Remedy:
        return Remedy(state, len(days), name_newest(days), why, tell_command(name, command, days))

    missing = [date for date in status.wanted if date not in status.failed]
    past = [date for date in status.missing if date not in {*status.wanted, *status.failed}]
    lacking = {*status.missing, *status.failed}
    outdated = {date: why for date, why in status.outdated.items() if date not in lacking}
    older = [failure.date for failure in failed[NEWEST:]]
    remedies = [
        *([_mend_future(status.future)] if status.future else []),
        *(mend("failed", [failure.date], f"{failure.stage}: {failure.line}") for failure in failed[:NEWEST]),
        *(
            [mend("failed", older, f"before these: {spell_command(name, 'status', '--json')} tells why")]
            if older
            else []
        ),
        *([mend("missing", missing, "not loaded")] if missing else []),
        *([Remedy("missing", len(past), name_newest(past), PAST, "")] if past else []),
        *losses,
        *(
            mend("outdated", [date for date, reason in outdated.items() if reason == why], why, "reprocess")
            for why in dict.fromkeys(outdated.values())
        ),
    ]
    if status.unforgotten:
        keys = count(status.unforgotten, "key")
        remedies.append(
            Remedy("outdated", 0, "every day", f"{keys} not wholly forgotten", spell_command(name, "forget"))
        )
    return remedies


def _mend_future(days: Sequence[dt.date]) -> Remedy:
    why = "read under a clock that was ahead: what is loaded later may change nothing"
    return Remedy("failed", len(days), name_newest(days), why, "docs/operating.md, A wrong clock")


def list_losses(status: Status, totals: Mapping[dt.date, int], first: dt.date) -> list[Remedy]:
    """List the days since `first` on which a large share of the rows, or of a column's values, was lost.

    `totals` are the rows at the end of each day.
    """
    found: list[tuple[dt.date, str]] = []
    for (_, before), (date, after) in pairwise(totals.items()):
        if date >= first and before - after >= max(FEW_LOST, LARGE * before):
            found.append((date, f"{status.dataset} fell from {before:,} to {after:,} rows"))
    for marker in status.loads:
        for column, number in (marker.details or {}).get("nulled", {}).items():
            if marker.date >= first and number >= max(FEW_LOST, LARGE * max(totals.values())):
                found.append((marker.date, f"{count(number, 'value')} of {column} became null"))
    return [Remedy("lost", 1, str(date), why, LOST) for date, why in sorted(found, reverse=True)[:NEWEST]]


def judge(status: Status, remedies: Sequence[Remedy]) -> tuple[str, str]:
    """The gravest state, and the verdict in words."""
    if not remedies:
        return ("loaded", "All is well") if status.loads else ("open", "Nothing is loaded yet")
    days: Counter[str] = Counter()
    for remedy in remedies:
        days[remedy.state] += remedy.number
    lost = [f"{remedy.why} on {remedy.days}" for remedy in remedies if remedy.state == "lost"]
    told = [f"{count(number, 'day')} {state}" for state, number in days.items() if number and state != "lost"]
    told += [*lost[:LOSSES], *([f"{len(lost) - LOSSES} more losses"] if len(lost) > LOSSES else [])]
    return remedies[0].state, ", ".join(told or [remedies[0].why])


def make_months(status: Status, states: dict[dt.date, State]) -> list[Month]:
    """The newest months, up to that of the last closed day, none before the first day that is known; oldest first."""
    if not states:
        return []
    markers = {marker.date: marker for marker in status.loads}
    first, month = min(states), max(status.last_closed, *states).replace(day=1)

    def make_cell(day: dt.date) -> Cell | None:
        state = states.get(day, "open" if day > status.last_closed else None)
        if day.month != month.month or not state:
            return None
        told = [STATES[state]]
        if marker := markers.get(day):
            told += [count(marker.extracted, "record"), f"{marker.rejected:,} rejected"]
        return Cell(day, state, f"{day}: {', '.join(told)}")

    months: list[Month] = []
    while len(months) < MONTHS and month >= first.replace(day=1):
        weeks = calendar.Calendar().monthdatescalendar(month.year, month.month)
        rows = [list(map(make_cell, week)) for week in weeks]
        months.append(Month(f"{month:%B %Y}", list(filter(any, rows))))
        month = (month - DAY).replace(day=1)
    return months[::-1]


def make_charts(status: Status, days: list[dt.date]) -> list[Chart]:
    """What came with these days."""
    markers = {marker.date: marker for marker in status.loads}

    def draw(title: str, **layers: tuple[str, Callable[[Marker], float]]) -> Chart:
        values = [[read(markers[day]) if day in markers else None for day in days] for _, read in layers.values()]
        colours = [colour for colour, _ in layers.values()]
        svg = draw_bars(f"{status.dataset} {title}", days, list(map(Layer, colours, values)))
        medians, most = ([_tell(find, row) for row in values] for find in (median, max))
        caption = "median " + ", ".join(f"{value} {name}" for value, name in zip(medians, layers, strict=True))
        if len(layers) == 1:
            caption = f"median {medians[0]}, at most {most[0]}"
        if markers.keys().isdisjoint(days):
            caption = "none of these days is loaded"
        told = "; ".join(f"{name} {a}, at most {b}" for name, a, b in zip(layers, medians, most, strict=True))
        lost = count(sum(day not in markers for day in days), "day")
        words = f"{title}, {days[0]} to {days[-1]}. Median of {told}. {lost} not loaded."
        legend = dict(zip(layers, colours, strict=True)) if len(layers) > 1 else {}
        return Chart(title, caption, legend, words, svg)

    def read_seconds(marker: Marker) -> float:
        return max(0.0, (marker.extracted_at - marker.started_at).total_seconds())

    return [
        draw("Records a day", records=("main", lambda marker: marker.extracted)),
        draw(
            "What they changed",
            new=("main", lambda marker: marker.inserted),
            updated=("second", lambda marker: marker.updated),
            deleted=("third", lambda marker: -marker.deleted - marker.vanished),
        ),
        draw("Rejected a day", rejected=("third", lambda marker: marker.rejected)),
        draw("Seconds a day", reading=("main", read_seconds), loading=("second", lambda marker: marker.seconds)),
    ]


def _tell(find: Callable[[Any], float], values: Values) -> str:
    """One number for all those that are known: 1,204, 12 or 0.94."""
    number = find([abs(value) for value in values if value is not None] or [0])
    return f"{number:,.0f}" if number >= 10 or number == round(number) else f"{number:.2g}"


def draw_growth(name: str, first: dt.date, totals: list[int]) -> Chart:
    """How many rows the table had at the end of each day."""
    days = list_span(first, first + len(totals) * DAY)
    caption = f"from {totals[0]:,} to {totals[-1]:,} since {first}"
    svg = draw_line(f"{name} total", days, Layer("main", totals))
    title = f"All {name}"
    return Chart(title, caption, {}, f"{title}: {caption}.", svg)


def add_up(growth: dict[dt.date, int], first: dt.date, last: dt.date) -> list[int]:
    """The totals at the end of each day from `first` to `last`, or the last change."""
    days = list_span(first, max(last, *growth, first) + DAY)
    total = sum(change for day, change in growth.items() if day < first)
    totals = []
    for day in days:
        total += growth.get(day, 0)
        totals.append(total)
    return totals


def command(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="Where to write it (default: in data_dir, report.html, or report-NAME.html with --dataset NAME).",
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How many of the newest days the charts show.")] = 90,
) -> bool:
    """Write the page, and print where it is."""
    with open_datasets(context) as loads:
        place = write_report([load.workspace() for load in loads], file, days, context.obj.dataset)
    open_console().print(f"{place}: open it in a browser", soft_wrap=True)
    return True
