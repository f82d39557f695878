"""SQLite: connections, locking, types and DDL, and those of its errors that a user can meet, as one line each.

Owns all that is particular to this database; another one is another file like it.
"""

import datetime as dt
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import quote

from wholeday.errors import ConfigError, WarehouseError
from wholeday.load.ahead import read_ahead
from wholeday.schema.tables import IN_THE_WAY, Table, join_names
from wholeday.storage import files

BUSY_SECONDS = 300.0  # how long a load waits for another to end
BEING_MADE = 1_802_723_947  # the user_version of a file while it is made; any that nobody else would choose
OLDEST_SQLITE = (3, 39, 0)  # the first with IS DISTINCT FROM
VALUES_AT_ONCE = 1000  # in one INSERT: of more there is little to gain
ROWS_AT_ONCE = 10_000  # of those that are not given as columns, in memory


if TYPE_CHECKING:
    import pyarrow as pa


class Values(NamedTuple):
    """Rows to be inserted."""

    places: Mapping[str, int]
    """For each column which of a row's values it takes, counted from 1: first those that all share, then its own."""
    shared: Sequence[Any]
    own: Sequence[Any]
    """Row after row."""


class Database:
    """The file at a URL, as SQLAlchemy writes it: three slashes and a path."""

    def __init__(self, url: str, private: bool = True) -> None:
        """Take a URL; raises ConfigError where it names no file. Only this user may read a `private` new file."""
        self._url, path = url, url.removeprefix("sqlite:///")
        self._private = private
        if path in (url, "", ":memory:") or "?" in path:
            raise ConfigError(
                f"[pipeline] database = {url}: SQLite is used in a file only: "
                "use sqlite:///data/warehouse.db, or sqlite:////absolute/path.db"
            )
        self.path = Path(path).expanduser()

    def __str__(self) -> str:
        return self._url

    def exists(self) -> bool:
        return self.path.exists()

    def connect(self, *, create: bool = False, readonly: bool = False) -> "AbstractContextManager[SQLite]":
        if create:
            self._create()
        return SQLite.connect(self.path, create, readonly)

    def _create(self) -> None:
        """Make the folder and an empty file if they do not exist. Raises WarehouseError."""
        try:
            files.make_folder(self.path.parent, self._private)
        except OSError as error:
            raise WarehouseError(f"{self.path}: its folder cannot be made: {error}: choose another database") from error
        if not self.path.exists():
            # SQLite gives its other files (-wal, -shm) the mode of this one. It says better than this what is wrong.
            with suppress(OSError):
                files.make_file(self.path, self._private)

    def find_loaded(self, dataset: str, first: dt.date, last: dt.date) -> set[dt.date]:
        query = "select date from loads where dataset = ? and date between ? and ?"
        try:
            if not self.path.is_file():
                return set()
            found = _connect(self.path, "ro", query, (dataset, str(first), str(last)))
            with closing(found.connection):
                rows = found.fetchall()
        except (sqlite3.Error, OSError) as error:
            if "no such table" in str(error):
                return set()
            code = sqlite3.SQLITE_PERM if isinstance(error, OSError) else getattr(error, "sqlite_errorcode", 0) & 0xFF
            step = NEXT_STEPS.get(code, "if the table loads is another program's, choose another database")
            raise WarehouseError(f"{self.path}: cannot ask which days are loaded: {error}: {step}") from error
        return {dt.date.fromisoformat(date) for (date,) in rows}


