"""Transform a day: from its raw folder to its clean folder.

Responsibilities: judge the gates `max_reject_ratio` and `fields`, publish the clean manifest.
Non-goals: how a part is transformed (`parts`, `rows`), and in which process (`executor`).
"""

import datetime as dt
import os
from collections import Counter
from collections.abc import Callable, Sequence

from wholeday.errors import FolderError, PipelineError, QualityError
from wholeday.log import count, logger, set_load
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.manifest import MEDIAN_FROM, CleanManifest, Presence, RawManifest
from wholeday.storage.workspace import Workspace
from wholeday.transform import fields_gate
from wholeday.transform.ahead import read_ready
from wholeday.transform.parts import transform_parts

# Arrow's default allocator keeps freed memory, 30 MB a process.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def transform_day(
    workspace: Workspace, date: dt.date, is_loaded: Callable[[], bool], engine: str | None = None
) -> None:
    """Transform the raw folder of `date` to its clean folder, part by part.

    `engine` overrides the configured one. `is_loaded` returns whether the warehouse has the day. The published clean
    files stay until the new ones are complete, also if the transform fails. Raises QualityError if too many records are
    rejected or a usual field is absent, DatasetError, FolderError.
    """
    raw, clean = workspace.folder("raw", date), workspace.folder("clean", date)
    manifest = raw.read_manifest(RawManifest)
    set_load(manifest.as_of)
    ready = read_ready(clean, workspace.version, manifest.parts)
    clean.begin_rewrite(keep=[part.name for result in ready.values() for part in result.list_files()])
    settings = workspace.pipeline
    spark_master = settings.spark_master if (engine or settings.engine) == "spark" else ""
    try:
        results = transform_parts(workspace, raw, manifest, clean, spark_master, ready)
    except PipelineError:
        if clean.exists():
            clean.discard_unpublished()
        raise
    reasons = sum((Counter(result.reasons) for result in results), Counter[str]())
    records = manifest.records - manifest.forgotten
    accepted = _check_rejects(workspace, clean, records, reasons)
    fields = {
        name: Presence(*map(sum, zip(*(result.fields[name] for result in results), strict=True)))
        for name in (results[0].fields if results else ())
    }
    absent = fields_gate.find_absent(workspace, date, fields)
    accepted += _check_fields(workspace, manifest, raw, absent, lambda: _is_judged(manifest, clean) or is_loaded())
    clean.publish(
        CleanManifest(
            dataset=workspace.name,
            date=date,
            raw_sha256=manifest.hashes,
            transform_version=workspace.version,
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
    logger.info("%s %s: transformed, %s, %s", workspace.name, date, count(rows, "row"), count(rejects, "reject"))


def is_current(workspace: Workspace, date: dt.date) -> bool:
    """Return whether the clean folder of `date` was made from its raw folder by the present version of the code."""
    raw = workspace.folder("raw", date)
    return raw.exists() and bool(
        read_current(raw.read_manifest(RawManifest), workspace.folder("clean", date), workspace.version)
    )


def read_current(raw: RawManifest, clean: DayFolder, version: str) -> CleanManifest | None:
    """Return the clean manifest if it was made from this raw day by this version of the code; else None."""
    if not clean.exists():
        return None
    try:
        manifest = clean.read_manifest(CleanManifest)
    except FolderError:  # of an older format, or damaged: the day can be transformed again
        return None
    made = raw.hashes, version
    return manifest if (manifest.raw_sha256, manifest.transform_version) == made else None


def _check_rejects(workspace: Workspace, clean: DayFolder, records: int, reasons: Counter[str]) -> list[str]:
    """Raise QualityError if too many records are rejected. With `--…-accept` return the name of the gate instead."""
    settings = workspace.settings
    limit = settings.max_reject_ratio
    if reasons.total() / max(records, 1) <= limit:
        return []
    reason, most = reasons.most_common(1)[0]
    what = (
        f"{workspace.name} {clean.date}: {reasons.total()} of {records} records are rejected, more than "
        f"max_reject_ratio {limit}; most frequent reason ({most}): {reason}"
    )
    if not settings.accept:
        raise QualityError(
            f"{what}. The rejects are in {clean}/rejects-*. Fix the record class or `clean`, or let this run through "
            f"with --{workspace.name}-accept"
        )
    logger.warning("%s: let through by --%s-accept", what, workspace.name)
    return ["max_reject_ratio"]


def _check_fields(
    workspace: Workspace,
    manifest: RawManifest,
    raw: DayFolder,
    absent: Sequence[fields_gate.Absent],
    is_judged: Callable[[], bool],
) -> list[str]:
    """Raise QualityError if usual fields are absent. Return the name of the gate if the day is let through.

    The raw files stay, because a fixed record class can read them. A day that was let through once passes again.
    """
    if not absent:
        return []
    new = ", ".join(fields_gate.list_new_fields(workspace, raw.date, manifest.unknown_fields)) or "none"
    what = f"{workspace.name} {raw.date}: no record has {', '.join(map(str, absent))}; new fields: {new}"
    if not any(found.is_proven for found in absent):
        logger.warning(
            "%s. With fewer than %d days before, the gate fields fails only for a field that all records had",
            *(what, MEDIAN_FROM),
        )
        return []
    if workspace.settings.accept:
        logger.warning("%s: let through by --%s-accept", what, workspace.name)
    elif is_judged():
        logger.warning("%s: the day was let through before", what)
    else:
        raise QualityError(
            f"{what} (gate fields). If the source renamed them, change the record class and run the day again; if its "
            f"answers were wrong, delete {raw} and run the day again; or let this run through with "
            f"--{workspace.name}-accept"
        )
    return ["fields"]


def _is_judged(raw: RawManifest, clean: DayFolder) -> bool:
    """Return whether these raw files passed the gate before: a clean day was published from them."""
    try:
        return clean.exists() and clean.read_manifest(CleanManifest).raw_sha256 == raw.hashes
    except FolderError:  # damaged, or of an older format
        return False
