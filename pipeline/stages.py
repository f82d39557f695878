"""What a dataset is, and the three stages of its day as plain functions: extract, transform, load.

Owns the order of things in a stage and the gates between them. How an API is read, a record cleaned, a
row merged is the business of source, transform and warehouse; when a stage runs is Luigi's. The libraries
of a stage are imported when it runs: to find out that nothing is to be done costs none of them.
"""

import ast
import datetime as dt
import functools
import hashlib
import inspect
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import luigi
import msgspec
from isal import igzip, isal_zlib

from pipeline import config
from pipeline.config import Pipeline, Source
from pipeline.errors import FolderError, QualityError
from pipeline.logs import logger
from pipeline.placeholders import find_placeholders
from pipeline.source import Reading
from pipeline.targets import CleanManifest, DayFolder, LoadMarker, Part, RawManifest, digest

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy as sa

    from pipeline.transform import Clean
    from pipeline.warehouse import Warehouse

COMPRESSION = 1  # of igzip: the fastest that still finds repetitions
COUNTS = ("inserted", "updated", "deleted", "unchanged", "stale", "duplicate", "rejected", "forgotten")
ROWS_AT_ONCE = 10_000  # rows handed to the warehouse at a time


@dataclass(frozen=True)
class Dataset:
    """A section of luigi.cfg, a contract, a cleaning and a table: all that is particular to the records of an API."""

    config: type[Source]
    contract: type[msgspec.Struct]
    clean: "Clean"
    table: "Callable[[sa.MetaData], sa.Table]"

    @property
    def name(self) -> str:
        return self.config.section

    @functools.cached_property
    def version(self) -> str:
        """A digest of the code that makes rows of records; comments, docstrings and formatting do not change it."""
        module = sys.modules[self.contract.__module__]
        own = ast.parse(inspect.getsource(module))
        own.body = [node for node in own.body if not _is_task(module, node)]
        shared = ast.parse(Path(__file__).with_name("transform.py").read_text())  # not imported: it brings pandas
        return hashlib.sha256(json.dumps([_outline(own), _outline(shared)]).encode()).hexdigest()[:16]

    def folder(self, stage: Any, date: dt.date) -> DayFolder:
        return DayFolder(Pipeline().data_dir, stage, self.name, date)

    def marker(self, date: dt.date) -> LoadMarker:
        return LoadMarker(Pipeline().database, self.name, date)

    def warehouse(self) -> "Warehouse":
        from pipeline.warehouse import Warehouse

        return Warehouse(Pipeline().database, self.name, self.table)


def extract_day(dataset: Dataset, date: dt.date) -> None:
    """Read the source for `date` into its raw folder; the day exists only if all of it came.

    Raises DayNotClosedError, SourceError, QualityError, ConfigError, FolderError.
    """
    settings, folder = dataset.config(), dataset.folder("raw", date)
    started_at = config.utc_now()
    settings.check_closed(date, started_at)
    watermark = dataset.warehouse().watermark_before(date) if "watermark" in find_placeholders(settings) else None
    reading = Reading(settings, date, watermark)
    folder.sweep()
    parts = [
        folder.write(f"part-{number:05d}.jsonl.gz", _compress(lines for _, lines in slices))
        for number, slices in itertools.groupby(_cut(reading, Pipeline().part_records), key=lambda cut: cut[0])
    ]
    wanted = settings.min_records if settings.min_records is not None else int(settings.mode == config.SNAPSHOT)
    if reading.records < wanted:
        raise QualityError(
            f"{dataset.name} {date}: {reading.url} gave {reading.records} records, fewer than min_records {wanted}: "
            f"find out where they went, or let it through with --{dataset.name}-min-records {reading.records}"
        )
    window = settings.window(date)
    folder.publish(
        RawManifest(
            dataset=dataset.name,
            date=date,
            mode=settings.mode,
            window_start=window.start,
            window_stop=window.stop,
            watermark=watermark,
            url=reading.url,
            paginator=reading.paginator,
            started_at=started_at,
            extracted_at=config.utc_now(),
            as_of=started_at - settings.settle,
            pages=reading.pages,
            records=reading.records,
            parts=parts,
        )
    )
    logger.info(
        "%s %s: extracted %s, %s", dataset.name, date, count(reading.records, "record"), count(reading.pages, "page")
    )


