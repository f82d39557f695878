"""A connection to a PostgreSQL server: locking, types and DDL."""

import contextlib
import csv
import functools
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors

from wholeday.errors import WarehouseError
from wholeday.load.ahead import read_ahead
from wholeday.load.database import Connection
from wholeday.load.postgres import types
from wholeday.load.postgres.binary_copy import encode_rows
from wholeday.load.postgres.errors import DROP_DEPENDENT, NEXT_STEPS
from wholeday.schema.kinds import TEXT
from wholeday.schema.tables import Table, join_names, quote

if TYPE_CHECKING:
    import pyarrow as pa

BUSY_SECONDS = 300.0  # how long a load waits until another one ends
ROWS_AT_ONCE = 10_000  # of a query, in memory
NUMBER = "_number"  # the last column of a staging table: the place of the row among all
SETTINGS = {
    # In another zone or style, the lowest and the highest times could not be read.
    "timezone": "UTC",
    "datestyle": "ISO",
    "client_encoding": "UTF8",
    # Free the locks of a client that vanished after a minute.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    # A committed day survives a power cut. The default of the server may be weaker.
    "synchronous_commit": "on",
    # What does not fit goes through files: with the defaults of 4 and 8 MB, every large day.
    "work_mem": "64MB",
    "temp_buffers": "128MB",
    # Compiling a statement takes longer here than it saves.
    "jit": "off",
    # Look up a few keys one by one: their pages are in memory after the first read.
    "seq_page_cost": "0.1",
    "random_page_cost": "0.1",
}
VIEWS = ("v", "m")
COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod), array_position(i.indkey::int2[], a.attnum),
       c.relkind::text
  from pg_class c
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  left join pg_index i on i.indrelid = c.oid and i.indisprimary
 where c.relnamespace = to_regnamespace(:schema) and c.relname = :name
 order by a.attnum
"""

MARKS = """
select relname::text, obj_description(oid, 'pg_class') from pg_class
 where relnamespace = to_regnamespace(:schema) and relkind = 'r' and obj_description(oid, 'pg_class') is not null
"""

# By how many rows this transaction has made a table grow; or how many rows it has, if the server keeps no counts, or
# if triggers, rules or partitions falsify them.
GROWTH = """
select case when current_setting('track_counts')::boolean and not exists (
            select 1 from pg_class
             where oid = to_regclass(:table) and (relhastriggers or relhasrules or relhassubclass))
       then (select n_tup_ins - n_tup_del from pg_stat_xact_user_tables where relid = to_regclass(:table))
       else (select count(*) from {table}) end
"""
# How to drop and create the indexes of a table, if it never had a row.
INDEXES = """
select format('alter table %s drop constraint %I', indrelid::regclass, conname),
       format('alter table %s add constraint %I %s', indrelid::regclass, conname, pg_get_constraintdef(c.oid))
  from pg_constraint c join pg_index on indexrelid = conindid
 where indrelid = to_regclass(:table) and pg_relation_size(indrelid) = 0
union all
select format('drop index %s', indexrelid::regclass), pg_get_indexdef(indexrelid)
  from pg_index
 where indrelid = to_regclass(:table) and pg_relation_size(indrelid) = 0
   and not exists (select 1 from pg_constraint where conindid = indexrelid)
"""
# Who may still see rows that were deleted before transaction `now`, and so keeps them in the files.
OLDER = """
select concat('process ', pid, ', ', usename, ', since ', date_trunc('second', xact_start)) from pg_stat_activity
 where pid <> pg_backend_pid() and (datname = current_database() or backend_type = 'walsender')
   and greatest(age(backend_xid), age(backend_xmin)) > age(cast(:now as xid))
union all
select concat('prepared transaction ', gid) from pg_prepared_xacts
 where database = current_database() and age(transaction) > age(cast(:now as xid))
