"""SQLite: connections, locking, types and DDL, and those of its errors that a user can meet, as one line each.

Owns all that is particular to this database; another one is another file like it.
"""

import datetime as dt
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from pipeline.errors import WarehouseError
from pipeline.schema import Table

BUSY_SECONDS = 300.0  # how long a load waits for another to end
OLDEST_SQLITE = (3, 39, 0)  # the first with IS DISTINCT FROM
VALUES_AT_ONCE = 1000  # in one INSERT: of more there is little to gain


if TYPE_CHECKING:
    import pyarrow as pa


class SQLite:
    """A connection to a SQLite file: locking, types, DDL; those of its errors that a user can meet become one line."""

    types: ClassVar = {
        "integer": "INTEGER",
        "text": "TEXT",
        "boolean": "BOOLEAN",
        "float": "REAL",
        "date": "DATE",  # text, whatever SQLite makes of the name
        "time": "DATETIME",
    }

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self.connection = path, connection

    @classmethod
    @contextmanager
    def connect(cls, path: Path, create: bool = False, readonly: bool = False) -> "Iterator[SQLite]":
        """A connection for one transaction: what is not committed when it closes is rolled back.

        With `create` the file and its folder are made where they are missing; with `readonly` only temporary tables can
        be written.
        """
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise WarehouseError(
                f"SQLite {sqlite3.sqlite_version} is too old, 3.39 is needed: use a Python that brings a newer one"
            )
        if create:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise WarehouseError(f"{path}: its folder cannot be made: {error}: choose another database") from error
        mode = "rwc" if create else "ro" if readonly else "rw"
        uri = f"file:{quote(str(path))}?mode={mode}"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
                if create:
                    cls._prepare(connection)
                # A day of any size is staged in a file, whatever this SQLite was compiled to do: memory stays bounded.
                connection.execute("pragma temp_store = file")
                # 32 MB each: with the default of 2 MB, keys in random order have each page read and written many times.
                connection.execute("pragma main.cache_size = -32000")
                connection.execute("pragma temp.cache_size = -32000")
                yield cls(path, connection)
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code not in NEXT_STEPS:
                raise
            raise WarehouseError(f"{path}: {error}: {NEXT_STEPS[code]}") from error

    @staticmethod
    def _prepare(connection: sqlite3.Connection) -> None:
        # In a file that is made here, readers (status, a task's complete()) go on reading while a load writes. The
        # switch to WAL takes the file alone and does not wait as other statements do: two first loads can meet here.
        give_up = time.monotonic() + BUSY_SECONDS
        while connection.execute("pragma page_count").fetchone() == (0,):
            try:
                connection.execute("pragma journal_mode = wal")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
        # A committed day survives a power cut: in WAL mode, NORMAL could lose the last commits.
        connection.execute("pragma synchronous = full")

    def begin(self) -> None:
        """Begin, and wait for other writers now: whoever reads first and locks later can lose the race for the lock."""
        self.run("begin immediate")

    def commit(self) -> None:
        self.run("commit")

    def run(self, sql: str, **params: Any) -> sqlite3.Cursor:
        """Run one statement; its named parameters may be dates and aware times."""
        return self.connection.execute(sql, {name: self.encode(value) for name, value in params.items()})

    def insert(
        self, table: str, columns: Iterable[str], rows: Iterable[tuple[Any, ...]], on_conflict: str = ""
    ) -> None:
        """Insert rows of encoded values, many with one statement: to run one costs as much as to write a row.

        A row that breaks a constraint ends the transaction: SQLite need not be ready to take back the statement alone.
        """
        names = [f'"{column}"' for column in columns]
        row, rows_at_once = f"({', '.join('?' * len(names))})", max(1, VALUES_AT_ONCE // len(names))
        insert = f'insert or rollback into "{table}" ({", ".join(names)})'
        values = chain.from_iterable(rows)
        while some := tuple(islice(values, rows_at_once * len(names))):
            places = ", ".join([row] * (len(some) // len(names)))
            self.connection.execute(f"{insert} values {places} {on_conflict}", some)

    def encode(self, value: Any) -> Any:
        """A value as it is stored: times as text of fixed width, in UTC, so that they compare as they should."""
        if isinstance(value, dt.datetime):
            return value.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return value.isoformat() if isinstance(value, dt.date) else value

    def encode_column(self, column: "pa.Array[Any]", kind: str) -> list[Any]:
        """A column of a batch as the values that are stored."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if kind == "time":
            # Without its zone, which is UTC, a time becomes text ten times as fast.
            text = column.cast(pa.timestamp("us")).cast(pa.string())
            return pc.binary_replace_slice(pc.binary_replace_slice(text, 10, 11, "T"), 26, 26, "Z").to_pylist()
        return (column.cast(pa.string()) if kind == "date" else column).to_pylist()

    def decode(self, value: Any, kind: str) -> Any:
        """What `encode` was given, back."""
        if value is None or kind not in ("date", "time"):
            return value
        return dt.date.fromisoformat(value) if kind == "date" else dt.datetime.fromisoformat(value)

    def describe(self, name: str) -> Table:
        """A table or view as it is stored, its columns with SQLite's types; without columns where there is none."""
        columns = self.run("select name, type, pk from pragma_table_info(:name)", name=name).fetchall()
        key = sorted((position, column) for column, _, position in columns if position)
        return Table(name, {column: type_ for column, type_, _ in columns}, tuple(column for _, column in key))

    def create(self, table: Table, temporary: bool = False) -> None:
        """Create a table that is ordered by its key, in which no column of the key can be null.

        A temporary one takes the place of another of its name.
        """
        key = ", ".join(f'"{column}"' for column in table.key)
        columns = [
            f'"{column}" {self.types[kind]}{" not null" if column in table.key else ""}'
            for column, kind in table.columns.items()
        ]
        if temporary:
            self.run(f'drop table if exists temp."{table.name}"')
        # A key of one integer is the order of an ordinary SQLite table already.
        ordered = "" if [table.columns[column] for column in table.key] == ["integer"] else "without rowid"
        self.run(
            f'create {"temporary" if temporary else ""} table "{table.name}" '
            f"({', '.join(columns)}, primary key ({key})) {ordered}"
        )

    def add_column(self, table: Table, column: str) -> None:
        self.run(f'alter table "{table.name}" add column "{column}" {self.types[table.columns[column]]}')

    def create_view(self, view: str, select: str) -> None:
        """Create a view, or make it anew where its text is another."""
        sql = f'CREATE VIEW "{view}" AS {select}'
        if self.run("select sql from sqlite_master where name = :view", view=view).fetchone() != (sql,):
            self.run(f'drop view if exists "{view}"')
            self.run(sql)


NEXT_STEPS = {
    sqlite3.SQLITE_BUSY: "another program is writing to it: wait for that to end, or end it, and run again",
    sqlite3.SQLITE_LOCKED: "another program is writing to it: wait for that to end, or end it, and run again",
    sqlite3.SQLITE_READONLY: "give this user the right to write the file and its folder, and run again",
    sqlite3.SQLITE_PERM: "give this user the right to write the file and its folder, and run again",
    sqlite3.SQLITE_CANTOPEN: "it must be a file that this user may read and write, in a folder where files may be made",
    sqlite3.SQLITE_FULL: "free space there and in the folder for temporary files (SQLITE_TMPDIR), and run again",
    sqlite3.SQLITE_IOERR: "look at the disk of the file and of temporary files (SQLITE_TMPDIR), and run again",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database: choose another file",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup, or move it away and load the days again",
}
