"""The second and the third stage of a day as plain functions: transform and load.

Owns the order of things in a stage. How a record is cleaned and a row merged is the business of transform and
warehouse; when a stage runs is Luigi's. The libraries of a stage are imported when it runs.
"""

import datetime as dt
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import tenacity

from wholeday import clock
from wholeday.config.settings import Pipeline
from wholeday.errors import BrokenOffError, DatasetError, FolderError, PipelineError, QualityError
from wholeday.extract import gates
from wholeday.log import count, logger, name_load
from wholeday.schema.record import make_example
from wholeday.schema.tables import Declared
from wholeday.storage.lines import pack, unpack
from wholeday.storage.parquet import encode_rows, open_rows
from wholeday.storage.targets import CleanManifest, DayFolder, Part, Presence, RawManifest
from wholeday.storage.tombstones import Finder, Tombstones
from wholeday.tasks.dataset import Dataset
from wholeday.transform.kinds import to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

    from wholeday.extract.reader import Reading
    from wholeday.load.staging import Reject
    from wholeday.load.warehouse import Load

# Arrow's own allocator keeps what was freed, 30 MB a process.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

COUNTS = (
    *("inserted", "updated", "deleted", "vanished", "reverted"),
    *("unchanged", "stale", "duplicate", "rejected", "forgotten"),
)
ROWS_AT_ONCE = 10_000  # rows handed to the warehouse at a time
LOADS = 3  # how often a load that breaks off is tried


class PartJob(NamedTuple):
    """A raw part to transform: all that a process of its own needs to know."""

    dataset: Dataset
    declared: Declared
    raw: DayFolder
    clean: DayFolder
    number: int
    part: Part
    deleted_when: str
    timezone: str


class PartResult(NamedTuple):
    """What became of a raw part: its clean part, its rejects where there are any, and how many of which reason."""

    clean: Part
    rejects: Part | None
    reasons: Counter[str]
    fields: dict[str, tuple[int, int]]
    """By field: how many records could have it, and how many do."""


def transform_day(dataset: Dataset, date: dt.date, engine: str | None = None) -> None:
    """Make the clean folder of `date` from its raw folder, part by part, with an engine or with the configured one.

    The clean files that are there stay until the new ones are complete, and for good where this fails. Raises
    QualityError where too many records are rejected, DatasetError, FolderError.
    """
    raw, clean = dataset.folder("raw", date), dataset.folder("clean", date)
    manifest = raw.read_manifest(RawManifest)
    name_load(manifest.as_of)
    clean.begin()
    settings = Pipeline()
    spark_master = settings.spark_master if (engine or settings.engine) == "spark" else ""
    try:
        results = transform_parts(dataset, raw, manifest.parts, clean, spark_master)
    except PipelineError:
        if clean.exists():
            clean.discard()
        raise
    reasons = sum((result.reasons for result in results), Counter[str]())
    records = manifest.records - manifest.forgotten
    accepted = _check_rejects(dataset, clean, records, reasons)
    fields = {
        name: Presence(*map(sum, zip(*(result.fields[name] for result in results), strict=True)))
        for name in (results[0].fields if results else ())
    }
    absent = gates.find_absent(dataset, date, fields)
    accepted += _check_fields(dataset, manifest, raw, clean, absent)
    clean.publish(
        CleanManifest(
            dataset=dataset.name,
            date=date,
            raw_sha256=[part.sha256 for part in manifest.parts],
            transform_version=dataset.version,
            rows=sum(result.clean.records for result in results),
            rejected=reasons.total(),
            reasons=dict(sorted(reasons.items())),
            accepted=accepted,
            parts=[result.clean for result in results],
            rejects=[result.rejects for result in results if result.rejects],
            fields=fields,
            absent={found.field: fields[found.field].records for found in absent},
        )
    )
    rows, rejects = records - reasons.total(), reasons.total()
    logger.info("%s %s: cleaned, %s, %s", dataset.name, date, count(rows, "row"), count(rejects, "reject"))


