"""The tables of the warehouse: what a dataset declares, and what is stored for it.

Responsibilities: names, keys, and the kinds of columns. Every database has a type for each kind (`kinds`).
Non-goals: SQL; see load/sql.py.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from wholeday.errors import DatasetError
from wholeday.schema.columns import Columns
from wholeday.schema.kinds import INTEGER
from wholeday.schema.marker import list_columns


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
MARK = "child table of "  # of the tables of a record class, with the name of the dataset
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
RESERVED_CHILD_COLUMNS = RESERVED_COLUMNS - {"date", "at", "as_of", "load_date", "ingested_at", "deleted"}
IN_THE_WAY = (
    "a constraint or trigger in the database stands in the way: drop it, or have it on a copy of the table; "
    "if nobody added one, report this"
)


class StoredTables(NamedTuple):
    """The tables of a dataset, by their role. Only `present` is for queries."""

    present: Table
    past: Table
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
    """The rows that the present should have; `valid_from` is the time of their fact, `_until` the time of the last
    snapshot that knows them."""
    before: Table
    """The rows of the present that the load changes, before it changes them; `valid_to` is when they change."""
    unordered: Table
    """The users with a fact that is not later than all others: all their versions are computed again."""
    versions: Table
    """The versions of these users."""


class Level(NamedTuple):
    """A list on the way from a row to the items of a child table, and the key of its items."""

    list_name: str
    """The column of the dataset's table with the list, or the name of the list within an item of the level above."""
    key: dict[str, str]
    """The primary key of an item within its list, or `position`, from 0."""
    is_positional: bool


@dataclass(frozen=True)
class ChildTable:
    """A table of the items of lists. It is derived from the lists that the rows of the dataset's table hold."""

    dataset: str
    dataset_key: dict[str, str]
    levels: tuple[Level, ...]
    row: dict[str, str]

    @property
    def name(self) -> str:
        """The name of the table: those of the dataset's table and of the lists."""
        return "_".join([self.dataset, *(level.list_name for level in self.levels)])

    @property
    def parent_key(self) -> dict[str, str]:
        """The key of the item that holds the list, each column named after its table and its name there."""
        key = {f"{self.dataset}_{column}": kind for column, kind in self.dataset_key.items()}
        for number, level in enumerate(self.levels[:-1], 1):
            table = "_".join([self.dataset, *(above.list_name for above in self.levels[:number])])
            key |= {f"{table}_{column}": kind for column, kind in level.key.items()}
        return key

    @property
    def root_columns(self) -> tuple[str, ...]:
        """The columns with the key of the dataset's row."""
        return tuple(f"{self.dataset}_{column}" for column in self.dataset_key)

    @property
    def mark(self) -> str:
        """What tells the table from those of other programs."""
        return f"{MARK}{self.dataset}"

    @property
    def table(self) -> Table:
        """The stored table."""
        key = self.parent_key | self.levels[-1].key
        return Table(self.name, key | self.row, tuple(key))