class PartJob(NamedTuple):
    """A raw part to transform: all that a process of its own needs to know."""

    dataset: Dataset
    key: tuple[str, ...]
    raw: DayFolder
    clean: DayFolder
    number: int
    part: Part


class PartResult(NamedTuple):
    """What became of a raw part: its clean part, its rejects where there are any, and how many of which reason."""

    clean: Part
    rejects: Part | None
    reasons: Counter[str]


def transform_day(dataset: Dataset, date: dt.date) -> None:
    """Make the clean folder of `date` from its raw folder, part by part.

    Raises QualityError where too many records are rejected, DatasetError, FolderError.
    """
    import sqlalchemy as sa

    from pipeline.engine import map_parts

    raw, clean = dataset.folder("raw", date), dataset.folder("clean", date)
    manifest = raw.read_manifest(RawManifest)
    key = tuple(column.name for column in dataset.table(sa.MetaData()).primary_key)
    clean.sweep()
    jobs = [PartJob(dataset, key, raw, clean, number, part) for number, part in enumerate(manifest.parts)]
    imports = ("pipeline.transform", "pyarrow.parquet")
    results = map_parts(transform_part, jobs, Pipeline().engine_workers, imports)
    reasons = sum((result.reasons for result in results), Counter[str]())
    _check_rejects(dataset, clean, manifest.records, reasons)
    clean.publish(
        CleanManifest(
            dataset=dataset.name,
            date=date,
            raw_sha256=[part.sha256 for part in manifest.parts],
            transform_version=dataset.version,
            rows=sum(result.clean.records for result in results),
            rejected=reasons.total(),
            reasons=dict(sorted(reasons.items())),
            parts=[result.clean for result in results],
            rejects=[result.rejects for result in results if result.rejects],
        )
    )
    rows, rejects = manifest.records - reasons.total(), reasons.total()
    logger.info("%s %s: cleaned, %s, %s", dataset.name, date, count(rows, "row"), count(rejects, "reject"))


def transform_part(job: PartJob) -> PartResult:
    """Write the clean part and the rejects of one raw part."""
    import pyarrow as pa
    from pyarrow import parquet

    from pipeline.transform import transform

    lines = igzip.decompress(job.raw.read(job.part)).splitlines()
    rows, rejects = transform(lines, job.dataset.contract, job.dataset.clean, job.key)
    table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
    buffer = pa.BufferOutputStream()
    parquet.write_table(table, buffer, compression="zstd")
    clean = job.clean.write(f"part-{job.number:05d}.parquet", [(len(rows), buffer.getvalue())])
    kept = None
    if rejects:
        day = {"date": job.raw.date, "part": job.number}
        kept = job.clean.write(
            f"rejects-{job.number:05d}.jsonl.gz",
            _compress([msgspec.json.encode(day | reject._asdict())] for reject in rejects),
        )
    return PartResult(clean, kept, Counter(reject.describe() for reject in rejects))


def is_current(dataset: Dataset, date: dt.date) -> bool:
    """Whether raw and clean folder of `date` are there, and clean is what the code of today makes of raw."""
    raw, clean = dataset.folder("raw", date), dataset.folder("clean", date)
    if not raw.exists() or not clean.exists():
        return False
    hashes = [part.sha256 for part in raw.read_manifest(RawManifest).parts]
    try:
        manifest = clean.read_manifest(CleanManifest)
    except FolderError:  # of an older shape, or damaged: it can be made again
        return False
    return (manifest.raw_sha256, manifest.transform_version) == (hashes, dataset.version)


