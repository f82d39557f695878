"""Load a day: from its clean folder into the warehouse, in one transaction."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec
import tenacity

from wholeday import clock
from wholeday.errors import FolderError, InterruptedTransactionError, QualityError
from wholeday.load.clean_day import CleanDay
from wholeday.load.warehouse import open_warehouse
from wholeday.log import logger, set_load
from wholeday.schema.marker import Marker
from wholeday.schema.reject import Reject
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import CleanManifest, Part, RawManifest
from wholeday.storage.parquet import open_rows
from wholeday.storage.tombstones import Finder
from wholeday.storage.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

COUNTS = (
    *("inserted", "updated", "deleted", "vanished", "reverted"),
    *("unchanged", "superseded", "duplicate", "rejected", "forgotten"),
)
"""The counts of a marker, in display order."""

ROWS_AT_ONCE = 10_000  # rows in one batch
ATTEMPTS = 3  # of a load that breaks off


def load_day(workspace: Workspace, date: dt.date) -> None:
    """Load the clean folder of `date`: rows, rejects and marker in one transaction.

    Raises WarehouseError, FolderError, QualityError.
    """
    with workspace.folder("clean", date).lock():  # against transform and forget
        marker = _load(workspace, date)
    logger.info("%s %s: %s", workspace.name, date, describe_load(marker))


LOSSES = {"nulled": "nulled", "absent": "absent", "removed": "child rows removed"}
"""The details of a marker that say what a day lacks, besides rows of the dataset."""


def describe_load(*markers: Marker) -> str:
    """Describe what the loads of these markers did: `loaded, 97 inserted, 2 superseded; nulled: email 98, city 2`.

    The gates that were let through follow: `; let through: max_drop_ratio`.
    """
    totals = {name: sum(marker.counts[name] for marker in markers) for name in COUNTS}
    counts = ", ".join(f"{total:,} {name}" for name, total in totals.items() if total)
    passed = dict.fromkeys(gate for marker in markers for gate in marker.accepted.split(", ") if gate)
    accepted = f"let through: {', '.join(passed)}" if passed else ""
    return "; ".join(filter(None, [f"loaded, {counts or 'nothing new'}", describe_removed(*markers), accepted]))


def describe_removed(*markers: Marker) -> str:
    """Describe what these days lack besides rows: `nulled: email 98, city 2; child rows removed: orders_lines 3`.

    Empty if there is nothing.
    """
    losses = {kind: Counter[str]() for kind in LOSSES}
    for marker in markers:
        for kind in LOSSES:
            losses[kind].update((marker.details or {}).get(kind, {}))
    return "; ".join(
        f"{LOSSES[kind]}: {', '.join(f'{name} {number:,}' for name, number in found.most_common())}"
        for kind, found in losses.items()
        if found
    )


def _log_retry(state: tenacity.RetryCallState) -> None:
    workspace, date = state.args
    error = state.outcome.exception() if state.outcome else None
    logger.warning("%s %s: %s; loading it again", workspace.name, date, error)


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(InterruptedTransactionError),
    stop=tenacity.stop_after_attempt(ATTEMPTS),
    wait=tenacity.wait_random(0, 1),  # two loads may have met in a deadlock
    before_sleep=_log_retry,
    reraise=True,
)
def _load(workspace: Workspace, date: dt.date) -> Marker:
    return open_warehouse(workspace).load(read_to_load(workspace, date), accept=workspace.settings.accept)


def read_to_load(workspace: Workspace, date: dt.date) -> CleanDay:
    """Read a clean day as `read_clean` does. Raises QualityError if the clock was ahead when it was extracted."""
    clean = read_clean(workspace, date)
    day = clean.draft
    latest = max(day.started_at, day.extracted_at, day.as_of)
    if clock.is_future(latest):
        raise QualityError(
            f"{workspace.name} {date}: it was extracted at {latest:%Y-%m-%dT%H:%M:%SZ}, which lies in the future. "
            f"Correct the clock of this machine. If the clock was wrong then, delete {workspace.folder('raw', date)} "
            f"and the day's row of loads, then run the day again"
        )
    return clean


def read_clean(workspace: Workspace, date: dt.date) -> CleanDay:
    """Read the manifests of `date`. The parts are read as rows and rejects are consumed."""
    raw, clean = workspace.folder("raw", date), workspace.folder("clean", date)
    read, made = raw.read_manifest(RawManifest), clean.read_manifest(CleanManifest)
    if made.raw_sha256 != read.hashes:
        raise FolderError(f"{clean} does not match {raw}, which was extracted again: run the day again")
    set_load(read.as_of)
    draft = Marker(
        dataset=workspace.name,
        date=date,
        mode=read.mode,
        window_start=read.window_start,
        window_stop=read.window_stop,
        started_at=read.started_at,
        extracted_at=read.extracted_at,
        as_of=read.as_of,
        pages=read.pages,
        source=read.source,
        extracted=read.records,
        rejected=made.rejected,
        forgotten=read.forgotten,
        raw_sha256=read.sha256,
        clean_sha256=made.sha256,
        transform_version=made.transform_version,
        details={"absent": made.absent} if made.absent else {},
        accepted=", ".join([*(verdict.gate for verdict in read.gates if not verdict.passed), *made.accepted]),
    )
    return CleanDay(draft, read_rows(clean, made.parts), read_rejects(workspace, clean, made.rejects))


def read_rows(clean: DayFolder, parts: Iterable[Part]) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of clean parts in batches."""
    for part in parts:
        yield from open_rows(clean.read(part)).iter_batches(ROWS_AT_ONCE)


def read_rejects(workspace: Workspace, clean: DayFolder, parts: Iterable[Part]) -> Iterator[Reject]:
    """Yield the rejects of clean parts.

    A reject without a readable key gets the key of an erased user, if its record names one (`"42"` for 42).
    """
    forgotten = Finder(workspace.conversion.key_readers, workspace.tombstones().keys())
    for part in parts:
        for line in unpack(clean.read(part)):
            reject = msgspec.json.decode(line, type=Reject)
            yield reject if reject.key else msgspec.structs.replace(reject, key=forgotten.name(reject.record))
