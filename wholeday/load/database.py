"""Which database a URL names, and what every one of them can do.

Owns the seam: whatever differs between databases is behind these two protocols, in one file for each database.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from wholeday.errors import ConfigError
from wholeday.load import postgres, sqlite
from wholeday.schema.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[Any, ...]


class Rows(Protocol):
    """What a statement gives."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection for one transaction. Its `str()` names the database in errors, without its password.

    SQL has named parameters (`:name`), which may be dates and aware times. A temporary table goes before another of
    its name; `permanent` and `temporary` are the schemas that tell them apart.
    """

    @property
    def types(self) -> Mapping[str, str]:
        """What `describe` says of a column of a kind."""

    @property
    def permanent(self) -> str: ...
    @property
    def temporary(self) -> str: ...

    def begin(self, dataset: str) -> None:
        """Begin to write, once no other connection does that works on this dataset; raises WarehouseError."""

    def commit(self) -> None: ...

    def savepoint(self) -> AbstractContextManager[Any]:
        """A block within the transaction. An error in it is raised, and the transaction can go on after the block."""

    def run(self, sql: str, **params: Any) -> Rows:
        """Run one statement."""

    def stream(self, sql: str, **params: Any) -> Iterator[Row]:
        """The rows of a query, not all of them in memory."""

    def insert(self, table: str, columns: Iterable[str], rows: Iterable[Row], *, skip_known: bool = False) -> None:
        """Insert rows of encoded values; with `skip_known` those of which there is no row with the same key yet."""

    def stage(self, table: Table, batches: "Iterable[pa.RecordBatch]") -> None:
        """Make a temporary table of batches with its columns, among them `updated_at`.

        Of rows with the same key that with the highest `updated_at` stays, of equal ones the later.
        """

    def fill(self, table: Table, batches: "Iterable[pa.RecordBatch]", given: Mapping[str, Any]) -> None:
        """Do the same in a table that is there and has no row; `given` are the columns with one value in all rows."""

    def watching(self, table: str) -> AbstractContextManager[Callable[[], int]]:
        """Says by how many rows a table has grown meanwhile, in this transaction, whoever has added or deleted them."""

    def filling(self, tables: Iterable[str]) -> AbstractContextManager[None]:
        """While these tables, in which there is no row, are given many: what is cheaper afterwards is done then."""

    def encode(self, value: Any) -> Any:
        """A value as it is stored."""

    def decode(self, value: Any, kind: str) -> Any:
        """What `encode` was given, back; times in UTC."""

    def describe(self, name: str) -> Table:
        """A table or view as it is stored, its columns with the database's types; none where there is no such one."""

    def create(self, table: Table, *, temporary: bool = False) -> None:
        """Create a table, its key among its constraints; a temporary one takes the place of another of its name."""

    def add_column(self, table: Table, column: str) -> None: ...

    def create_index(self, name: str, sql: str) -> None:
        """Create an index by this statement, where there is none of its name."""

    def create_view(self, view: str, select: str) -> None:
        """Create a view, or make it anew where it is another."""

    def has_view(self, view: str, select: str) -> bool:
        """Whether there is a view, as `create_view` makes it."""

    def erase(self, tables: Iterable[str]) -> str | None:
        """After a commit: let nothing that was deleted from these tables be found in the database's files.

        Returns what keeps some of it there, None where nothing does.
        """


class Database(Protocol):
    """A database that is not connected to yet. Its `str()` is its URL, without a password."""

    def exists(self) -> bool:
        """Whether there may be something to read."""

    def connect(self, *, create: bool = False, readonly: bool = False) -> AbstractContextManager[Connection]:
        """A connection for one transaction: what is not committed when it closes is rolled back.

        With `create` what holds the tables is made where it is missing. With `readonly` all that is read is of one
        moment, and only temporary tables can be written. Raises WarehouseError for what a user can meet, BrokenOffError
        where that passes.
        """

    def find_loaded(self, dataset: str, first: dt.date, last: dt.date) -> set[dt.date]:
        """The days from `first` to `last` that have a marker, with one SELECT. Nothing is made by being asked."""


def find_database(url: str, private: bool = True) -> Database:
    """The database that a SQLAlchemy URL names. Raises ConfigError, without a password, where it is no warehouse.

    Only this user may read the `private` file of a new one.
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return sqlite.Database(url, private)
    if scheme in ("postgresql", "postgresql+psycopg"):
        return postgres.Database(url)
    shown = f"{scheme}://…" if "@" in url else url
    raise ConfigError(
        f"[pipeline] database = {shown}: the warehouse can be a SQLite file (sqlite:///data/warehouse.db) or "
        "PostgreSQL (postgresql+psycopg://user@host/name)"
    )
