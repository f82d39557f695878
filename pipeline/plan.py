"""What a backfill of some days would do, and what that would cost, by what earlier days cost.

Owns the state of each day and the estimate. Refuses to run anything, and to ask the source.
"""

import datetime as dt
import statistics
from typing import Any, Literal, NamedTuple

from pipeline import config, stages
from pipeline.dataset import Dataset
from pipeline.days import list_span
from pipeline.errors import FolderError
from pipeline.reprocess import find_stale

LEARN_FROM = 30  # days: the newest of the same mode
AT_ONCE = dt.timedelta(hours=1)  # a day that is loaded later than that was read by another run


class Step(NamedTuple):
    """What is to be done for a day, and why.

    `read`: everything; `clean`: all but reading; `load`: that alone; `reprocess`: nothing by a backfill, which takes it
    as loaded; `nothing`: it is loaded; `wait`: it is not closed.
    """

    date: dt.date
    what: Literal["read", "clean", "load", "reprocess", "nothing", "wait"]
    why: str


class Cost(NamedTuple):
    """What the median of the newest loaded days cost, and of how many: requests, and seconds from first to last."""

    of: int
    pages: float
    seconds: float


def plan(dataset: Dataset, start: dt.date, stop: dt.date) -> list[Step]:
    """A step for each day from `start` to the day before `stop`, the oldest first."""
    days = list_span(start, stop)
    last_closed = dataset.config().last_closed_day(config.utc_now())
    loaded = {marker["date"] for marker in dataset.warehouse().loads()}
    stale = find_stale(dataset)
    return [_plan_day(dataset, day, day in loaded, stale.get(day), last_closed) for day in days]


def _plan_day(dataset: Dataset, date: dt.date, loaded: bool, stale: str | None, last_closed: dt.date) -> Step:
    if loaded:
        return Step(date, "reprocess", f"stale, {stale}") if stale else Step(date, "nothing", "loaded")
    if date > last_closed:
        return Step(date, "wait", f"not closed; the newest day that is: {last_closed}")
    if not dataset.folder("raw", date).exists():
        return Step(date, "read", "missing")
    try:
        current = stages.is_current(dataset, date)
    except FolderError as error:
        return Step(date, "clean", str(error))
    return Step(date, "load", "read and cleaned") if current else Step(date, "clean", "read")


def find_cost(dataset: Dataset) -> Cost | None:
    """What a day costs, as the markers of the newest loaded days say; None where none says anything."""
    mode = dataset.config().mode
    markers = [marker for marker in dataset.warehouse().loads() if marker["mode"] == mode][-LEARN_FROM:]
    if not markers:
        return None
    pages, seconds = [marker["pages"] for marker in markers], map(_find_seconds, markers)
    return Cost(len(markers), statistics.median(pages), statistics.median(seconds))


def _find_seconds(marker: dict[str, Any]) -> float:
    """How long a day took: of one that was loaded some time after it was read, to read it and to load it."""
    at_once = marker["loaded_at"] - marker["extracted_at"] < AT_ONCE
    until = marker["loaded_at"] if at_once else marker["extracted_at"] + dt.timedelta(seconds=marker["seconds"])
    return float((until - marker["started_at"]).total_seconds())
