"""Transform the parts of a day, each on its own, in any number of processes.

Responsibilities: what a process needs for a part, and the files that it writes.
Non-goals: the transform of records (`rows`), and the processes (`engine`).
"""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from wholeday.errors import DatasetError
from wholeday.schema.conversion import Conversion
from wholeday.schema.example import make_example
from wholeday.schema.kinds import to_arrow
from wholeday.schema.reject import Reject
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.lines import pack, unpack
from wholeday.storage.manifest import Part, RawManifest
from wholeday.storage.parents import Run, add_parents, read_runs
from wholeday.storage.parquet import encode_rows
from wholeday.storage.workspace import Workspace


@dataclass(frozen=True)
class PartJob:
    """A raw part to transform, with all that another process needs."""

    conversion: Conversion
    raw: DayFolder
    clean: DayFolder
    number: int
    part: Part
    runs: tuple[Run, ...] = ()
    """The parents of its lines."""


class PartResult(msgspec.Struct, frozen=True):
    """The result of a raw part: its clean part, its rejects if any, and their number by reason."""

    clean: Part
    rejects: Part | None
    reasons: dict[str, int]
    fields: dict[str, tuple[int, int]]
    """By field: how many records could have it, and how many have it."""

    def list_files(self) -> list[Part]:
        """List the files of the clean folder that belong to the raw part."""
        return [self.clean, *([self.rejects] if self.rejects else [])]


@functools.cache
def check_clean(conversion: Conversion) -> None:
    """Call `clean` without a record, then with an invented one. Raises DatasetError unless it fits the record class."""
    from wholeday.transform.rows import transform

    kinds = conversion.columns.kinds
    if conversion.clean is None:
        return
    for lines in ([], [make_example(conversion.columns)]):
        try:
            rows = transform(lines, conversion).rows
        except DatasetError:
            if lines:  # the source may never send such values
                return
            raise
        to_arrow(rows, kinds, invented=True)


def transform_parts(
    workspace: Workspace,
    raw: DayFolder,
    manifest: RawManifest,
    clean: DayFolder,
    spark_master: str = "",
    ready: Mapping[int, PartResult] | None = None,
) -> list[PartResult]:
    """Transform the parts of a raw day into the folder `clean`. The results of some are `ready`, by number.

    Spark does it if a master is given. Give no master if `clean` is a folder that other machines do not share.
    """
    from wholeday.transform.executor import map_parts

    conversion, ready = workspace.conversion, ready or {}
    runs = read_runs(raw, manifest) if conversion.columns.of_parent else [()] * len(manifest.parts)
    jobs = [
        PartJob(conversion, raw, clean, number, part, runs[number])
        for number, part in enumerate(manifest.parts)
        if number not in ready
    ]
    workers, imports = workspace.pipeline.engine_workers, list_imports(conversion)
    made = map_parts(transform_part, jobs, workers, imports, spark_master)
    results = {**ready, **{job.number: result for job, result in zip(jobs, made, strict=True)}}
    return [results[number] for number in sorted(results)]


def list_imports(conversion: Conversion) -> list[str]:
    """List the modules that `transform_part` needs."""
    return [__name__, "wholeday.transform.rows", "pyarrow.parquet", conversion.record_class.__module__]


def _encode_reject(reject: Reject, job: PartJob) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(reject, date=job.raw.date, part=job.number))


def transform_part(job: PartJob) -> PartResult:
    """Transform one raw part, and write its clean part and its rejects."""
    from wholeday.transform.rows import transform

    lines = add_parents(unpack(job.raw.read(job.part)), job.runs, job.conversion.columns.taken)
    rows, rejects, fields = transform(lines, job.conversion)
    table = to_arrow(rows, job.conversion.columns.kinds)
    clean = job.clean.write(f"part-{job.number:05d}.parquet", [(len(rows), encode_rows(table))])
    kept = None
    if rejects:
        kept = job.clean.write(
            f"rejects-{job.number:05d}.jsonl.gz",
            pack([_encode_reject(reject, job)] for reject in rejects),
        )
    return PartResult(clean, kept, dict(Counter(reject.describe() for reject in rejects)), fields)
