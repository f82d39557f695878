"""A connection to a SQLite file: locking, types and DDL."""

import datetime as dt
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from wholeday.load.ahead import read_ahead
from wholeday.load.database import Connection
from wholeday.load.sqlite import types
from wholeday.load.sqlite.insert import Values, encode, prepare_rows
from wholeday.schema.tables import Table, join_names

if TYPE_CHECKING:
    import pyarrow as pa

BEING_MADE = 1_802_723_947  # the user_version of a file until its first commit: an arbitrary number
BUSY_SECONDS = 300.0  # how long a load waits until another one ends
ROWS_AT_ONCE = 10_000  # rows in memory, if they come as tuples


class SQLite(Connection):
    """A connection to a SQLite file; see Connection in database.py."""

    permanent, temporary = "main", "temp"
    to_type = staticmethod(types.to_type)
    list_items = staticmethod(types.list_items)
    read_position = staticmethod(types.read_position)
    read_member = staticmethod(types.read_member)

    def __init__(self, path: Path, mode: str) -> None:
        self.path, self._mode = path, mode
        self.connection = self._open()

    def __str__(self) -> str:
        return str(self.path)

    def _open(self) -> sqlite3.Connection:
        try:
            connection = self._try_to_open(self._mode)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            self._try_to_open("rw").close()  # undo the write of a killed process
            connection = self._try_to_open(self._mode)
        # A day of any size is staged in a file, so that memory stays bounded. SQLite may be compiled to use memory.
        connection.execute("pragma temp_store = file")
        # Staged rows are written and read in sequence: large pages save a tenth of a load.
        connection.execute("pragma temp.page_size = 32768")
        # Nothing that is staged is rolled back: a failed load closes the connection.
        connection.execute("pragma temp.journal_mode = off")
        # 32 MB each. With the default of 2 MB, keys in random order read and write each page many times.
        connection.execute("pragma main.cache_size = -32000")
        connection.execute("pragma temp.cache_size = -32000")
        return connection

    def _try_to_open(self, mode: str) -> sqlite3.Connection:
        uri = f"file:{quote(str(self.path))}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("pragma synchronous = extra")  # a committed day survives a power cut
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        self.connection.close()

    def begin(self, dataset: str) -> None:  # noqa: ARG002 - whoever writes has the whole file
        # Take the lock first. A transaction that reads before it locks can lose the race for the lock.
        self.run("begin immediate")
        schema, user = self._read_version("schema"), self._read_version("user")
        if (schema, user) == (0, 0) or user == BEING_MADE:
            # A new file is in rollback mode, where rows are written once and not to a log first. Readers must wait in
            # this mode, so `commit` switches to WAL before it releases the lock.
            self.run("pragma main.locking_mode = exclusive")
            self.run(f"pragma user_version = {BEING_MADE}")

    def commit(self) -> None:
        self.run("commit")
        if self._read_version("user") == BEING_MADE:
            self.run("pragma journal_mode = wal")
            self.run("pragma user_version = 0")
            self.connection.close()
            self.connection = self._open()

    def _read_version(self, which: str) -> int:
        """Return the `schema` version, 0 if nothing was ever created, or the `user` version, which programs set."""
        version: int = self.run(f"pragma {which}_version").fetchone()[0]
        return version

    def run(self, sql: str, **params: Any) -> sqlite3.Cursor:
        return self.connection.execute(sql, {name: encode(value) for name, value in params.items()})

    def stream(self, sql: str, **params: Any) -> Iterator[tuple[Any, ...]]:
        return self.run(sql, **params)

    def insert(
        self, table: str, columns: Iterable[str], rows: Iterable[tuple[Any, ...]], *, skip_known: bool = False
    ) -> None:
        places, rows = {name: number for number, name in enumerate(columns, 1)}, iter(rows)
        while some := list(islice(rows, ROWS_AT_ONCE)):
            values = list(chain.from_iterable(some))
            self._insert(table, Values(places, [], values), "on conflict do nothing" if skip_known else "")

    def stage(self, table: Table, batches: "Iterable[pa.RecordBatch]") -> None:
        self.create(table, temporary=True)
        self.fill(table, batches, {})

    def fill(self, table: Table, batches: "Iterable[pa.RecordBatch]", given: Mapping[str, Any]) -> None:
        # Rows are inserted in the order of their keys. In any other order, each page of the table is read and written
        # many times. From the first row out of order on, rows are collected and sorted.
        names, into = list(table.columns), table.name
        key, columns = join_names(table.key), join_names(names)
        new = ", ".join(f'"{column}" = excluded."{column}"' for column in names if column not in table.key)
        keep_newest = f"""
            on conflict ({key}) do update set {new}
            where "{table.name}".updated_at is null or excluded.updated_at >= "{table.name}".updated_at
        """
        # A thread prepares the next rows while SQLite writes.
        with closing(read_ahead(prepare_rows(table, batches, given))) as prepared:
            for rows, in_order in prepared:
                if into == table.name and not in_order:
                    into = "_unsorted"
                    self.run(f"drop table if exists temp.{into}")
                    self.run(f"create temporary table {into} ({columns})")
                self._insert(into, rows, keep_newest if into == table.name else "")
        if into != table.name:
            self.run(f"""
                insert into "{table.name}" ({columns}) select {columns} from {into} where true order by {key}, rowid
                {keep_newest}
            """)  # noqa: S608
            self.run(f"drop table {into}")

    def _insert(self, table: str, rows: Values, on_conflict: str) -> None:
        for statement, values in rows.list_statements(table, on_conflict):
            self.connection.execute(statement, values)

    @contextmanager
    def watching(self, table: str) -> Iterator[Callable[[], int]]:
        """Count by triggers, as few rows change. They miss rows if another trigger or a REPLACE changes the table.

        Then, and if the table is empty, its rows are counted.
        """

        def count() -> int:
            return int(self.run(f'select count(*) from "{table}"').fetchone()[0])  # noqa: S608

        others = "select 1 from sqlite_master where tbl_name = :table and (type = 'trigger' or sql like '%replace%')"
        empty = f'select 1 where not exists (select 1 from "{table}")'  # noqa: S608
        if self.run(f"{others} union all {empty}", table=table).fetchone():
            before = count()
            yield lambda: count() - before
            return
        self.run("create temporary table _growth (rows)")
        self.run("insert into _growth values (0)")
        for event, step in (("insert", "+ 1"), ("delete", "- 1")):
            note = f"update _growth set rows = rows {step}"  # noqa: S608
            self.run(f'create temporary trigger _{event} after {event} on main."{table}" begin {note}; end')
        yield lambda: self.run("select rows from _growth").fetchone()[0]
        self.run("drop trigger temp._insert")
        self.run("drop trigger temp._delete")
        self.run("drop table temp._growth")

    def encode(self, value: Any) -> Any:
        return encode(value)

    def decode(self, value: Any, kind: str) -> Any:
        if value is None or kind not in ("date", "timestamp"):
            return value
        return dt.date.fromisoformat(value) if kind == "date" else dt.datetime.fromisoformat(value)

    def describe(self, name: str) -> Table:
        kind = "(select type from sqlite_master where name = :name)"
        sql = f"select name, type, pk, {kind} from pragma_table_info(:name)"  # noqa: S608
        columns = self.run(sql, name=name).fetchall()
        key = sorted((position, column) for column, _, position, _ in columns if position)
        found = Table(name, {column: type_ for column, type_, _, _ in columns}, tuple(column for _, column in key))
        return found._replace(kind="view") if any(kind == "view" for *_, kind in columns) else found

    def create(self, table: Table, *, temporary: bool = False, mark: str = "") -> None:
        name = f'constraint "{mark}"' if mark else ""
        columns = [
            f'"{column}" {self.to_type(kind)}{" not null" if column in table.key else ""}'
            for column, kind in table.columns.items()
        ]
        key = join_names(table.key)
        if temporary:
            self.run(f'drop table if exists temp."{table.name}"')
        # Tables are ordered by their key. An ordinary table already is if the key is one integer.
        ordered = "" if [table.columns[column] for column in table.key] == ["integer"] else "without rowid"
        self.run(
            f'create {"temporary" if temporary else ""} table "{table.name}" '
            f"({', '.join(columns)}, {name} primary key ({key})) {ordered}"
        )

    def read_marks(self) -> dict[str, str]:
        tables = self.run("select name, sql from sqlite_master where type = 'table'").fetchall()
        found = {name: re.search(r'constraint "([^"]*)" primary key', sql) for name, sql in tables}
        return {name: match[1] for name, match in found.items() if match}

    def widen_column(self, table: Table, column: str) -> None:
        new = "_wider"
        self.run(f'alter table "{table.name}" add column {new} {self.to_type(table.columns[column])}')
        self.run(f'update "{table.name}" set {new} = "{column}" where "{column}" is not null')  # noqa: S608
        self.run(f'alter table "{table.name}" drop column "{column}"')
        self.run(f'alter table "{table.name}" rename column {new} to "{column}"')

    def has_index(self, name: str) -> bool:
        query = "select 1 from sqlite_master where type = 'index' and name = :name"
        return self.run(query, name=name).fetchone() is not None

    def create_view(self, view: str, select: str) -> None:
        if not self.has_view(view, select):
            self.run(f'drop view if exists "{view}"')
            self.run(f'CREATE VIEW "{view}" AS {select}')

    def has_view(self, view: str, select: str) -> bool:
        found = self.run("select sql from sqlite_master where name = :view", view=view).fetchone()
        return bool(found == (f'CREATE VIEW "{view}" AS {select.rstrip()}',))  # as SQLite stores it

    def erase(self, tables: Iterable[str]) -> str | None:  # noqa: ARG002 - rewrites the whole file
        self.run("vacuum")
        if self.run("pragma wal_checkpoint(truncate)").fetchone()[0]:
            return f"{self}-wal: another program is reading the warehouse: end it, and run this again"
        return None
