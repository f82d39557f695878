"""Load the records of JSON HTTP APIs into a SQL warehouse, one day at a time.

    ExtractUsers(date)  ->  TransformUsers(date)  ->  LoadUsers(date)
    raw files of a day      clean files of a day      rows and a marker, in one transaction

A dataset module imports these names from here:

    Record, Field               declare the columns of a record class
    Json, Epoch, EpochMillis    types of columns, in addition to Python's
    Dataset                     a name, a record class, and an optional function `clean`
    Extract, Transform, Load    the tasks of a day
    Backfill                    the task of a range of days

Each stage reads what the stage before it wrote to `storage`. Imports run from the top of this list to its end:

    commands    the command line: one file per command, and how each prints
    tasks       Luigi: the tasks of a day, ranges, the backfill driver, luigid, alerts, progress
    extract     source -> raw files: reader, paging, windows, parents, detection, checkpoints, quality gates
      http      requests and answers: client, authentication, deadlines, bodies, the demo source
    transform   raw files -> clean files: decode, clean, local processes or Spark
    load        clean files -> tables: staging, merge, SQLite, PostgreSQL, audit
    storage     day folders, manifests and parts, on a local disk or in an object store
    schema      what a record is: fields, keys, tables
    config      sections of luigi.cfg, presets, placeholders
    log, errors, redaction, text, clock

"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wholeday.schema.dataset import Dataset as Dataset
    from wholeday.schema.record import Epoch as Epoch
    from wholeday.schema.record import EpochMillis as EpochMillis
    from wholeday.schema.record import Field as Field
    from wholeday.schema.record import Json as Json
    from wholeday.schema.record import Record as Record
    from wholeday.tasks.day_tasks import Extract as Extract
    from wholeday.tasks.day_tasks import Load as Load
    from wholeday.tasks.day_tasks import Transform as Transform
    from wholeday.tasks.range_daily import Backfill as Backfill

PUBLIC = {
    **dict.fromkeys(("Record", "Field", "Json", "Epoch", "EpochMillis"), "wholeday.schema.record"),
    "Dataset": "wholeday.schema.dataset",
    **dict.fromkeys(("Extract", "Transform", "Load"), "wholeday.tasks.day_tasks"),
    "Backfill": "wholeday.tasks.range_daily",
}


def __getattr__(name: str) -> Any:
    """Import a name of the public API when it is first used, so that importing the package changes nothing."""
    import importlib

    if name in PUBLIC:
        return getattr(importlib.import_module(PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
