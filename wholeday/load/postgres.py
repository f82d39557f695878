"""PostgreSQL: connections, locking, types and DDL, and those of its errors that a user can meet, as one line each.

Owns all that is particular to this database; another one is another file like it. Its driver is an extra, imported
when a connection is made.
"""

import contextlib
import csv
import datetime as dt
import functools
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

import tenacity

from wholeday.errors import BrokenOffError, ConfigError, WarehouseError
from wholeday.load.ahead import read_ahead
from wholeday.load.packing import pack_rows
from wholeday.redaction import SECRET_PARAM, Mask
from wholeday.schema.tables import IN_THE_WAY, Table, join_names, quote

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

BUSY_SECONDS = 300.0  # how long a load waits for another to end
PATIENCE = 120.0  # how long a server that was reached before is waited for: a failover may take it away
ROWS_AT_ONCE = 10_000  # of a query whose rows are not kept
NUMBER = "_number"  # the last column of what is staged: the place of the row among all
DEFAULTS = {  # what libpq is told where the URL does not say it
    "application_name": "wholeday",
    "connect_timeout": "10",
    # A server that is gone without a word is noticed after a minute, not after hours.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
SETTINGS = {
    # In another zone, or written otherwise, the first and the last times could not be read.
    "timezone": "UTC",
    "datestyle": "ISO",
    "client_encoding": "UTF8",
    # So that the locks of a client that is gone without a word are free after a minute.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    # A committed day survives a power cut, whatever the server does as a rule.
    "synchronous_commit": "on",
    # What does not fit is written to files and read again: with the defaults of 4 and 8 MB that is every large day.
    "work_mem": "64MB",
    "temp_buffers": "128MB",
    # To compile a statement takes longer here than it saves.
    "jit": "off",
    # Keys are looked up one by one where they are few: what is asked for again and again is in memory.
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

# By how many rows this transaction has made a table grow. How many it has, where the server keeps no counts, or
# somebody's triggers, rules or partitions have a hand in them.
TALLY = """
select case when current_setting('track_counts')::boolean and not exists (
            select 1 from pg_class
             where oid = to_regclass(:table) and (relhastriggers or relhasrules or relhassubclass))
       then (select n_tup_ins - n_tup_del from pg_stat_xact_user_tables where relid = to_regclass(:table))
       else (select count(*) from {table}) end
"""
# The indexes of a table, and how to drop and make them, where there was never a row in it.
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
# Who may still see what was deleted before transaction `now`, and so keeps it in the files.
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
HOW_TO_WRITE = "write postgresql+psycopg://user:password@host:5432/name; in a password / ? # @ are %2F %3F %23 %40"
# What passes: the same transaction once more may succeed.
PASSING = {
    *("40001", "40P01"),  # it met another one
    *("57P01", "57P02", "57P03", "57P05", "25P03", "25P04"),  # the server, or the session, was ended
}
NEXT_STEPS = {
    "55P03": "another program is writing to it: wait for that to end, or end it, and run again",
    "57014": "somebody cancelled it there, or statement_timeout is too short for this role",
    "42501": "grant this role the right, and run again",
    "25006": "it is a standby, or may only be read: name the server that takes writes; "
    "of several hosts, target_session_attrs=read-write finds it",
    "2BP01": "drop what stands on it, and make that again afterwards",
    "23": IN_THE_WAY,
    "P0001": IN_THE_WAY,
    "22P05": "the database cannot hold every character: choose one that was created with encoding 'UTF8'",
    "42809": "its name is taken by another program: choose another schema or database",
    "54000": "a key is too long for an index: reject such records in cleaning",
    "53": "the server lacks a resource: raise its limit, and run again",
    "53100": "free space on the disk of the server, and run again",
    "53200": "the server is short of memory: lower its work_mem or max_connections, and run again",
    "53400": "raise that limit of the server for this role, and run again",
    "58030": "look at the disk of the server, and run again",
    "XX001": "a table is damaged: restore the database from a backup, or rebuild it",
    "XX002": "an index is damaged: reindex it, and run again",
}

_reached: set[str] = set()


class Database:
    """A database of a server; in it the first schema of the search path."""

    def __init__(self, url: str) -> None:
        """Take a SQLAlchemy URL, whose query may hold whatever libpq knows; raises ConfigError."""
        self._shown, self.params = _parse(url)
        self._mask = Mask(value for name, value in self.params.items() if "password" in name)

    def __str__(self) -> str:
        return self._shown

    def exists(self) -> bool:
        return True

    @contextlib.contextmanager
    def connect(self, *, create: bool = False, readonly: bool = False) -> "Iterator[PostgreSQL]":
        psycopg = _import_driver()
        with self._telling(psycopg), contextlib.closing(self._open(psycopg)) as connection:
            db = PostgreSQL(str(self), connection)
            db.prepare(create)
            if readonly:
                db.run("begin isolation level repeatable read")
            yield db

    def find_loaded(self, dataset: str, first: dt.date, last: dt.date) -> set[dt.date]:
        errors = _import_driver().errors
        query = "select date from loads where dataset = :dataset and date between :first and :last"
        with self.connect() as db:
            try:
                return {date for (date,) in db.run(query, dataset=dataset, first=first, last=last)}
            except errors.UndefinedTable:
                return set()
            except (errors.UndefinedColumn, errors.UndefinedFunction) as error:
                raise WarehouseError(
                    f"{self}: cannot ask which days are loaded: {error.diag.message_primary}: "
                    "if the table loads is another program's, choose another schema or database"
                ) from error

    def _open(self, psycopg: ModuleType) -> "psycopg.Connection[Any]":
        """A connection. A server that was reached before is waited for; any other had better be there."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(psycopg.OperationalError),
            stop=tenacity.stop_after_delay(PATIENCE if self._shown in _reached else 0),
            wait=tenacity.wait_exponential(multiplier=0.1, max=5) + tenacity.wait_random(0, 0.1),
            reraise=True,
        )
        try:
            # The tables that a statement is prepared for are made anew for each load.
            connection = retrying(psycopg.connect, **self.params, autocommit=True, prepare_threshold=None)
        except psycopg.ProgrammingError as error:
            raise ConfigError(f"[pipeline] database = {self}: {self._explain(error)}: leave that out") from error
        except psycopg.OperationalError as error:
            raise WarehouseError(
                f"{self}: {self._explain(error)}: see that it runs, and that [pipeline] database, PGPASSWORD or "
                "~/.pgpass let you in"
            ) from error
        _reached.add(self._shown)
        return connection

    @contextlib.contextmanager
    def _telling(self, psycopg: ModuleType) -> Iterator[None]:
        """Say in one line what the server refused, and what to do."""
        try:
            yield
        except psycopg.Error as error:
            lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
            words = self._explain(error)
            if lost or error.sqlstate in PASSING:
                raise BrokenOffError(f"{self}: {words}: the transaction was broken off: run again") from error
            state = error.sqlstate or ""
            step = NEXT_STEPS.get(state) or NEXT_STEPS.get(state[:2])
            if not step:
                raise
            raise WarehouseError(f"{self}: {words}: {step}") from error

    def _explain(self, error: "psycopg.Error") -> str:
        """What went wrong, without libpq's advice, which stands behind a tab, and without a word of what is stored."""
        words, constraint = error.diag.message_primary or str(error), error.diag.constraint_name or ""
        place = (error.diag.context or "").partition("\n")[0]
        if place.endswith(" RAISE"):  # what somebody's function says may tell of a user
            words = place
        if constraint not in words:
            words = f"{words} ({constraint})"
        return self._mask(re.sub(r"\n\t.*", "", words).strip())


class PostgreSQL:
    """A connection to a PostgreSQL server."""

    temporary = "pg_temp"
    types: ClassVar = {
        "integer": "bigint",
        "text": "text",
        "boolean": "boolean",
        "float": "double precision",
        "date": "date",
        "time": "timestamp with time zone",
    }

    def __init__(self, name: str, connection: "psycopg.Connection[Any]") -> None:
        self.name, self.connection = name, connection
        self.permanent = ""

    def __str__(self) -> str:
        return self.name

    def prepare(self, create: bool) -> None:
        """Set what holds for the connection; where it is missing, and `create` says so, make the schema."""
        psycopg = _import_driver()
        path, schema = self._one("select current_setting('search_path'), current_schema()::text")
        (first, *_), *_ = [*csv.reader([path], skipinitialspace=True), [""]]
        if first not in ("", "$user"):
            schema = first if path.startswith('"') else first.lower()
        if schema is None:
            raise WarehouseError(
                f"{self}: the search path names no schema that is there: name one with ?options=-csearch_path=NAME"
            )
        self.permanent = quote(schema)
        (usable,) = self._one("select has_schema_privilege(to_regnamespace(:schema), 'usage')", schema=self.permanent)
        if usable is False:  # it would look empty
            raise WarehouseError(f"{self}: permission denied for schema {schema}: {NEXT_STEPS['42501']}")
        if create and usable is None:
            with contextlib.suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateSchema):
                self.run(f"create schema {self.permanent}")  # suppressed: another process was faster
        # No other schema: what is missing in this one must not be found in the next.
        settings = {name: f"'{value}'" for name, value in SETTINGS.items()} | {"search_path": self.permanent}
        settings["lock_timeout"] = f"'{BUSY_SECONDS}s'"
        self.connection.execute("; ".join(f"set {name} = {value}" for name, value in settings.items()))

    def begin(self, dataset: str) -> None:
        # Each statement sees what was committed before it; so it does not matter that the lock comes later than this.
        self.run("begin isolation level read committed")
        self._lock(dataset)

    def _lock(self, what: str = "") -> None:
        """Wait for a lock of this schema, until the end of the transaction."""
        self.run("select pg_advisory_xact_lock(hashtextextended(:what, 0))", what=f"{self.permanent}.{what}")

    def commit(self) -> None:
        self.run("commit")

    def savepoint(self) -> "contextlib.AbstractContextManager[psycopg.Transaction]":
        return self.connection.transaction()

    def run(self, sql: str, **params: Any) -> "psycopg.Cursor[Any]":
        return self.connection.execute(_place(sql), params) if params else self.connection.execute(sql)

    def _one(self, sql: str, **params: Any) -> Any:
        """The only row of a query."""
        return self.run(sql, **params).fetchone()

    def stream(self, sql: str, **params: Any) -> Iterator[tuple[Any, ...]]:
        with self.connection.cursor("rows") as cursor:
            cursor.itersize = ROWS_AT_ONCE
            yield from cursor.execute(_place(sql) if params else sql, params or None)

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
        errors = _import_driver().errors
        columns = table.columns | {NUMBER: "integer"}
        self._create(table._replace(columns=columns), "pg_temp", with_key=False)
        with (
            self.connection.cursor() as cursor,
            cursor.copy(f'copy "{table.name}" ({join_names(columns)}) from stdin (format binary)') as copy,
            contextlib.closing(read_ahead(pack_rows(batches, columns, NUMBER))) as packed,
        ):
            for data in packed:
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
        def tally() -> int:
            return int(self._one(TALLY.format(table=quote(table)), table=quote(table))[0])

        before = tally()
        yield lambda: tally() - before

    @contextlib.contextmanager
    def filling(self, tables: Iterable[str]) -> Iterator[None]:
        tables = list(tables)
        # To drop a key is to keep readers out: only where nobody, in any transaction, has a row to read.
        made = [index for table in tables for index in self.run(INDEXES, table=quote(table)).fetchall()]
        for drop, _ in made:
            self.run(drop)
        yield
        for _, create in made:
            self.run(create)
        for table in tables:
            self.run(f'analyze "{table}"')

    def encode(self, value: Any) -> Any:
        return value

    def decode(self, value: Any, kind: str) -> Any:  # noqa: ARG002 - the driver knows it
        return value

    def describe(self, name: str) -> Table:
        columns = self.run(COLUMNS, schema=self.permanent, name=name).fetchall()
        key = sorted((position, column) for column, _, position, _ in columns if position is not None)
        kind = "view" if any(relkind in VIEWS for *_, relkind in columns) else "table"
        return Table(name, {column: type_ for column, type_, *_ in columns}, tuple(column for _, column in key), kind)

    def create(self, table: Table, *, temporary: bool = False) -> None:
        if not temporary:
            self._lock()  # several datasets may be made at once, and some tables are of all
        self._create(table, "pg_temp" if temporary else self.permanent)

    def _create(self, table: Table, schema: str, *, with_key: bool = True) -> None:
        if schema == self.temporary:
            self.run(f'drop table if exists {schema}."{table.name}"')
        # Of text in a key counts only whether it is equal; any other order changes with the libraries of the server.
        types = self.types | {"text": 'text collate "C"'}
        columns = [
            f'"{column}" {(types if column in table.key else self.types)[kind]}'
            for column, kind in table.columns.items()
        ]
        key = [f"primary key ({join_names(table.key)})"] if with_key else []
        end = "on commit drop" if schema == self.temporary else ""
        self.run(f'create table if not exists {schema}."{table.name}" ({", ".join([*columns, *key])}) {end}')

    def add_column(self, table: Table, column: str) -> None:
        self.run(f'alter table "{table.name}" add column "{column}" {self.types[table.columns[column]]}')

    def create_index(self, name: str, sql: str) -> None:
        query = "select 1 from pg_class where relnamespace = to_regnamespace(:schema) and relname = :name"
        if not self.run(query, schema=self.permanent, name=name).fetchone():
            self.run(sql)

    def create_view(self, view: str, select: str) -> None:
        errors = _import_driver().errors
        if self.has_view(view, select):
            return
        create = f'view "{view}" as {select}'
        try:
            with self.savepoint():
                self.run(f"create or replace {create}")  # keeps the rights to it, and what stands on it
        except errors.InvalidTableDefinition:  # other columns
            self.run(f'drop view "{view}"')
            self.run(f"create {create}")
        self.run(f"comment on view \"{view}\" is '{self._digest_view(view, select)}'")

    def has_view(self, view: str, select: str) -> bool:
        return self._read_comment(view) == self._digest_view(view, select)

    def _read_comment(self, view: str) -> str | None:
        query = "select obj_description(to_regclass(:view), 'pg_class')"
        return self._one(query, view=quote(view))[0]

    def _digest_view(self, view: str, select: str) -> str:
        """A digest of the text that a view is made of, and of what the server says it is: either may be changed."""
        (stored,) = self._one("select pg_get_viewdef(to_regclass(:view))", view=quote(view))
        return hashlib.sha256(f"{select}{stored}".encode()).hexdigest()

    def erase(self, tables: Iterable[str]) -> str | None:
        errors = _import_driver().errors
        (now,) = self._one("select pg_current_xact_id()::text")
        give_up = time.monotonic() + BUSY_SECONDS
        while (older := self.run(OLDER, now=now).fetchone()) and time.monotonic() < give_up:
            time.sleep(0.1)
        try:
            for table in tables:
                self.run(f'vacuum (full, analyze) "{table}"')
        except errors.LockNotAvailable:
            older = older or ("",)
        if older:
            return f"{self}: another program is reading the warehouse ({older[0]}): end it, and run this again"
        return None


def _import_driver() -> ModuleType:
    """The driver; raises ConfigError where it is not installed."""
    try:
        import psycopg
    except ImportError as error:  # also where there is no libpq
        raise ConfigError(
            f"PostgreSQL needs the extra postgres, but {error}: . .venv/bin/activate && pip install -e '.[postgres]'"
        ) from error
    return psycopg


def _parse(url: str) -> tuple[str, dict[str, str]]:
    """A URL as it may be shown, and what it says, in libpq's words; raises ConfigError."""
    try:
        parts = urlsplit(url)
        named = {"host": parts.hostname, "port": parts.port, "dbname": unquote(parts.path[1:])}
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ConfigError(
            f"[pipeline] database = {url.partition(':')[0]}://… cannot be read: {HOW_TO_WRITE}"
        ) from error
    if "@" in f"{parts.path}{parts.query}{parts.fragment}" or parts.fragment:
        raise ConfigError(f"[pipeline] database = {parts.scheme}://… cannot be read: {HOW_TO_WRITE}")
    userinfo, at, host = parts.netloc.rpartition("@")
    user, colon, password = userinfo.partition(":")
    named |= {"user": unquote(user), "password": unquote(password)}
    said = pairs + [(name, str(value)) for name, value in named.items() if value]
    query = SECRET_PARAM.sub(r"\1***", f"?{parts.query}" if parts.query else "")
    shown = f"{parts.scheme}://{user}{':***' if colon else ''}{at}{host}{parts.path}{query}"
    if twice := {name for name, _ in said if [other for other, _ in said].count(name) > 1}:
        raise ConfigError(f"[pipeline] database = {shown}: it says {', '.join(sorted(twice))} twice")
    return shown, DEFAULTS | dict(said)


@functools.cache
def _place(sql: str) -> str:
    """SQL with its named parameters as the driver has them: not in names and texts, which stand in quotes."""
    return re.sub(r"""("[^"]*"|'[^']*')|(?<!:):(\w+)|%""", _place_one, sql)


def _place_one(found: re.Match[str]) -> str:
    quoted, name = found.groups()
    return f"%({name})s" if name else (quoted or "%").replace("%", "%%")