class SQLite:
    """A connection to a SQLite file."""

    permanent, temporary = "main", "temp"
    types: ClassVar = {
        "integer": "INTEGER",
        "text": "TEXT",
        "boolean": "BOOLEAN",
        "float": "REAL",
        "date": "DATE",  # text, whatever SQLite makes of the name
        "time": "DATETIME",
    }

    def __init__(self, path: Path, mode: str) -> None:
        self.path, self._mode = path, mode
        self.connection = self._open()

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    @contextmanager
    def connect(cls, path: Path, create: bool, readonly: bool) -> "Iterator[SQLite]":
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise WarehouseError(
                f"SQLite {sqlite3.sqlite_version} is too old, 3.39 is needed: use a Python that brings a newer one"
            )
        try:
            with closing(cls(path, "rwc" if create else "ro" if readonly else "rw")) as db:
                if readonly:
                    db.run("begin")
                yield db
        except sqlite3.Error as error:
            code, problem = getattr(error, "sqlite_errorcode", 0) & 0xFF, str(error)
            if code == sqlite3.SQLITE_IOERR and path.is_dir():  # which can be opened, if only to be read
                code, problem = sqlite3.SQLITE_CANTOPEN, "unable to open database file"
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_CONSTRAINT_TRIGGER:
                problem = "a trigger raises an error"  # whose words may tell of a user
            if getattr(error, "sqlite_errorcode", 0) in LOCK_ERRORS:
                code = sqlite3.SQLITE_PROTOCOL
            if NOT_TEXT in problem:
                raise WarehouseError(f"{path}: a value is not text: correct it, or rebuild the warehouse") from error
            if code not in NEXT_STEPS:
                raise
            raise WarehouseError(f"{path}: {problem}: {NEXT_STEPS[code]}") from error

    def _open(self) -> sqlite3.Connection:
        # A committed day survives a power cut: with less the last commits could be lost.
        connection = _connect(self.path, self._mode, "pragma synchronous = extra").connection
        # A day of any size is staged in a file, whatever this SQLite was compiled to do: memory stays bounded.
        connection.execute("pragma temp_store = file")
        # What is staged is written and read from its first row to its last: large pages save a tenth of a load.
        connection.execute("pragma temp.page_size = 32768")
        # Nor is it ever taken back: who fails closes the connection.
        connection.execute("pragma temp.journal_mode = off")
        # 32 MB each: with the default of 2 MB, keys in random order have each page read and written many times.
        connection.execute("pragma main.cache_size = -32000")
        connection.execute("pragma temp.cache_size = -32000")
        return connection

    def close(self) -> None:
        self.connection.close()

    def begin(self, dataset: str) -> None:  # noqa: ARG002 - whoever writes has the whole file
        # Other writers are waited for now: whoever reads first and locks later can lose the race for the lock.
        self.run("begin immediate")
        schema, user = self._ask_version("schema"), self._ask_version("user")
        if (schema, user) == (0, 0) or user == BEING_MADE:
            # In WAL mode everything would be written twice, to the log first. In the mode of a new file nothing is;
            # there readers wait, so that it goes over to WAL for good before the lock is given back.
            self.run("pragma main.locking_mode = exclusive")
            self.run(f"pragma user_version = {BEING_MADE}")

    def commit(self) -> None:
        self.run("commit")
        if self._ask_version("user") == BEING_MADE:
            self.run("pragma journal_mode = wal")
            self.run("pragma user_version = 0")
            self.connection.close()
            self.connection = self._open()

    def _ask_version(self, which: str) -> int:
        """Of the schema: 0 where nothing was ever made. That of the user is for programs to choose."""
        version: int = self.run(f"pragma {which}_version").fetchone()[0]
        return version

    def savepoint(self) -> AbstractContextManager[None]:
        return nullcontext()  # an error ends a statement, not the transaction

    def run(self, sql: str, **params: Any) -> sqlite3.Cursor:
        return self.connection.execute(sql, {name: self.encode(value) for name, value in params.items()})

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
        # In the order of their keys: in any other each page of the table is read and written many times. As long as
        # rows come in that order they are inserted as they come; from then on they are collected, and sorted.
        names, into = list(table.columns), table.name
        key, columns = join_names(table.key), join_names(names)
        new = ", ".join(f'"{column}" = excluded."{column}"' for column in names if column not in table.key)
        keep_newest = f"""
            on conflict ({key}) do update set {new}
            where "{table.name}".updated_at is null or excluded.updated_at >= "{table.name}".updated_at
        """
        # While SQLite writes some rows, the next are made into what it takes.
        with closing(read_ahead(self._prepare_rows(table, batches, given))) as prepared:
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

    def _prepare_rows(
        self, table: Table, batches: "Iterable[pa.RecordBatch]", given: Mapping[str, Any]
    ) -> "Iterator[tuple[Values, bool]]":
        """Batch after batch for `_insert`, and whether all rows so far have come in the order of their keys."""
        order = [column for column in table.key if column not in given]
        last: list[Any] = []
        in_order = True
        for batch in filter(len, batches):
            first, end = ([batch.column(name)[row].as_py() for name in order] for row in (0, -1))
            in_order = in_order and last <= first and _is_sorted(batch, order)
            last = end
            yield self._lay_out(table, batch, given), in_order

    def _lay_out(self, table: Table, batch: "pa.RecordBatch", given: Mapping[str, Any]) -> "Values":
        """What all rows share is there once, and a time that is in two columns too."""
        import pyarrow.compute as pc

        shared = {name: self.encode(value) for name, value in given.items()}
        own: list[str] = []
        twins: dict[str, str] = {}
        for name, kind in table.columns.items():
            if name in given:
                continue
            column = batch.column(name)
            same = (x for x in own if kind == table.columns[x] == "time" and batch.column(x).equals(column))
            if kind == "integer" and not column.null_count and len(set(pc.min_max(column).as_py().values())) == 1:
                shared[name] = column[0].as_py()
            elif twin := next(same, None):
                twins[name] = twin
            else:
                own.append(name)
        values = [None] * (len(own) * batch.num_rows)  # row after row, filled by columns
        for place, name in enumerate(own):
            values[place :: len(own)] = self._encode_column(batch.column(name), table.columns[name])
        places = {name: number for number, name in enumerate([*shared, *own], 1)}
        return Values(places | {name: places[twin] for name, twin in twins.items()}, list(shared.values()), values)

    def _insert(self, table: str, rows: "Values", on_conflict: str) -> None:
        """Insert rows, many with one statement: to run one costs as much as to write a row.

        A row that breaks a constraint ends the transaction: SQLite need not be ready to take back the statement alone.
        """
        places, shared, values = rows
        insert = f'insert or rollback into "{table}" ({join_names(places)})'
        width = max(places.values()) - len(shared)
        step = max(1, VALUES_AT_ONCE // width) * width
        for start in range(0, len(values), step):
            some = values[start : start + step]
            text = _write_rows(tuple(places.values()), len(shared), width, len(some) // width)
            self.connection.execute(f"{insert} values {text} {on_conflict}", [*shared, *some])

    @contextmanager
    def watching(self, table: str) -> Iterator[Callable[[], int]]:
        """By triggers, as what changes is less than what is there. In a table that is empty it is not.

        Nor do they see all where somebody else's triggers, or a REPLACE, add and delete rows.
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

    def filling(self, tables: Iterable[str]) -> AbstractContextManager[None]:  # noqa: ARG002 - here nothing is
        return nullcontext()

    def encode(self, value: Any) -> Any:
        """A value as it is stored: times as text of fixed width, in UTC, so that they compare as they should."""
        if isinstance(value, dt.datetime):
            return value.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return value.isoformat() if isinstance(value, dt.date) else value

    def _encode_column(self, column: "pa.Array[Any]", kind: str) -> list[Any]:
        import pyarrow as pa
        import pyarrow.compute as pc

        if kind == "time":
            # Without its zone, which is UTC, a time becomes text ten times as fast.
            text = column.cast(pa.timestamp("us")).cast(pa.string())
            return pc.binary_replace_slice(pc.binary_replace_slice(text, 10, 11, "T"), 26, 26, "Z").to_pylist()
        return (column.cast(pa.string()) if kind == "date" else column).to_pylist()

    def decode(self, value: Any, kind: str) -> Any:
        if value is None or kind not in ("date", "time"):
            return value
        return dt.date.fromisoformat(value) if kind == "date" else dt.datetime.fromisoformat(value)

    def describe(self, name: str) -> Table:
        columns = self.run("select name, type, pk from pragma_table_info(:name)", name=name).fetchall()
        key = sorted((position, column) for column, _, position in columns if position)
        view = self.run("select 1 from sqlite_master where name = :name and type = 'view'", name=name).fetchone()
        found = Table(name, {column: type_ for column, type_, _ in columns}, tuple(column for _, column in key))
        return found._replace(kind="view") if view else found

    def create(self, table: Table, *, temporary: bool = False) -> None:
        key = join_names(table.key)
        columns = [
            f'"{column}" {self.types[kind]}{" not null" if column in table.key else ""}'
            for column, kind in table.columns.items()
        ]
        if temporary:
            self.run(f'drop table if exists temp."{table.name}"')
        # A table is ordered by its key; where that is one integer an ordinary one is so already.
        ordered = "" if [table.columns[column] for column in table.key] == ["integer"] else "without rowid"
        self.run(
            f'create {"temporary" if temporary else ""} table "{table.name}" '
            f"({', '.join(columns)}, primary key ({key})) {ordered}"
        )

    def add_column(self, table: Table, column: str) -> None:
        self.run(f'alter table "{table.name}" add column "{column}" {self.types[table.columns[column]]}')

    def create_index(self, name: str, sql: str) -> None:
        if not self.run("select 1 from sqlite_master where type = 'index' and name = :name", name=name).fetchone():
            self.run(sql)

    def create_view(self, view: str, select: str) -> None:
        if not self.has_view(view, select):
            self.run(f'drop view if exists "{view}"')
            self.run(f'CREATE VIEW "{view}" AS {select}')

    def has_view(self, view: str, select: str) -> bool:
        found = self.run("select sql from sqlite_master where name = :view", view=view).fetchone()
        return bool(found == (f'CREATE VIEW "{view}" AS {select.rstrip()}',))  # as SQLite keeps it

    def erase(self, tables: Iterable[str]) -> str | None:  # noqa: ARG002 - the whole file is written anew
        self.run("vacuum")
        if self.run("pragma wal_checkpoint(truncate)").fetchone()[0]:
            return f"{self}-wal: another program is reading the warehouse: end it, and run this again"
        return None


def _connect(path: Path, mode: str, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
    """The cursor of a first statement; before it a write in which a process was killed is taken back."""
    try:
        return _try_to_connect(path, mode, statement, values)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
    _try_to_connect(path, "rw", "pragma schema_version", ()).connection.close()
    return _try_to_connect(path, mode, statement, values)


def _try_to_connect(path: Path, mode: str, statement: str, values: Sequence[Any]) -> sqlite3.Cursor:
    uri = f"file:{quote(str(path))}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        return connection.execute(statement, values)
    except sqlite3.Error:
        connection.close()
        raise


@lru_cache
def _write_rows(places: Sequence[int], shared: int, width: int, rows: int) -> str:
    """The parameters of so many rows."""
    return ", ".join(
        f"({', '.join(f'?{place if place <= shared else place + row * width}' for place in places)})"
        for row in range(rows)
    )


def _is_sorted(batch: "pa.RecordBatch", key: Iterable[str]) -> bool:
    import pyarrow.compute as pc

    order = pc.sort_indices(batch, sort_keys=[(column, "ascending") for column in key])
    return bool(pc.all(pc.less(order[:-1], order[1:]), min_count=0).as_py())


NOT_TEXT = "Could not decode to UTF-8"
# Of file systems that cannot lock, such as NFS without its lock service.
LOCK_ERRORS = {
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_RDLOCK,
    sqlite3.SQLITE_IOERR_UNLOCK,
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
    sqlite3.SQLITE_IOERR_SHMLOCK,
}
NEXT_STEPS = {
    sqlite3.SQLITE_PROTOCOL: "the file system cannot lock files: move the database to a local disk",
    sqlite3.SQLITE_BUSY: "another program is writing to it: wait for that to end, or end it, and run again",
    sqlite3.SQLITE_LOCKED: "another program is writing to it: wait for that to end, or end it, and run again",
    sqlite3.SQLITE_READONLY: "give this user the right to write the file and its folder, and run again",
    sqlite3.SQLITE_PERM: "give this user the right to write the file and its folder, and run again",
    sqlite3.SQLITE_CANTOPEN: "it must be a file that this user may read and write, in a folder where files may be made",
    sqlite3.SQLITE_FULL: "free space there and in the folder for temporary files (SQLITE_TMPDIR), and run again",
    sqlite3.SQLITE_IOERR: "look at the disk of the file and of temporary files (SQLITE_TMPDIR), and run again",
    sqlite3.SQLITE_CONSTRAINT: IN_THE_WAY,
    sqlite3.SQLITE_NOTADB: "it is no SQLite database: choose another file",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup, or move it away and load the days again",
}