def preparing(dataset: Dataset) -> "Callable[[Reading], None]":
    """A function to call after each page: it checks `clean` after the first one, and prepares for a large day.

    The processes that transform a large day start while it is read. They check `clean` too, so that this process,
    whose memory is needed for the load, does not import pandas.
    """
    from wholeday.transform import engine

    settings, is_large = Pipeline(), False
    check = functools.partial(check_clean, dataset, dataset.config().deleted_when)
    look: Callable[[], None] | None = None

    def tell(reading: "Reading") -> None:
        nonlocal is_large, look
        records = max(reading.records, reading.total or 0)
        parts = -(-records // settings.part_records)
        if not is_large and engine.count_workers(settings.engine_workers, parts) > 1:
            engine.prepare(_name_imports(dataset))
            is_large = True
        if look is None:
            look = engine.start(check) if is_large else check
        look()

    return tell


@functools.cache
def check_clean(dataset: Dataset, deleted_when: str) -> None:
    """Clean no record, then an invented one; raises DatasetError if the columns are not those of the table."""
    from wholeday.transform.rows import transform

    declared = dataset.check()
    for lines in ([], [make_example(dataset.record_class)]):
        try:
            rows, _ = transform(lines, dataset.record_class, dataset.clean, tuple(declared.key), deleted_when)
        except DatasetError:
            if lines:  # no source need send such values: the true records tell
                return
            raise
        to_arrow(rows, declared.key | declared.row, invented=True)


def transform_parts(
    dataset: Dataset, raw: DayFolder, parts: Iterable[Part], clean: DayFolder, spark_master: str = ""
) -> list[PartResult]:
    """Write into the folder `clean` what the code of today makes of the parts of `raw`; on Spark if a master is given.

    Where `clean` is a folder that other machines do not share, none may be given.
    """
    from wholeday.transform.engine import map_parts

    settings, declared = dataset.config(), dataset.check()
    rules = settings.deleted_when, settings.timezone
    jobs = [PartJob(dataset, declared, raw, clean, number, part, *rules) for number, part in enumerate(parts)]
    return map_parts(transform_part, jobs, Pipeline().engine_workers, _name_imports(dataset), spark_master)


def _name_imports(dataset: Dataset) -> list[str]:
    """The modules of which `transform_part` has need."""
    return [__name__, "wholeday.transform.rows", "pyarrow.parquet", dataset.record_class.__module__]


def transform_part(job: PartJob) -> PartResult:
    """Write the clean part and the rejects of one raw part."""
    from wholeday.transform.rows import transform_and_count

    lines, declared, dataset = unpack(job.raw.read(job.part)), job.declared, job.dataset
    rules = job.deleted_when, job.timezone
    rows, rejects, fields = transform_and_count(lines, dataset.record_class, dataset.clean, tuple(declared.key), *rules)
    table = to_arrow(rows, declared.key | declared.row)
    clean = job.clean.write(f"part-{job.number:05d}.parquet", [(len(rows), encode_rows(table))])
    kept = None
    if rejects:
        day = {"date": job.raw.date, "part": job.number}
        kept = job.clean.write(
            f"rejects-{job.number:05d}.jsonl.gz",
            pack([msgspec.json.encode(day | reject._asdict())] for reject in rejects),
        )
    return PartResult(clean, kept, Counter(reject.describe() for reject in rejects), fields)


def is_current(dataset: Dataset, date: dt.date) -> bool:
    """Whether raw and clean folder of `date` are there, and clean is what the code of today makes of raw."""
    raw = dataset.folder("raw", date)
    return raw.exists() and bool(
        read_current(raw.read_manifest(RawManifest), dataset.folder("clean", date), dataset.version)
    )


def read_current(raw: RawManifest, clean: DayFolder, version: str) -> CleanManifest | None:
    """The clean manifest, where it is there and is what the code `version` makes of the raw day; else None."""
    if not clean.exists():
        return None
    try:
        manifest = clean.read_manifest(CleanManifest)
    except FolderError:  # of an older shape, or damaged: it can be made again
        return None
    made = [part.sha256 for part in raw.parts], version
    return manifest if (manifest.raw_sha256, manifest.transform_version) == made else None


def load_day(dataset: Dataset, date: dt.date) -> None:
    """Bring the clean folder of `date` into the warehouse: rows, rejects and marker in one transaction.

    Raises WarehouseError, FolderError.
    """
    with dataset.folder("clean", date).lock():  # for as long as it is read, nobody may make it again, or forget
        marker = _load(dataset, date)
    logger.info("%s %s: %s", dataset.name, date, tell_loaded(marker))


def tell_loaded(*markers: dict[str, Any]) -> str:
    """Describe what the loads of these markers did: `loaded, 97 inserted, 2 stale; nulled: email 98, city 2`.

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
def _load(dataset: Dataset, date: dt.date) -> dict[str, Any]:
    return dataset.warehouse().load(*read_to_load(dataset, date), accept=dataset.config().accept)


def read_to_load(dataset: Dataset, date: dt.date) -> "Load":
    """Read a clean day as `read_clean` does. Raises QualityError where it was read under a clock that was ahead."""
    load = read_clean(dataset, date)
    latest = max(load[0].started_at, load[0].extracted_at, load[0].as_of)
    if clock.is_future(latest):
        raise QualityError(
            f"{dataset.name} {date}: it was read at {latest:%Y-%m-%dT%H:%M:%SZ}, which lies in the future: correct the "
            f"clock of this machine; if the clock was wrong then, delete {dataset.folder('raw', date)} and the day's "
            f"row of loads, and run the day again"
        )
    return load


def read_clean(dataset: Dataset, date: dt.date) -> "Load":
    """What the folders of `date` bring to the warehouse; the parts are read when they are asked for."""
    from wholeday.load.staging import Day

    raw, clean = dataset.folder("raw", date), dataset.folder("clean", date)
    read, made = raw.read_manifest(RawManifest), clean.read_manifest(CleanManifest)
    if made.raw_sha256 != [part.sha256 for part in read.parts]:
        raise FolderError(f"{clean} was not made of {raw}, which was read anew meanwhile: run the day again")
    name_load(read.as_of)
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
    return day, read_rows(clean, made.parts), read_rejects(dataset, clean, made.rejects)


def _check_rejects(dataset: Dataset, clean: DayFolder, records: int, reasons: Counter[str]) -> list[str]:
    """Raise QualityError where too many records are rejected; where this run is let through, the name of the gate."""
    settings = dataset.config()
    limit = settings.max_reject_ratio
    if reasons.total() / max(records, 1) <= limit:
        return []
    reason, most = reasons.most_common(1)[0]
    what = (
        f"{dataset.name} {clean.date}: {reasons.total()} of {records} records are rejected, more than "
        f"max_reject_ratio {limit}; most often ({most}): {reason}"
    )
    if not settings.accept:
        raise QualityError(
            f"{what}. They are in {clean}/rejects-*: fix the record class or `clean`, or let this run through with "
            f"--{dataset.name}-accept"
        )
    logger.warning("%s: let through by --%s-accept", what, dataset.name)
    return ["max_reject_ratio"]


def _check_fields(
    dataset: Dataset, manifest: RawManifest, raw: DayFolder, clean: DayFolder, absent: Sequence[gates.Absent]
) -> list[str]:
    """Raise QualityError if fields stopped coming; returns the name of the gate if the day is let through.

    The raw files stay, as a mistaken record class can be fixed. A day that was let through once is not failed again.
    """
    if not absent:
        return []
    new = ", ".join(gates.list_new_fields(dataset, raw.date, manifest.unknown_fields)) or "none"
    what = f"{dataset.name} {raw.date}: no record has {', '.join(map(str, absent))}; new fields: {new}"
    if not any(found.is_proven for found in absent):
        logger.warning(
            "%s. With fewer than %d days before it, the gate fields fails a day only for a field that all records had",
            *(what, gates.MEDIAN_FROM),
        )
        return []
    if dataset.config().accept:
        logger.warning("%s: let through by --%s-accept", what, dataset.name)
    elif _is_judged(manifest, clean) or dataset.warehouse().find_marker(raw.date):
        logger.warning("%s: the day was let through before", what)
    else:
        raise QualityError(
            f"{what} (gate fields). If the source renamed them, change the record class and run the day again; if its "
            f"answers were wrong, delete {raw} and run the day again; or let this run through with "
            f"--{dataset.name}-accept"
        )
    return ["fields"]


def _is_judged(raw: RawManifest, clean: DayFolder) -> bool:
    """Whether these raw files became a clean day before."""
    try:
        return clean.exists() and clean.read_manifest(CleanManifest).raw_sha256 == [part.sha256 for part in raw.parts]
    except FolderError:  # of an older shape, or damaged
        return False


def read_rows(clean: DayFolder, parts: Iterable[Part]) -> "Iterator[pa.RecordBatch]":
    """The rows of clean parts, some at a time."""
    for part in parts:
        yield from open_rows(clean.read(part)).iter_batches(ROWS_AT_ONCE)


def read_rejects(dataset: Dataset, clean: DayFolder, parts: Iterable[Part]) -> "Iterator[Reject]":
    """The rejects of clean parts, as the warehouse takes them.

    Where a key could not be read it is that of a forgotten user whom the record names all the same (42 as "42").
    """
    forgotten = Finder(dataset.key, Tombstones(Pipeline().data_dir, dataset.name).keys())
    for part in parts:
        for line in unpack(clean.read(part)):
            reject = msgspec.json.decode(line)
            reject["key"] = reject["key"] or forgotten.name(reject["record"])
            yield tuple(reject[name] for name in ("part", "line", "reason", "field", "key", "record"))
