"""Load a day: from its clean folder into the warehouse, in one transaction."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import tenacity

from wholeday import clock
from wholeday.errors import BrokenOffError, FolderError, QualityError
from wholeday.load.warehouse import open_warehouse
from wholeday.log import logger, set_load
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import CleanManifest, Part, RawManifest
from wholeday.storage.parquet import open_rows
from wholeday.storage.tombstones import Finder, Tombstones
from wholeday.storage.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from wholeday.load.staging import Reject
    from wholeday.load.warehouse import Load


COUNTS = (
    *("inserted", "updated", "deleted", "vanished", "reverted"),
    *("unchanged", "superseded", "duplicate", "rejected", "forgotten"),
)


ROWS_AT_ONCE = 10_000  # rows handed to the warehouse at a time


LOADS = 3  # how often a load that breaks off is tried


def load_day(workspace: Workspace, date: dt.date) -> None:
    """Bring the clean folder of `date` into the warehouse: rows, rejects and marker in one transaction.

    Raises WarehouseError, FolderError.
    """
    with workspace.folder("clean", date).lock():  # for as long as it is read, nobody may make it again, or forget
        marker = _load(workspace, date)
    logger.info("%s %s: %s", workspace.name, date, tell_loaded(marker))


def tell_loaded(*markers: dict[str, Any]) -> str:
    """Describe what the loads of these markers did: `loaded, 97 inserted, 2 superseded; nulled: email 98, city 2`.

    The gates that were let through follow: `; let through: max_drop_ratio`.
    """
    totals = {name: sum(marker[name] for marker in markers) for name in COUNTS}
    counts = ", ".join(f"{total:,} {name}" for name, total in totals.items() if total)
    passed = dict.fromkeys(gate for marker in markers for gate in marker["accepted"].split(", ") if gate)
    accepted = f"let through: {', '.join(passed)}" if passed else ""
    return "; ".join(filter(None, [f"loaded, {counts or 'nothing new'}", describe_removed(*markers), accepted]))


def describe_removed(*markers: dict[str, Any]) -> str:
    """Describe what `details` of these markers says: `nulled: email 98, city 2`; empty if they say nothing."""
    kinds: dict[str, Counter[str]] = {}
    for marker in markers:
        for kind, counts in (marker["details"] or {}).items():
            kinds.setdefault(kind, Counter()).update(counts)
    return "; ".join(
        f"{kind}: {', '.join(f'{name} {number:,}' for name, number in found.most_common())}"
        for kind, found in kinds.items()
    )


def _tell_again(state: tenacity.RetryCallState) -> None:
    dataset, date = state.args
    error = state.outcome.exception() if state.outcome else None
    logger.warning("%s %s: %s; it is loaded again", dataset.name, date, error)


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(BrokenOffError),
    stop=tenacity.stop_after_attempt(LOADS),
    wait=tenacity.wait_random(0, 1),  # two that met, for one
    before_sleep=_tell_again,
    reraise=True,
)
def _load(workspace: Workspace, date: dt.date) -> dict[str, Any]:
    return open_warehouse(workspace).load(*read_to_load(workspace, date), accept=workspace.settings.accept)


def read_to_load(workspace: Workspace, date: dt.date) -> "Load":
    """Read a clean day as `read_clean` does. Raises QualityError where it was read under a clock that was ahead."""
    load = read_clean(workspace, date)
    latest = max(load[0].started_at, load[0].extracted_at, load[0].as_of)
    if clock.is_future(latest):
        raise QualityError(
            f"{workspace.name} {date}: it was read at {latest:%Y-%m-%dT%H:%M:%SZ}, which lies in the future: correct "
            f"the clock of this machine; if the clock was wrong then, delete {workspace.folder('raw', date)} and the "
            f"day's row of loads, and run the day again"
        )
    return load


def read_clean(workspace: Workspace, date: dt.date) -> "Load":
    """What the folders of `date` bring to the warehouse; the parts are read when they are asked for."""
    from wholeday.load.staging import Day

    raw, clean = workspace.folder("raw", date), workspace.folder("clean", date)
    read, made = raw.read_manifest(RawManifest), clean.read_manifest(CleanManifest)
    if made.raw_sha256 != [part.sha256 for part in read.parts]:
        raise FolderError(f"{clean} was not made of {raw}, which was read anew meanwhile: run the day again")
    set_load(read.as_of)
    day = Day(
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
        absent=made.absent,
        accepted=", ".join([*(verdict.gate for verdict in read.gates if not verdict.passed), *made.accepted]),
    )
    return day, read_rows(clean, made.parts), read_rejects(workspace, clean, made.rejects)


def read_rows(clean: DayFolder, parts: Iterable[Part]) -> "Iterator[pa.RecordBatch]":
    """The rows of clean parts, some at a time."""
    for part in parts:
        yield from open_rows(clean.read(part)).iter_batches(ROWS_AT_ONCE)


def read_rejects(workspace: Workspace, clean: DayFolder, parts: Iterable[Part]) -> "Iterator[Reject]":
    """The rejects of clean parts, as the warehouse takes them.

    Where a key could not be read it is that of a forgotten user whom the record names all the same (42 as "42").
    """
    forgotten = Finder(workspace.dataset.key, Tombstones(workspace.pipeline.data_dir, workspace.name).keys())
    for part in parts:
        for line in unpack(clean.read(part)):
            reject = msgspec.json.decode(line)
            reject["key"] = reject["key"] or forgotten.name(reject["record"])
            yield tuple(reject[name] for name in ("part", "line", "reason", "field", "key", "record"))
