"""Transform a day: from its raw folder to its clean folder.

The libraries of the work are imported when it runs.
"""

import datetime as dt
import functools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wholeday.config.pipeline import Pipeline
from wholeday.errors import FolderError, PipelineError, QualityError
from wholeday.extract import gates
from wholeday.log import count, logger, set_load
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.manifest import CleanManifest, Presence, RawManifest
from wholeday.tasks.dataset import Dataset
from wholeday.transform import fields_gate

if TYPE_CHECKING:
    from wholeday.extract.reader import Reader
from wholeday.transform.parts import _name_imports, check_clean, transform_parts

# Arrow's own allocator keeps what was freed, 30 MB a process.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def transform_day(dataset: Dataset, date: dt.date, engine: str | None = None) -> None:
    """Make the clean folder of `date` from its raw folder, part by part, with an engine or with the configured one.

    The clean files that are there stay until the new ones are complete, and for good where this fails. Raises
    QualityError where too many records are rejected, DatasetError, FolderError.
    """
    raw, clean = dataset.folder("raw", date), dataset.folder("clean", date)
    manifest = raw.read_manifest(RawManifest)
    set_load(manifest.as_of)
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
    absent = fields_gate.find_absent(dataset, date, fields)
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


def preparing(dataset: Dataset) -> "Callable[[Reader], None]":
    """A function to call after each page: it checks `clean` after the first one, and prepares for a large day.

    The processes that transform a large day start while it is read. They check `clean` too, so that this process,
    whose memory is needed for the load, does not import pandas.
    """
    from wholeday.transform import engine

    settings, is_large = Pipeline(), False
    check = functools.partial(check_clean, dataset, dataset.config().deleted_when)
    look: Callable[[], None] | None = None

    def tell(reading: "Reader") -> None:
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
    dataset: Dataset, manifest: RawManifest, raw: DayFolder, clean: DayFolder, absent: Sequence[fields_gate.Absent]
) -> list[str]:
    """Raise QualityError if fields stopped coming; returns the name of the gate if the day is let through.

    The raw files stay, as a mistaken record class can be fixed. A day that was let through once is not failed again.
    """
    if not absent:
        return []
    new = ", ".join(fields_gate.list_new_fields(dataset, raw.date, manifest.unknown_fields)) or "none"
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
