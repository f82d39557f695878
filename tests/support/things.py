"""Define a dataset `things` with any fields and columns for one test, and load it from a local source."""

import datetime as dt
import json
from collections.abc import Callable, Sequence
from typing import Any

import luigi
import msgspec
import pandas as pd
import sqlalchemy as sa

from tests.support.project import query
from tests.support.server import Answer, Server
from wholeday.config.source import Source
from wholeday.schema.dataset import Dataset
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace
from wholeday.transform.day import prepare_transform

TODAY = dt.datetime.now(dt.UTC).date()
TIME = sa.DateTime(timezone=True)


class Things(Source):
    section = "things"
    url = luigi.Parameter(default="")


def keep(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[Any, Any]]:
    """Return the fields of a record unchanged."""
    return frame, {}


def make_dataset(
    field: Any = str,
    column: Any = sa.Text,
    clean: Callable[[pd.DataFrame], Any] = keep,
    key: Sequence[str] = ("id",),
    id_types: tuple[Any, Any] = (int, sa.BigInteger),
    updated_at: Any = TIME,
    **options: Any,
) -> Dataset:
    """Define records of `id`, `value` and `updated_at`, and a table with these columns.

    `field` and `column` are the types of `value` in the record and in the table; `id_types` holds both types of `id`.
    `options` go to the record class.
    """
    fields = [
        ("id", id_types[0]),
        ("value", field | None if field else None, None),
        ("updated_at", dt.datetime | None, None),
    ]
    record_class = msgspec.defstruct("Thing", fields, module=__name__, **options)

    def table(metadata: sa.MetaData) -> sa.Table:
        columns = [sa.Column("id", id_types[1], primary_key=True), sa.Column("value", column)]
        return sa.Table("things", metadata, *columns, *([sa.Column("updated_at", updated_at)] if updated_at else []))

    return Dataset(Things, record_class, clean, table, tuple(key))


def load(
    dataset: Dataset, server: Server, configure: Callable[..., None], body: Any, column: str = "value", **keys: Any
) -> list[Any]:
    """Load a snapshot of today from records, or from a body in bytes. Return a column of all rows, ordered by key."""
    answer = Answer(body if isinstance(body, bytes) else json.dumps(body).encode())
    configure("things", url=server.on("/things", answer), mode="snapshot", paginator="single", **keys)
    stages.extract(read_workspace(dataset), TODAY, prepare_transform(read_workspace(dataset)))
    stages.transform(read_workspace(dataset), TODAY)
    stages.load(read_workspace(dataset), TODAY)
    return [value for (value,) in query(f"select {column} from things order by id")]
