"""Transform the parts of a day, each on its own, in any number of processes.

Responsibilities: what a process needs for a part, and the files that it writes.
Non-goals: the transform of records (`rows`), and the processes (`engine`).
"""

import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from wholeday.errors import DatasetError
from wholeday.schema.dataset import Dataset
from wholeday.schema.kinds import to_arrow
from wholeday.schema.record import make_example
from wholeday.schema.reject import Reject
from wholeday.schema.tables import Declared
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.lines import pack, unpack
from wholeday.storage.manifest import Part
from wholeday.storage.parquet import encode_rows
from wholeday.storage.workspace import Workspace


@dataclass(frozen=True)
class PartJob:
    """A raw part to transform, with all that another process needs."""

    dataset: Dataset
    declared: Declared
    raw: DayFolder
    clean: DayFolder
    number: int
    part: Part
    deleted_when: str
    timezone: str


@dataclass(frozen=True)
class PartResult:
    """The result of a raw part: its clean part, its rejects if any, and their number by reason."""

    clean: Part
    rejects: Part | None
    reasons: Counter[str]
    fields: dict[str, tuple[int, int]]
    """By field: how many records could have it, and how many have it."""


@functools.cache
def check_clean(dataset: Dataset, deleted_when: str) -> None:
    """Call `clean` without a record, then with an invented one. Raises DatasetError unless the table fits."""
    from wholeday.transform.rows import transform

    declared = dataset.check()
    for lines in ([], [make_example(dataset.record_class)]):
        try:
            rows, _ = transform(lines, dataset.record_class, dataset.clean, tuple(declared.key), deleted_when)
        except DatasetError:
            if lines:  # the source may never send such values
                return
            raise
        to_arrow(rows, declared.key | declared.row, invented=True)


def transform_parts(
    workspace: Workspace, raw: DayFolder, parts: Iterable[Part], clean: DayFolder, spark_master: str = ""
) -> list[PartResult]:
    """Transform the parts of `raw` into the folder `clean`, on Spark if a master is given.

    Give no master if `clean` is a folder that other machines do not share.
    """
    from wholeday.transform.executor import map_parts

    settings, declared = workspace.settings, workspace.dataset.check()
    rules = settings.deleted_when, settings.timezone
    jobs = [PartJob(workspace.dataset, declared, raw, clean, number, part, *rules) for number, part in enumerate(parts)]
    return map_parts(
        transform_part, jobs, workspace.pipeline.engine_workers, list_imports(workspace.dataset), spark_master
    )


def list_imports(dataset: Dataset) -> list[str]:
    """List the modules that `transform_part` needs."""
    return [__name__, "wholeday.transform.rows", "pyarrow.parquet", dataset.record_class.__module__]


def _encode_reject(reject: Reject, job: PartJob) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(reject, date=job.raw.date, part=job.number))


def transform_part(job: PartJob) -> PartResult:
    """Transform one raw part, and write its clean part and its rejects."""
    from wholeday.transform.rows import transform_and_count

    lines, declared, dataset = unpack(job.raw.read(job.part)), job.declared, job.dataset
    rules = job.deleted_when, job.timezone
    rows, rejects, fields = transform_and_count(lines, dataset.record_class, dataset.clean, tuple(declared.key), *rules)
    table = to_arrow(rows, declared.key | declared.row)
    clean = job.clean.write(f"part-{job.number:05d}.parquet", [(len(rows), encode_rows(table))])
    kept = None
    if rejects:
        kept = job.clean.write(
            f"rejects-{job.number:05d}.jsonl.gz",
            pack([_encode_reject(reject, job)] for reject in rejects),
        )
    return PartResult(clean, kept, Counter(reject.describe() for reject in rejects), fields)
