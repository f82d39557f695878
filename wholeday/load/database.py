"""Which database a URL names, and what a database must be able to do.

Responsibilities: the seam between the SQL of the warehouse, which is the same for all databases, and the drivers.
Non-goals: anything that is particular to one database. It is in the package of that database.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from wholeday.errors import ConfigError, WarehouseError
from wholeday.schema.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[Any, ...]
TYPES: dict[str, type | tuple[type, ...]] = {  # of Python, by kind: a column of SQLite holds any value
    "date": dt.date,
    "timestamp": dt.datetime,
    "integer": int,
    "float": (int, float),
    "text": str,
}


class Rows(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection for one transaction. Its `str()` names the database in errors, without a password.

    Each database implements the methods without a body. SQL has named parameters (`:name`), which may be dates and
    aware times. A temporary table hides a permanent one of the same name; `permanent` and `temporary` are the schemas
    that distinguish them.
    """

    permanent: str
    temporary: str

    def begin(self, dataset: str) -> None:
        """Begin to write, after every other connection that writes this dataset. Raises WarehouseError on timeout."""

    def commit(self) -> None: ...

    def savepoint(self) -> AbstractContextManager[Any]:
        """Open a block whose failure leaves the transaction usable. The error is raised."""
        return nullcontext()  # if an error ends only its statement

    def run(self, sql: str, **params: Any) -> Rows:
        """Run one statement."""

    def stream(self, sql: str, **params: Any) -> Iterator[Row]:
        """Yield the rows of a query, a few at a time in memory."""

    def insert(self, table: str, columns: Iterable[str], rows: Iterable[Row], *, skip_known: bool = False) -> None:
        """Insert rows of encoded values; with `skip_known` only rows whose key is new."""

    def stage(self, table: Table, batches: "Iterable[pa.RecordBatch]") -> None:
        """Create a temporary table from batches with its columns, among them `updated_at`.

        Of rows with the same key, the one with the highest `updated_at` stays; of equal ones the last.
        """

    def fill(self, table: Table, batches: "Iterable[pa.RecordBatch]", given: Mapping[str, Any]) -> None:
        """Do the same with an existing empty table. `given` are columns that have one value in all rows."""

    def watching(self, table: str) -> AbstractContextManager[Callable[[], int]]:
        """Return a function that counts by how many rows a table has grown in this block, also by triggers."""

    def filling(self, tables: Iterable[str]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Open a block that inserts many rows into these empty tables. Indexes may be built at its end."""
        return nullcontext()

    def encode(self, value: Any) -> Any:
        """Return the value to store."""
        return value

    def decode(self, value: Any, kind: str) -> Any:  # noqa: ARG002
        """Return the value that `encode` was given. Times are in UTC."""
        return value

    def describe(self, name: str) -> Table:
        """Return a table or view as stored, with the types of the database; without columns if it does not exist."""

    def create(self, table: Table, *, temporary: bool = False, mark: str = "") -> None:
        """Create a table with its primary key, and a mark. A temporary one replaces an earlier one of its name."""

    def read_marks(self) -> dict[str, str]:
        """Return the marks of the tables that have one, by the name of the table."""

    def add_column(self, table: Table, column: str) -> None:
        self.run(f'alter table "{table.name}" add column "{column}" {self.to_type(table.columns[column])}')

    def widen_column(self, table: Table, column: str) -> None:
        """Change the type of a column of decimals to one that holds more digits."""

    def to_type(self, kind: str) -> str:
        """Return the type that `describe` returns for a column of a kind."""

    def list_items(self, list_: str, alias: str) -> str:
        """Return SQL for a table of the items of a JSON list. Any other value has none."""

    def read_position(self, alias: str) -> str:
        """Return SQL for the position of an item, from 0."""

    def read_member(self, alias: str, name: str, kind: str) -> str:
        """Return SQL for the value of a name in an item, as a column of a kind holds it."""

    def has_index(self, name: str) -> bool: ...

    def create_view(self, view: str, select: str) -> None:
        """Create a view, or replace it if it is a different one."""

    def has_view(self, view: str, select: str) -> bool:
        """Whether the view exists as `create_view` creates it."""

    def erase(self, tables: Iterable[str]) -> str | None:
        """Remove the bytes of deleted rows of these tables from the files of the database, after a commit.

        Return what keeps some of them there, None if all are gone.
        """


class Database(Protocol):
    """A database that is not connected to yet. Its `str()` is its URL without a password."""

    def exists(self) -> bool:
        """Whether there may be something to read."""

    def to_type(self, kind: str) -> str:
        """Return the type of a column of a kind. Raises DatasetError if no column can hold such values exactly."""

    def connect(self, *, create: bool = False, readonly: bool = False) -> AbstractContextManager[Connection]:
        """Connect for one transaction, which is rolled back at the end unless it was committed.

        `create` creates the file or schema if it is missing. `readonly` reads everything as of one moment, and can
        write temporary tables only. Raises WarehouseError for errors that a user can cause, and
        InterruptedTransactionError for temporary errors.
        """


@contextmanager
def connect_existing(database: Database) -> Iterator[Connection | None]:
    """Connect to a database for reading, as of one moment. Yield None if it does not exist, without creating it."""
    if database.exists():
        with database.connect(readonly=True) as db:
            yield db
    else:
        yield None


def find_database(url: str, private: bool = True) -> Database:
    """Return the database at a SQLAlchemy URL. Raises ConfigError, without the password, for other databases,
    and if the driver of PostgreSQL is not installed.

    The files of a new `private` database are readable by this user only.
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        from wholeday.load.sqlite.database import Database as SQLiteDatabase

        return SQLiteDatabase(url, private)
    if scheme in ("postgresql", "postgresql+psycopg"):
        try:
            from wholeday.load.postgres.database import Database as PostgreSQLDatabase
        except ImportError as error:  # the driver is an extra; also without libpq
            raise ConfigError(
                f"PostgreSQL needs the driver psycopg, but {error}: pip install 'psycopg[binary]>=3.3'"
            ) from error
        return PostgreSQLDatabase(url)
    shown = f"{scheme}://…" if "@" in url else url
    raise ConfigError(
        f"[pipeline] database = {shown}: the warehouse can be a SQLite file (sqlite:///data/warehouse.db) or "
        "PostgreSQL (postgresql+psycopg://user@host/name)"
    )


def decode(db: Connection, column: str, value: Any, kind: str) -> Any:
    """Return a stored value of a column. Raises WarehouseError if it is not of the kind, as SQLite allows."""
    try:
        found = db.decode(value, kind)
    except (ValueError, TypeError):
        found = value
    fits = found is None or isinstance(found, TYPES.get(kind, object))
    if not fits or (isinstance(found, dt.datetime) and not found.tzinfo):
        raise WarehouseError(f"{column} is {value!r}, not of type {kind}")
    return found
