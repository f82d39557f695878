"""Define a dataset `things` with a column of any type for one test, and load it from a local source."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

from tests.support.project import query
from tests.support.server import Answer, Server
from wholeday.schema.dataset import Dataset
from wholeday.schema.record import Field, Record
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

TODAY = dt.datetime.now(dt.UTC).date()


def make_record_class(columns: dict[str, Any], class_name: str = "Thing", /, **fields: Any) -> type[Record]:
    """Define a record class with these types by column. `fields` holds the results of Field."""
    return type(class_name, (Record,), {"__annotations__": columns, "__module__": __name__, **fields})


def make_dataset(
    type_: Any = str | None,
    clean: Callable[..., Any] | None = None,
    *,
    id_type: Any = int,
    columns: dict[str, Any] | None = None,
    fields: dict[str, Any] | None = None,
    **options: Any,
) -> Dataset:
    """Define records with the key `id`, `value` of a type, and `updated_at`.

    `columns` and `fields` add columns and the results of Field; `options` are arguments of Field for `value`.
    """
    types = {"id": id_type, "value": type_, "updated_at": dt.datetime | None} | (columns or {})
    record_class = make_record_class(
        types, **{"id": Field(primary_key=True), "value": Field(**options)} | (fields or {})
    )
    return Dataset("things", record_class, clean)


def load(
    dataset: Dataset, server: Server, configure: Callable[..., None], body: Any, column: str = "value", **keys: Any
) -> list[Any]:
    """Load a snapshot of today from records, or from a body in bytes. Return a column of all rows, ordered by key."""
    answer = Answer(body if isinstance(body, bytes) else json.dumps(body).encode())
    configure("things", url=server.on("/things", answer), mode="snapshot", paginator="single", **keys)
    stages.extract(read_workspace(dataset), TODAY)
    stages.transform(read_workspace(dataset), TODAY)
    stages.load(read_workspace(dataset), TODAY)
    return [value for (value,) in query(f"select {column} from things order by id")]
