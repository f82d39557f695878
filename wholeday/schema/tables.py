"""The tables of the warehouse: what a dataset declares, and what is stored for it.

Responsibilities: names, keys, and the kinds of columns. Every database has a type for each *kind*: text, integer,
float, boolean, date, time.
Non-goals: SQL; see load/sql.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from wholeday.errors import ConfigError
from wholeday.schema.marker import list_columns

if TYPE_CHECKING:
    import sqlalchemy as sa


class Table(NamedTuple):
    """A table with the kinds of its columns and its primary key, or a view, which has no key."""

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]
    kind: str = "table"


LOADS = Table("loads", list_columns(), ("dataset", "date"))
REJECTS = Table(
    "rejects",
    {"dataset": "text", "load_date": "date", "part": "integer", "line": "integer"}
    | dict.fromkeys(("reason", "field", "key", "record"), "text"),
    ("dataset", "load_date", "part", "line"),
)
TAKEN = ("loads", "rejects")
LONGEST_NAME = 63  # bytes; PostgreSQL silently cuts a longer one
LONGEST_DERIVED = "_{}_forgotten"  # of the names derived from a dataset's
TAKEN_BEGINNINGS = ("_", "pg_", "sqlite_")
RESERVED_COLUMNS = {
    "date",  # of the clean files, readers get the date of the folder instead
    *("at", "as_of", "load_date", "ingested_at", "deleted", "valid_from", "valid_to"),
    *("xmin", "xmax", "cmin", "cmax", "ctid", "tableoid"),  # PostgreSQL's own
    *("rowid", "oid"),  # SQLite's
}
IN_THE_WAY = (
    "a constraint or trigger in the database stands in the way: drop it, or have it on a copy of the table; "
    "if nobody added one, report this"
)


class StoredTables(NamedTuple):
    """The tables of a dataset, by their role. Only `present` is for queries."""

    present: Table
    days: Table
    events: Table
    changes: Table
    forgotten: Table


class WorkTables(NamedTuple):
    """The temporary tables of one load."""

    stage: Table
    """The records of the day."""
    touched: Table
    """The users to look at."""
    changed: Table
    """The users that differ between a snapshot and the snapshot before it."""
    wanted: Table
    """The rows that the present should have; `_until` is the time of the last snapshot that knows them."""
    before: Table
    """The rows of the present that the load changes, before it changes them."""


@dataclass(frozen=True)
class Declared:
    """The declared table of a dataset: the columns of its key and of its row, each with its kind."""

    name: str
    key: dict[str, str]
    row: dict[str, str]

    @classmethod
    def read(cls, name: str, table: "Callable[[sa.MetaData], sa.Table]") -> "Declared":
        """Read a declaration. Raises ConfigError if the warehouse cannot store such a table."""
        import sqlalchemy as sa

        declared = table(sa.MetaData())
        kinds = {column.name: _find_kind(name, column) for column in declared.columns}
        key = {column.name: kinds[column.name] for column in declared.primary_key.columns}
        lower = name.lower()
        if declared.name != name or lower in TAKEN or lower.startswith(TAKEN_BEGINNINGS) or '"' in name:
            others = ", ".join([*(f"{beginning}…" for beginning in TAKEN_BEGINNINGS), *TAKEN])
            raise ConfigError(f"table {declared.name} of dataset {name}: give both one name, not {others}")
        if reserved := [c for c in kinds if c.lower() in RESERVED_COLUMNS or c.startswith("_") or '"' in c]:
            raise ConfigError(f"table {name}: the warehouse needs the name {', '.join(reserved)}: rename the column")
        longest = max((LONGEST_DERIVED.format(name), *kinds), key=lambda text: len(text.encode()))
        if len(longest.encode()) > LONGEST_NAME:
            raise ConfigError(
                f"table {name}: the name {longest} is longer than {LONGEST_NAME} bytes: choose a shorter name; "
                f"a column may have {LONGEST_NAME} bytes, a table {LONGEST_NAME - len(LONGEST_DERIVED.format(''))}"
            )
        if len({column.lower() for column in kinds}) < len(kinds):
            raise ConfigError(f"table {name}: two columns differ in upper and lower case only: rename one")
        if not key or not set(key.values()) <= {"integer", "text"}:
            raise ConfigError(f"table {name}: its primary key must be the natural key, of integer and text columns")
        if kinds.get("updated_at") != "time":
            raise ConfigError(
                f"table {name}: it needs a column updated_at of type DateTime(timezone=True), outside the key: "
                "add it, and leave it null where the source has none"
            )
        return cls(name, key, {column: kind for column, kind in kinds.items() if column not in key})

    def stored(self) -> "StoredTables":
        """Return the tables that hold this dataset."""
        key, state = tuple(self.key), {"_state": "integer", **self.row}
        days = {"load_date": "date", "mode": "text", "as_of": "time", "extracted_at": "time"}
        events = {"load_date": "date", **self.key, "at": "time", **state}
        return StoredTables(
            present=Table(self.name, {**self.key, **self.row, "ingested_at": "time", "load_date": "date"}, key),
            days=Table(f"_{self.name}_days", days, ("load_date",)),
            events=Table(f"_{self.name}_events", events, ("load_date", *key, "at")),
            changes=Table(f"_{self.name}_changes", {**self.key, "as_of": "time", **state}, (*key, "as_of")),
            forgotten=Table(f"_{self.name}_forgotten", self.key, key),
        )

    def temporary(self, snapshot: bool = False) -> "WorkTables":
        """Return the temporary tables of one load."""
        key, state = tuple(self.key), {**self.key, "_state": "integer", **self.row}
        wanted = {**state, "_until": "time", "ingested_at": "time", "load_date": "date"}
        # All records of a snapshot have one time, so that `at` is not stored.
        stage, record = (state, key) if snapshot else ({**state, "at": "time"}, (*key, "at"))
        return WorkTables(
            stage=Table("_stage", stage, record),
            touched=Table("_touched", self.key, key),
            changed=Table("_changed", state, key),
            wanted=Table("_wanted", wanted, key),
            before=Table("_before", state, key),
        )


def quote(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def join_names(columns: Iterable[str]) -> str:
    """Return names as a list of SQL identifiers."""
    return ", ".join(map(quote, columns))


def _find_kind(name: str, column: "sa.Column[Any]") -> str:
    import sqlalchemy as sa

    if isinstance(column.type, sa.DateTime) and column.type.timezone:
        return "time"
    kinds = {sa.Boolean: "boolean", sa.Integer: "integer", sa.Float: "float", sa.Date: "date", sa.String: "text"}
    kind = next((kind for type_, kind in kinds.items() if isinstance(column.type, type_)), None)
    if kind is None or isinstance(column.type, sa.Enum):
        fixes: dict[type[sa.types.TypeEngine[Any]], str] = {
            sa.DateTime: "use DateTime(timezone=True); times without an offset are read in the section's timezone",
            sa.Numeric: "use Text to keep each digit, or Float",
            sa.JSON: "use a column for each field that you need; raw files keep the object",
        }
        fix = next((fix for type_, fix in fixes.items() if isinstance(column.type, type_)), "use Text")
        raise ConfigError(
            f"table {name}: column {column.name} cannot be stored as {column.type!r}: {fix} "
            "(columns are BigInteger, Text, Boolean, Float, Date or DateTime(timezone=True))"
        )
    return kind
