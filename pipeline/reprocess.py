"""Days made again from their raw files, without the source: one by one in place, or the whole warehouse at once.

Owns which days are stale, and what becomes of each day that is asked for. Refuses the source: a day without raw
files is named and left to its Load task.
"""

import datetime as dt
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pipeline import stages
from pipeline.config import Pipeline
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, FolderError, PipelineError
from pipeline.targets import CleanManifest, RawManifest, digest, list_days


class Outcome(NamedTuple):
    """What became of a day, and why: it was made again, is current as it is, has no raw files, or failed."""

    date: dt.date
    what: Literal["done", "current", "missing", "failed"]
    why: str


def find_stale(dataset: Dataset) -> dict[dt.date, str]:
    """The days with raw files that are not loaded as the code of today makes them of these, and why; oldest first."""
    markers = {marker["date"]: marker for marker in dataset.warehouse().loads()}
    reasons = {date: _find_reason(dataset, date, markers.get(date)) for date in _list_raw(dataset)}
    return {date: reason for date, reason in reasons.items() if reason}


def reprocess(dataset: Dataset, start: dt.date, stop: dt.date, everything: bool = False) -> Iterator[Outcome]:
    """Make the stale days from `start` to the day before `stop` again, the oldest first, or with `everything` each.

    A day that fails does not keep the others from being made: what became of each is told as it happens.
    """
    if start >= stop:
        raise ConfigError(f"STOP {stop} is not after START {start}: it is the day after the last one")
    stale = find_stale(dataset)
    for date in (start + dt.timedelta(days=n) for n in range((stop - start).days)):
        if not dataset.folder("raw", date).exists():
            yield Outcome(date, "missing", "there are no raw files: its Load task reads them from the source")
        elif date not in stale and not everything:
            yield Outcome(date, "current", "loaded as the code of today makes it")
        else:
            try:
                _clean(dataset, date, everything)
                stages.load_day(dataset, date)
                yield Outcome(date, "done", stale.get(date, "asked for"))
            except PipelineError as error:
                yield Outcome(date, "failed", str(error))


def rebuild(dataset: Dataset, drop_missing: bool = False) -> list[Outcome]:
    """Make the warehouse of the dataset anew of all days with raw files, and put it in the old one's place at once.

    Raises PipelineError, and leaves the old one, where a day that is loaded has no raw files (unless `drop_missing`)
    or cannot be made again. A day that was never loaded and cannot be is told, and left out.
    """
    warehouse, days = dataset.warehouse(), _list_raw(dataset)
    if not days:
        folder, _, _ = str(dataset.folder("raw", dt.date.min)).rpartition("/")
        raise FolderError(f"{folder}: no day has raw files to rebuild from")
    if not drop_missing:
        warehouse.check_kept(days)
    loaded = {marker["date"] for marker in warehouse.loads()}
    loads, outcomes = [], []
    for date in days:
        try:
            _clean(dataset, date)
            loads.append(stages.read_clean(dataset, date))
            outcomes.append(Outcome(date, "done", "made anew"))
        except PipelineError as error:
            if date in loaded:
                raise
            outcomes.append(Outcome(date, "failed", str(error)))
    warehouse.rebuild(sorted(loads, key=lambda load: load[0].as_of), drop_missing)
    return outcomes


def _clean(dataset: Dataset, date: dt.date, everything: bool = False) -> None:
    """Make the clean folder again where it is not current, alone among all processes, as a Transform task does."""
    with dataset.folder("clean", date).lock():
        if everything or not stages.is_current(dataset, date):
            stages.transform_day(dataset, date)


def _list_raw(dataset: Dataset) -> list[dt.date]:
    """The days that have all of their raw files, the oldest first."""
    days = list_days(Pipeline().data_dir, "raw", dataset.name)
    return [date for date in reversed(days) if dataset.folder("raw", date).exists()]


def _find_reason(dataset: Dataset, date: dt.date, marker: dict[str, Any] | None) -> str | None:
    """Why a day with raw files is stale; None where it is not."""
    if not marker:
        return "not loaded"
    if marker["transform_version"] != dataset.version:
        return "made by other code"
    try:
        if not stages.is_current(dataset, date):
            return "its clean files are not what the code of today makes of its raw files"
        raw = dataset.folder("raw", date).read_manifest(RawManifest)
        clean = dataset.folder("clean", date).read_manifest(CleanManifest)
    except FolderError as error:
        return str(error)
    files = {
        "raw_sha256": digest(raw.parts),
        "clean_sha256": digest([*clean.parts, *clean.rejects]),
        "as_of": raw.as_of,
    }
    return None if marker | files == marker else "loaded from other files"