def load_day(dataset: Dataset, date: dt.date) -> None:
    """Bring the clean folder of `date` into the warehouse: rows, rejects and marker in one transaction.

    Raises WarehouseError, FolderError.
    """
    from pipeline.staging import Day

    raw, clean = dataset.folder("raw", date), dataset.folder("clean", date)
    read, made = raw.read_manifest(RawManifest), clean.read_manifest(CleanManifest)
    if made.raw_sha256 != [part.sha256 for part in read.parts]:
        raise FolderError(f"{clean} was not made of {raw}, which was read anew meanwhile: run the day again")
    day = Day(
        date=date,
        mode=read.mode,
        window_start=read.window_start,
        window_stop=read.window_stop,
        started_at=read.started_at,
        extracted_at=read.extracted_at,
        as_of=read.as_of,
        pages=read.pages,
        extracted=read.records,
        rejected=made.rejected,
        raw_sha256=digest(read.parts),
        clean_sha256=digest([*made.parts, *made.rejects]),
        transform_version=made.transform_version,
    )
    marker = dataset.warehouse().load(day, _read_rows(clean, made.parts), _read_rejects(clean, made.rejects))
    counts = ", ".join(f"{marker[name]:,} {name}" for name in COUNTS if marker[name])
    logger.info("%s %s: loaded, %s", dataset.name, date, counts or "nothing new")


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 record, 1,000 records."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _cut(pages: Iterable[list[msgspec.Raw]], size: int) -> Iterator[tuple[int, list[msgspec.Raw]]]:
    """The records of the pages, in slices that do not cross the border of a part: (part number, records)."""
    part, room = 0, size
    for page in pages:
        start = 0
        while start < len(page):
            lines = page[start : start + room]
            yield part, lines
            start, room = start + len(lines), room - len(lines)
            if not room:
                part, room = part + 1, size


def _compress(slices: Iterable[list[Any]]) -> Iterator[tuple[int, bytes]]:
    """Slices of lines to chunks of one .gz file; the same lines give the same bytes, whatever the slices."""
    gz = isal_zlib.compressobj(COMPRESSION, isal_zlib.DEFLATED, 31)
    for lines in slices:
        yield len(lines), gz.compress(b"\n".join([*lines, b""]))
    yield 0, gz.flush()


def _check_rejects(dataset: Dataset, clean: DayFolder, records: int, reasons: Counter[str]) -> None:
    limit = dataset.config().max_reject_ratio
    if reasons.total() > limit * records:
        reason, count = reasons.most_common(1)[0]
        raise QualityError(
            f"{dataset.name} {clean.date}: {reasons.total()} of {records} records are rejected, more than "
            f"max_reject_ratio {limit}; most often ({count}): {reason}. They are in {clean}/rejects-*: mend the "
            f"contract or the cleaning, or let the day through with --{dataset.name}-max-reject-ratio 1"
        )


def _read_rows(clean: DayFolder, parts: Iterable[Part]) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa
    from pyarrow import parquet

    for part in parts:
        yield from parquet.ParquetFile(pa.BufferReader(clean.read(part))).iter_batches(ROWS_AT_ONCE)


def _read_rejects(clean: DayFolder, parts: Iterable[Part]) -> Iterator[tuple[Any, ...]]:
    for part in parts:
        for line in igzip.decompress(clean.read(part)).splitlines():
            reject = msgspec.json.decode(line)
            yield tuple(reject[name] for name in ("part", "line", "reason", "field", "key", "record"))


def _is_task(module: Any, node: ast.stmt) -> bool:
    """Whether a definition is one of Luigi's: a section or a task, which say nothing of how a row is made."""
    return isinstance(node, ast.ClassDef) and issubclass(getattr(module, node.name), luigi.Task)


def _outline(node: Any) -> Any:
    """A syntax tree as plain lists, without docstrings, and alike in every version of Python."""
    if isinstance(node, list):
        return [_outline(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    body = fields.get("body")
    if isinstance(body, list) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        fields["body"] = body[1:]
    return [type(node).__name__, {name: _outline(value) for name, value in sorted(fields.items())}]
