"""The tables of the warehouse: what a dataset declares, what is stored for it, and the words of the SQL over it.

Owns names, kinds of columns, keys, indexes and the view of the history. A *kind* is what any database has
a type for: text, integer, float, boolean, date, time. Refuses to talk to a database.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from wholeday.errors import ConfigError

if TYPE_CHECKING:
    import sqlalchemy as sa


class Table(NamedTuple):
    """A stored table: its columns with their kinds, and its primary key; or a view, which has no key."""

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]
    kind: str = "table"


# The classes a record can be in: together they are `extracted`.
CLASSES = ("rejected", "forgotten", "duplicate", "superseded", "unchanged", "inserted", "updated", "deleted")
LOADS = Table(
    "loads",
    {"dataset": "text", "date": "date", "mode": "text", "source": "text"}
    | dict.fromkeys(("window_start", "window_stop", "started_at", "extracted_at", "as_of"), "time")
    | dict.fromkeys(("pages", "extracted", *CLASSES, "vanished", "reverted"), "integer")
    | {"watermark": "time"}
    | dict.fromkeys(("raw_sha256", "clean_sha256", "transform_version", "accepted"), "text")
    | {"loaded_at": "time", "seconds": "float", "pruned_at": "time"}
    | {"details": "text"},
    ("dataset", "date"),
)
REJECTS = Table(
    "rejects",
    {"dataset": "text", "load_date": "date", "part": "integer", "line": "integer"}
    | dict.fromkeys(("reason", "field", "key", "record"), "text"),
    ("dataset", "load_date", "part", "line"),
)
TEMPORARY = ("_stage", "_touched", "_changed", "_wanted", "_before")
TAKEN = ("loads", "rejects")
LONGEST_NAME = 63  # bytes; PostgreSQL would cut a longer one in silence
LONGEST_DERIVED = "_{}_forgotten"  # of the names derived from a dataset's
TAKEN_BEGINNINGS = ("_", "pg_", "sqlite_")
RESERVED_COLUMNS = {
    "date",  # readers of the files would get the date of the folder
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


@dataclass(frozen=True)
class Declared:
    """A dataset's table as its declaration says: the columns of its key and of its row, each with its kind."""

    name: str
    key: dict[str, str]
    row: dict[str, str]

    @classmethod
    def read(cls, name: str, table: "Callable[[sa.MetaData], sa.Table]") -> "Declared":
        """Read the declaration; raises ConfigError where the warehouse cannot store such a table."""
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

    def temporary(self, snapshot: bool = False) -> list[Table]:
        """The tables of one load: the day's records; the users it must look at; of whom a snapshot now says something
        else; the present as it is to be, the last word of the snapshots with its time; and the present as it was."""
        key, state = tuple(self.key), {**self.key, "_state": "integer", **self.row}
        present = {**state, "_until": "time", "ingested_at": "time", "load_date": "date"}
        # The records of a snapshot have one time, which need not be stored with each.
        stage, record = (state, key) if snapshot else ({**state, "at": "time"}, (*key, "at"))
        return list(map(Table, TEMPORARY, (stage, self.key, state, present, state), (record, key, key, key, key)))


class Words(dict[str, Any]):
    """What stands in braces in the SQL: names of tables and indexes, lists of columns; any other word is an Alias."""

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        super().__init__({role: f'"{table.name}"' for role, table in declared.stored()._asdict().items()})
        self |= {index: f'"_{declared.name}_{index}"' for index in INDEXES}
        self["history"] = f'"{declared.name}_history"'
        self["key"] = join_names(declared.key)
        self["row"] = join_names(declared.row)
        self["nulls"] = ", ".join(f'"{column}" = null' for column in declared.row)
        self["set_row"] = ", ".join(f'"{column}" = excluded."{column}"' for column in declared.row)
        self["row_before"] = ", ".join(f'lag("{column}") over _in_time' for column in declared.row)

    def __missing__(self, alias: str) -> "Alias":
        self[alias] = found = Alias(alias, self.declared)
        return found


class Alias:
    """The columns of a table under an alias, as SQL: `{s.key}` is `s."user_id"`, `{s.row}` `s."name", s."email", …`"""

    def __init__(self, alias: str, declared: Declared) -> None:
        self.key = ", ".join(f'{alias}."{column}"' for column in declared.key)
        self.row = ", ".join(f'{alias}."{column}"' for column in declared.row)
        # Every stored row has a load_date: without one, an outer join found nobody.
        self.absent = f"case when {alias}.load_date is null then 1 else 0 end"
        # When the snapshots last changed what they say of this user; a condition on x may follow.
        key = ", ".join(f'x."{column}"' for column in declared.key)
        self.last_change = f'select max(x.as_of) from "_{declared.name}_changes" x where ({key}) = ({self.key})'  # noqa: S608


def quote(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def join_names(columns: Iterable[str]) -> str:
    """Names as a list of SQL."""
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


INDEXES = {  # each is named after the dataset and its key here: `_users_by_as_of`
    "by_as_of": "create unique index {by_as_of} on {days} (as_of)",
    "by_key": "create index {by_key} on {events} ({key}, at)",
    "unknown": "create index {unknown} on {changes} ({key}) where _state = 2",
}

HISTORY = """
with snapshots as (
  select as_of, load_date, lag(as_of) over (order by as_of) as _before from {days} where as_of is not null
),
facts as (
  -- what a record says
  select {e.key}, {e.row}, e._state, e.at, 0 as _rank, d.extracted_at as _read, e.load_date
    from {events} e join {days} d on d.load_date = e.load_date
  union all
  -- what a snapshot says otherwise than the one before it; since its updated_at, where that lies between the two
  select {c.key}, {c.row}, c._state,
         case when c.updated_at < c.as_of and (s._before is null or c.updated_at > s._before)
              then c.updated_at else c.as_of end,
         1, s.as_of, s.load_date
    from {changes} c join snapshots s on s.as_of = c.as_of
   where c._state < 2
  union all
  -- what the first snapshot after a record says, changed or not: at its as_of, and since its updated_at as above
  select {e.key}, {c.row}, coalesce(c._state, 1), case when _since = 1 then c.updated_at else s.as_of end,
         1, s.as_of, s.load_date
    from {events} e
    cross join (select 0 as _since union all select 1) both_times
    join snapshots s on s.as_of = (select min(as_of) from {days} where as_of >= e.at)
    left join {changes} c on ({c.key}) = ({e.key})
     and c.as_of = ({e.last_change} and x.as_of <= s.as_of)
   where coalesce(c._state, 1) < 2
     and (_since = 0 or c.updated_at < s.as_of and (s._before is null or c.updated_at > s._before))
),
ordered as (
  select *, lead(at) over (partition by {key} order by at, _rank, _read, load_date) as _next from facts
),
states as (
  -- of the facts at one time the last
  select {key}, {row}, _state, at, (_state, {row}) is distinct from (lag(_state) over _in_time, {row_before}) as _new
    from ordered where _next is null or _next > at
  window _in_time as (partition by {key} order by at)
),
intervals as (
  select {key}, {row}, _state, at as valid_from, lead(at) over (partition by {key} order by at) as valid_to
    from states where _new
)
select {key}, {row}, valid_from, valid_to from intervals where _state = 0
"""