@dataclass(frozen=True, eq=False)  # hashed by identity: the words of SQL are cached for each
class Declared:
    """The declared tables of a dataset: the columns of its key and of its row, each with its kind."""

    name: str
    key: dict[str, str]
    row: dict[str, str]
    children: tuple[ChildTable, ...] = ()

    @classmethod
    def read(cls, name: str, columns: Columns) -> "Declared":
        """Read the tables of a record class. Raises DatasetError if the warehouse cannot store one of them."""
        if name.lower() in TAKEN or name.lower().startswith(TAKEN_BEGINNINGS) or '"' in name or not name:
            others = ", ".join([*(f"{beginning}…" for beginning in TAKEN_BEGINNINGS), *TAKEN])
            raise DatasetError(f"the warehouse has no table of this name: choose another, not {others}")
        key = {column.name: column.kind for column in columns.key}
        row = {column.name: column.kind for column in columns.row}
        _check_names(name, [*key, *row], RESERVED_COLUMNS)
        children = tuple(_list_children(name, key, columns))
        for child in children:
            _check_names(child.name, child.table.columns, RESERVED_CHILD_COLUMNS)
        _check_tables(name, children)
        return cls(name, key, row, children)

    @cached_property
    def stored(self) -> "StoredTables":
        """The tables that hold this dataset."""
        key, state = tuple(self.key), {"_state": "integer", **self.row}
        days = {"load_date": "date", "mode": "text", "as_of": "timestamp", "extracted_at": "timestamp"}
        events = {"load_date": "date", **self.key, "at": "timestamp", **state}
        present = {**self.key, **self.row, "valid_from": "timestamp", "ingested_at": "timestamp", "load_date": "date"}
        return StoredTables(
            present=Table(self.name, present, key),
            past=Table(f"_{self.name}_past", self.history, (*key, "valid_from")),
            days=Table(f"_{self.name}_days", days, ("load_date",)),
            events=Table(f"_{self.name}_events", events, ("load_date", *key, "at")),
            changes=Table(f"_{self.name}_changes", {**self.key, "as_of": "timestamp", **state}, (*key, "as_of")),
            forgotten=Table(f"_{self.name}_forgotten", self.key, key),
        )

    @property
    def history(self) -> dict[str, str]:
        """The columns of the view of the history."""
        return {**self.key, **self.row, "valid_from": "timestamp", "valid_to": "timestamp"}

    def temporary(self, snapshot: bool = False) -> "WorkTables":
        """Return the temporary tables of one load."""
        key, state = tuple(self.key), {**self.key, "_state": "integer", **self.row}
        times = dict.fromkeys(("valid_from", "_until", "ingested_at"), "timestamp")
        wanted = {**state, **times, "load_date": "date"}
        # All records of a snapshot have one time, so that `at` is not stored.
        stage, record = (state, key) if snapshot else ({**state, "at": "timestamp"}, (*key, "at"))
        return WorkTables(
            stage=Table("_stage", stage, record),
            touched=Table("_touched", self.key, key),
            changed=Table("_changed", state, key),
            wanted=Table("_wanted", wanted, key),
            before=Table("_before", self.history | {"_state": "integer"}, key),
            unordered=Table("_unordered", self.key, key),
            versions=Table("_versions", self.history, (*key, "valid_from")),
        )


def find_dataset(mark: str) -> str:
    """Return the dataset of the child table with this mark; empty for any other mark."""
    return mark.removeprefix(MARK) if mark.startswith(MARK) else ""


def quote(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def join_names(columns: Iterable[str]) -> str:
    """Return names as a list of SQL identifiers."""
    return ", ".join(map(quote, columns))


def _list_children(
    dataset: str, key: Mapping[str, str], columns: Columns, above: tuple[Level, ...] = ()
) -> Iterator[ChildTable]:
    """Yield the child tables of a record class, each before those of its own lists."""
    for column in columns:
        if column.children is None:
            continue
        inner = column.children
        own = {child.name: child.kind for child in inner.key}
        level = Level(column.name, own or {"position": INTEGER}, not own)
        row = {child.name: child.kind for child in inner.row}
        child = ChildTable(dataset, dict(key), (*above, level), row)
        own_names = {name.lower() for name in row} | ({name.lower() for name in own})
        taken = [name for name in child.parent_key if name.lower() in own_names]
        if clash := taken + [name for name in level.key if name not in own and name in own_names]:
            raise DatasetError(
                f"table {child.name}: its key needs the name {clash[0]}: rename the column in {inner.class_name}"
            )
        yield child
        yield from _list_children(dataset, key, inner, child.levels)


def _check_tables(dataset: str, children: Iterable[ChildTable]) -> None:
    """Raise DatasetError for a child table with the name of another table, or of the view of its history."""
    taken = {dataset.lower(): dataset, f"{dataset}_history".lower(): f"{dataset}_history"}
    for child in children:
        for name in (child.name, f"{child.name}_history"):
            if name.lower() in taken:
                lists = ".".join(level.list_name for level in child.levels)
                raise DatasetError(f"list {lists}: the name {name} of its table or history is taken: rename the column")
            taken[name.lower()] = name


def _check_names(table: str, columns: Iterable[str], reserved: Collection[str]) -> None:
    """Raise DatasetError for a name that the warehouse needs itself, or that a database would cut."""
    if wrong := [name for name in columns if name.lower() in reserved or name.startswith("_") or '"' in name]:
        raise DatasetError(f"table {table}: the warehouse needs the name {wrong[0]}: rename the column")
    longest = max((LONGEST_DERIVED.format(table), *columns), key=lambda text: len(text.encode()))
    if len(longest.encode()) > LONGEST_NAME:
        raise DatasetError(
            f"table {table}: the name {longest} is longer than {LONGEST_NAME} bytes: choose a shorter name; "
            f"a column may have {LONGEST_NAME} bytes, a table {LONGEST_NAME - len(LONGEST_DERIVED.format(''))}"
        )
