"""Run SQL on a warehouse in any database, and return values in the types of SQLite."""

import datetime as dt
import decimal
import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import psycopg.types.json

from wholeday.load import postgres, sqlite
from wholeday.load.database import find_database

DATABASES = ["sqlite", "postgresql"]
ON_REQUEST = DATABASES if os.environ.get("PIPELINE_DATABASES") == "all" else DATABASES[:1]

Rows = list[tuple[Any, ...]]


@contextmanager
def connect(url: str) -> Iterator[Any]:
    """Connect to the database of a warehouse; each statement commits."""
    database = find_database(url)
    if isinstance(database, sqlite.Database):
        with closing(sqlite3.connect(database.path, isolation_level=None, timeout=60)) as connection:
            yield connection
        return
    assert isinstance(database, postgres.Database)
    with psycopg.connect(**database.params, autocommit=True) as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


def query(url: str, sql: str, *values: Any) -> Rows:
    """Return the rows of a query; `values` fill its question marks."""
    with connect(url) as connection:
        return _fetch(connection, sql, *values)


def query_each(url: str, *statements: str) -> list[Rows]:
    """Return the rows of each query. One connection runs them all: in PostgreSQL it costs more than a query."""
    with connect(url) as connection:
        return [_fetch(connection, sql) for sql in statements]


def _fetch(connection: Any, sql: str, *values: Any) -> Rows:
    if isinstance(connection, psycopg.Connection):
        psycopg.types.json.set_json_loads(_write_json, connection)
        sql = sql.replace("%", "%%").replace("?", "%s") if values else sql
    rows = connection.execute(sql, values).fetchall() if values else connection.execute(sql).fetchall()
    return [tuple(map(write, row)) for row in rows]


def execute(url: str, *statements: str) -> list[int]:
    """Run statements in one transaction; return the number of rows that each changed."""
    with connect(url) as connection:
        connection.execute("begin")
        changed = [connection.execute(statement).rowcount for statement in statements]
        connection.execute("commit")
    return changed


def write(value: Any) -> Any:
    """Convert a value to its type in SQLite."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral() else float(value)
    if isinstance(value, dt.time):
        return value.isoformat(timespec="microseconds")
    return str(value) if isinstance(value, uuid.UUID) else value


def _write_json(text: str | bytes) -> str:
    """Write JSON in its canonical form, which is what SQLite stores."""
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def is_empty(url: str) -> bool:
    """Return whether neither tables nor their schema or file exist."""
    if url.startswith("sqlite"):
        return not find_database(url).exists()
    return query(url, "select current_schema()") == [(None,)]


def list_tables(url: str) -> list[str]:
    """Return the names of all tables."""
    return [name for (name,) in query(url, TABLES[url.startswith("sqlite")])]


def list_columns(url: str, table: str) -> list[str]:
    """Return the column names of a table or view, in order."""
    with connect(url) as connection:
        return [column[0] for column in connection.execute(f'select * from "{table}" limit 0').description]


def dump(url: str) -> list[str]:
    """Return all definitions and rows."""
    if url.startswith("sqlite"):
        with connect(url) as connection:
            return list(connection.iterdump())
    names, *definitions = query_each(url, TABLES[False], *DEFINITIONS)
    rows = query_each(url, *(f'select * from "{name}"' for (name,) in names))
    tables = [(name, sorted(found, key=repr)) for (name,), found in zip(names, rows, strict=True)]
    return [str(found) for found in (*definitions, *tables)]


def remove(url: str) -> None:
    """Remove the warehouse."""
    database = find_database(url)
    if isinstance(database, sqlite.Database):
        for path in database.path.parent.glob(f"{database.path.name}*"):
            path.unlink()
    elif not is_empty(url):
        ((schema,),) = query(url, "select current_schema()")
        execute(url, f'drop schema "{schema}" cascade')


TABLES = {
    True: "select name from sqlite_master where type = 'table' order by 1",
    False: "select tablename from pg_tables where schemaname = current_schema() order by 1",
}
DEFINITIONS = [
    "select table_name, column_name, data_type, is_nullable from information_schema.columns "
    "where table_schema = current_schema() order by table_name, ordinal_position",
    "select indexdef from pg_indexes where schemaname = current_schema() order by 1",
    "select viewname, definition from pg_views where schemaname = current_schema() order by 1",
]
