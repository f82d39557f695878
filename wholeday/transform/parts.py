"""Transform the parts of a day, one by one, on any number of processes."""

import functools
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

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

if TYPE_CHECKING:
    pass


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
    workspace: Workspace, raw: DayFolder, parts: Iterable[Part], clean: DayFolder, spark_master: str = ""
) -> list[PartResult]:
    """Write into the folder `clean` what the code of today makes of the parts of `raw`; on Spark if a master is given.

    Where `clean` is a folder that other machines do not share, none may be given.
    """
    from wholeday.transform.engine import map_parts

    settings, declared = workspace.settings, workspace.dataset.check()
    rules = settings.deleted_when, settings.timezone
    jobs = [PartJob(workspace.dataset, declared, raw, clean, number, part, *rules) for number, part in enumerate(parts)]
    return map_parts(
        transform_part, jobs, workspace.pipeline.engine_workers, _name_imports(workspace.dataset), spark_master
    )


def _name_imports(dataset: Dataset) -> list[str]:
    """The modules of which `transform_part` has need."""
    return [__name__, "wholeday.transform.rows", "pyarrow.parquet", dataset.record_class.__module__]


def _encode_reject(reject: Reject, job: PartJob) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(reject, date=job.raw.date, part=job.number))


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
        kept = job.clean.write(
            f"rejects-{job.number:05d}.jsonl.gz",
            pack([_encode_reject(reject, job)] for reject in rejects),
        )
    return PartResult(clean, kept, Counter(reject.describe() for reject in rejects), fields)