union all
select concat('replication slot ', slot_name) from pg_replication_slots where age(xmin) > age(cast(:now as xid))
"""


# Keys need equality only. Any other collation changes with the libraries of the server.
COLLATION = ' collate "C"'


class PostgreSQL(Connection):
    """A connection to a PostgreSQL server; see Connection in database.py."""

    temporary = "pg_temp"
    to_type = staticmethod(types.to_type)
    list_items = staticmethod(types.list_items)
    read_position = staticmethod(types.read_position)
    read_member = staticmethod(types.read_member)

    def __init__(self, name: str, connection: psycopg.Connection[Any]) -> None:
        self.name, self.connection = name, connection
        self.permanent = ""

    def __str__(self) -> str:
        return self.name

    def prepare(self, create: bool) -> None:
        """Set the schema and the settings of the connection. `create` creates a missing schema."""
        path, schema = self._one("select current_setting('search_path'), current_schema()::text")
        (first, *_), *_ = [*csv.reader([path], skipinitialspace=True), [""]]
        if first not in ("", "$user"):
            schema = first if path.startswith('"') else first.lower()
        if schema is None:
            raise WarehouseError(
                f"{self}: no schema of the search path exists: name one with ?options=-csearch_path=NAME"
            )
        self.permanent = quote(schema)
        (usable,) = self._one("select has_schema_privilege(to_regnamespace(:schema), 'usage')", schema=self.permanent)
        if usable is False:  # otherwise the schema would look empty
            raise WarehouseError(f"{self}: permission denied for schema {schema}: {NEXT_STEPS['42501']}")
        if create and usable is None:
            with contextlib.suppress(errors.UniqueViolation, errors.DuplicateSchema):
                self.run(f"create schema {self.permanent}")  # unless another process did
        # No other schema: a missing table must not be found in the next one.
        settings = {name: f"'{value}'" for name, value in SETTINGS.items()} | {"search_path": self.permanent}
        settings["lock_timeout"] = f"'{BUSY_SECONDS}s'"
        self.connection.execute("; ".join(f"set {name} = {value}" for name, value in settings.items()))

    def begin(self, dataset: str) -> None:
        # Each statement sees what was committed before it, so the lock may come after `begin`.
        self.run("begin isolation level read committed")
        self._lock(dataset)

    def _lock(self, what: str = "") -> None:
        """Take a lock of this schema until the end of the transaction."""
        self.run("select pg_advisory_xact_lock(hashtextextended(:what, 0))", what=f"{self.permanent}.{what}")

    def commit(self) -> None:
        self.run("commit")

    def savepoint(self) -> contextlib.AbstractContextManager[psycopg.Transaction]:
        return self.connection.transaction()

    def run(self, sql: str, **params: Any) -> psycopg.Cursor[Any]:
        return self.connection.execute(_convert_params(sql), params) if params else self.connection.execute(sql)

    def _one(self, sql: str, **params: Any) -> Any:
        """Return the only row of a query."""
        return self.run(sql, **params).fetchone()

    def stream(self, sql: str, **params: Any) -> Iterator[tuple[Any, ...]]:
        with self.connection.cursor("rows") as cursor:
            cursor.itersize = ROWS_AT_ONCE
            yield from cursor.execute(_convert_params(sql) if params else sql, params or None)

    def insert(
        self, table: str, columns: Iterable[str], rows: Iterable[tuple[Any, ...]], *, skip_known: bool = False
    ) -> None:
        names = join_names(columns)
        rows = iter(rows)
        if (first := next(rows, None)) is None:
            return
        into = f'"{table}"'
        if skip_known:
            self.run(f"create temporary table _new on commit drop as select {names} from {into} with no data")  # noqa: S608
            into = "_new"
        with self.connection.cursor() as cursor, cursor.copy(f"copy {into} ({names}) from stdin") as copy:
            for row in chain([first], rows):
                copy.write_row(row)
        if skip_known:
            self.run(f'insert into "{table}" ({names}) select {names} from _new on conflict do nothing')  # noqa: S608
            self.run("drop table _new")

    def stage(self, table: Table, batches: "Iterable[pa.RecordBatch]") -> None:
        columns = table.columns | {NUMBER: "integer"}
        self._create(table._replace(columns=columns), "pg_temp", with_key=False)
        with (
            self.connection.cursor() as cursor,
            cursor.copy(f'copy "{table.name}" ({join_names(columns)}) from stdin (format binary)') as copy,
            contextlib.closing(read_ahead(encode_rows(batches, columns, NUMBER))) as encoded,
        ):
            for data in encoded:
                copy.write(data)
        key = join_names(table.key)
        add_key = f'alter table "{table.name}" add primary key ({key})'
        try:
            with self.savepoint():
                self.run(add_key)
        except errors.UniqueViolation:
            self.run(f"""
                delete from "{table.name}" where {NUMBER} in (
                  select {NUMBER} from (
                    select {NUMBER},
                           row_number() over (partition by {key} order by updated_at desc nulls last, {NUMBER} desc) n
                      from "{table.name}") numbered
                   where n > 1)
            """)  # noqa: S608
            self.run(add_key)
        self.run(f'analyze "{table.name}"')

    def fill(self, table: Table, batches: "Iterable[pa.RecordBatch]", given: Mapping[str, Any]) -> None:
        columns = {column: kind for column, kind in table.columns.items() if column not in given}
        key = tuple(column for column in table.key if column in columns)
        self.stage(Table("_new", columns, key), batches)
        values = [quote(column) if column in columns else f":{column}" for column in table.columns]
        with self.filling([table.name]):
            self.run(
                f'insert into "{table.name}" ({join_names(table.columns)}) select {", ".join(values)} from _new',  # noqa: S608
                **given,
            )
        self.run("drop table _new")

    @contextlib.contextmanager
    def watching(self, table: str) -> Iterator[Callable[[], int]]:
        def count() -> int:
            return int(self._one(GROWTH.format(table=quote(table)), table=quote(table))[0])

        before = count()
        yield lambda: count() - before

    @contextlib.contextmanager
    def filling(self, tables: Iterable[str]) -> Iterator[None]:
        tables = list(tables)
        # Dropping a key locks readers out, so it is done only if no transaction has a row of the table to read.
        indexes = [index for table in tables for index in self.run(INDEXES, table=quote(table)).fetchall()]
        for drop, _ in indexes:
            self.run(drop)
        yield
        for _, create in indexes:
            self.run(create)
        for table in tables:
            self.run(f'analyze "{table}"')

    def describe(self, name: str) -> Table:
        columns = self.run(COLUMNS, schema=self.permanent, name=name).fetchall()
        key = sorted((position, column) for column, _, position, _ in columns if position is not None)
        kind = "view" if any(relkind in VIEWS for *_, relkind in columns) else "table"
        return Table(name, {column: type_ for column, type_, *_ in columns}, tuple(column for _, column in key), kind)

    def create(self, table: Table, *, temporary: bool = False, mark: str = "") -> None:
        if not temporary:
            self._lock()  # several datasets may be created at once, and all share some tables
        self._create(table, "pg_temp" if temporary else self.permanent)
        if mark:
            self.run(f"comment on table {quote(table.name)} is '{mark.replace(chr(39), chr(39) * 2)}'")

    def read_marks(self) -> dict[str, str]:
        return dict(self.run(MARKS, schema=self.permanent).fetchall())

    def _create(self, table: Table, schema: str, *, with_key: bool = True) -> None:
        if schema == self.temporary:
            self.run(f'drop table if exists {schema}."{table.name}"')
        columns = [
            f'"{column}" {self.to_type(kind)}{COLLATION if kind == TEXT and column in table.key else ""}'
            for column, kind in table.columns.items()
        ]
        key = [f"primary key ({join_names(table.key)})"] if with_key else []
        end = "on commit drop" if schema == self.temporary else ""
        self.run(f'create table if not exists {schema}."{table.name}" ({", ".join([*columns, *key])}) {end}')

    def widen_column(self, table: Table, column: str) -> None:
        try:
            self.run(f'alter table "{table.name}" alter "{column}" type {self.to_type(table.columns[column])}')
        except errors.FeatureNotSupported as error:
            raise WarehouseError(f"{self}: {error.diag.message_detail}: {DROP_DEPENDENT}") from error

    def has_index(self, name: str) -> bool:
        query = "select 1 from pg_class where relnamespace = to_regnamespace(:schema) and relname = :name"
        return self.run(query, schema=self.permanent, name=name).fetchone() is not None

    def create_view(self, view: str, select: str) -> None:
        if self.has_view(view, select):
            return
        create = f'view "{view}" as {select}'
        try:
            with self.savepoint():
                self.run(f"create or replace {create}")  # keeps grants, and the views that depend on it
        except errors.InvalidTableDefinition:  # the columns differ
            self.run(f'drop view "{view}"')
            self.run(f"create {create}")
        self.run(f"comment on view \"{view}\" is '{self._digest_view(view, select)}'")

    def has_view(self, view: str, select: str) -> bool:
        return self._read_comment(view) == self._digest_view(view, select)

    def _read_comment(self, view: str) -> str | None:
        query = "select obj_description(to_regclass(:view), 'pg_class')"
        return self._one(query, view=quote(view))[0]

    def _digest_view(self, view: str, select: str) -> str:
        """Return a digest of the text of a view, and of the server's text for it. Somebody may change either."""
        (stored,) = self._one("select pg_get_viewdef(to_regclass(:view))", view=quote(view))
        return hashlib.sha256(f"{select}{stored}".encode()).hexdigest()

    def erase(self, tables: Iterable[str]) -> str | None:
        (now,) = self._one("select pg_current_xact_id()::text")
        deadline = time.monotonic() + BUSY_SECONDS
        while (older := self.run(OLDER, now=now).fetchone()) and time.monotonic() < deadline:
            time.sleep(0.1)
        try:
            for table in tables:
                self.run(f'vacuum (full, analyze) "{table}"')
        except errors.LockNotAvailable:
            older = older or ("",)
        if older:
            return f"{self}: another program is reading the warehouse ({older[0]}): end it, and run this again"
        return None


@functools.cache
def _convert_params(sql: str) -> str:
    """Return SQL with named parameters as the driver writes them. Quoted names and texts stay."""
    return re.sub(r"""("[^"]*"|'[^']*')|(?<!:):(\w+)|%""", _convert_param, sql)


def _convert_param(found: re.Match[str]) -> str:
    quoted, name = found.groups()
    return f"%({name})s" if name else (quoted or "%").replace("%", "%%")
