"""Read the rows of a dataset from a database or from Parquet, in the values of `tests.support.values`."""

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import psycopg.types.json

from tests.support.databases import connect
from tests.support.values import REJECT, load, write_json, write_time

Row = dict[str, Any]


def read_database(url: str, table: str) -> list[Row]:
    """Read a table or view of a warehouse. JSON of PostgreSQL is written in the canonical form."""
    with connect(url) as connection:
        if isinstance(connection, psycopg.Connection):
            psycopg.types.json.set_json_loads(lambda text: write_json(load(text.decode())), connection)
        cursor = connection.execute(f'select * from "{table}"')
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def read_parquet(folder: Path) -> Iterator[tuple[str, list[Row]]]:
    """Read the clean files of a dataset with DuckDB and with pandas."""
    files = sorted(map(str, folder.rglob("part-*.parquet")))
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        found = connection.read_parquet(files, hive_partitioning=False)
        yield "duckdb", found.to_arrow_table().to_pylist()
    frames = [pd.read_parquet(file, dtype_backend="numpy_nullable") for file in files]
    yield (
        "pandas",
        [row for frame in frames for row in frame.astype(object).where(frame.notna(), None).to_dict("records")],
    )


def unify(type_: str, value: Any) -> Any:
    """Return a value in a form that compares: SQLite, for example, has no booleans and decimals."""
    if value is None or value is REJECT:
        return value
    if type_ == "flag":
        return bool(value)
    if type_ == "money":
        return Decimal(str(value)).normalize()
    if isinstance(value, dt.datetime):
        return write_time(value.astimezone(dt.UTC))
    if isinstance(value, dt.time):
        return value.isoformat("microseconds")
    if type_ in ("guid", "day"):
        return str(value)
    return float(value) if type_ == "real" else value


def select(rows: list[Row], types: Mapping[str, str]) -> list[str]:
    """Return columns of rows, sorted, as text that can be compared."""
    return sorted(json.dumps({name: unify(types[name], row[name]) for name in types}, default=repr) for row in rows)
