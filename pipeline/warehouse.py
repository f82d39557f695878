"""The warehouse: a day's rows into SQL tables, in one transaction, whatever was loaded before or is loaded later.

Owns the tables and what they mean. Of a dataset named `users`:

    users            the present, one row a user
    users_history    a view: one row per user and interval in which nothing changed
    users_days       the days the tables below were made from
    users_events     what incremental days say: every record, once per day that brought it
    users_changes    what a snapshot says otherwise than the snapshot before it
    users_forgotten  keys of which nothing may be stored again
    loads, rejects   the markers and the rejected records of all datasets

Everything known is a fact: at some time a user's row became this, or the user was absent. An incremental
record is a fact at its `updated_at`; a snapshot is a fact about everybody at its `as_of`, those it does not
list included. The last fact is the present. A snapshot that repeats the one before it adds nothing to
`users_changes`, and a day that arrives late, again or corrected finds its place between the others:
the tables depend on which days are loaded, never on the order of loading.

`gone` says how: 0 a row, 1 absent (all attributes null), 2 not understood (a snapshot's rejected record).

Refuses to read files, to judge a day's quality, and to change a table it did not make.
The SQL is one text for any database; what differs between databases is in the class `SQLite`.
"""

import datetime as dt
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import quote

from pipeline import config
from pipeline.errors import ConfigError, WarehouseError

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy as sa

BUSY_SECONDS = 60.0  # how long a load waits for another to end
OLDEST_SQLITE = (3, 39, 0)  # the first with IS DISTINCT FROM
REJECTS_AT_ONCE = 10_000
MAX_INTEGER = 2**63 - 1


Key = tuple[Any, ...]
Reject = tuple[int, int, str, str | None, str | None, str]


class Table(NamedTuple):
    """A stored table: its columns with their kinds, and its primary key."""

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]


# The classes a record can be in: together they are `extracted`.
CLASSES = ("rejected", "forgotten", "duplicate", "stale", "unchanged", "inserted", "updated", "deleted")
LOADS = Table(
    "loads",
    {"dataset": "text", "date": "date", "mode": "text"}
    | dict.fromkeys(("window_start", "window_stop", "started_at", "extracted_at", "as_of"), "time")
    | dict.fromkeys(("pages", "extracted", *CLASSES, "vanished", "reverted"), "integer")
    | {"watermark": "time"}
    | dict.fromkeys(("raw_sha256", "clean_sha256", "transform_version", "accepted"), "text")
    | {"loaded_at": "time", "seconds": "float"},
    ("dataset", "date"),
)
REJECTS = Table(
    "rejects",
    {"dataset": "text", "load_date": "date", "part": "integer", "line": "integer"}
    | dict.fromkeys(("reason", "field", "key", "record"), "text"),
    ("dataset", "load_date", "part", "line"),
)
TEMPORARY = ("stage", "touched", "changed", "want", "was")
RESERVED_COLUMNS = {"gone", "at", "as_of", "until", "load_date", "ingested_at", "deleted", "valid_from", "valid_to"}
LIMITS = {  # of Python, and of times as text of fixed width
    "date": (dt.date.min, dt.date.max),
    "time": (dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)),
}


@dataclass(frozen=True)
class Day:
    """A day as its manifests describe it: what a load needs to know besides the rows. All times are aware, in UTC."""

    date: dt.date
    mode: str
    window_start: dt.datetime
    window_stop: dt.datetime
    started_at: dt.datetime
    extracted_at: dt.datetime
    as_of: dt.datetime
    pages: int
    extracted: int
    rejected: int
    raw_sha256: str
    clean_sha256: str
    transform_version: str
    accepted: str = ""


class Warehouse:
    """A dataset in the database at `url`. A connection lasts for one call; reading never creates a file."""

    def __init__(self, url: str, name: str, table: "Callable[[sa.MetaData], sa.Table]") -> None:
        """Take a SQLAlchemy URL, the dataset's name and its table's declaration; connects to nothing yet.

        Raises ConfigError for a URL that is not `sqlite:///` and a file.
        """
        self.name, self.table = name, table
        prefix, path = "sqlite:///", url.removeprefix("sqlite:///")
        if not url.startswith(prefix) or path in ("", ":memory:"):
            raise ConfigError(
                f"database {url.partition('://')[0] + '://…' if '@' in url else url}: only a SQLite file can be the "
                "warehouse: use sqlite:///data/warehouse.db, or sqlite:////absolute/path.db"
            )
        self.path = Path(path)

    def load(self, day: Day, rows: "Iterable[pa.RecordBatch]", rejects: Iterable[Reject]) -> dict[str, Any]:
        """Make the warehouse say what this day says, in one transaction; returns the marker written with it.

        `rows` are batches with exactly the table's declared columns, in any order, and maybe `deleted` (bool: the
        record is a deletion). `rejects` are (part, line, reason, field, key, record), the key a JSON array of the
        primary key's values or None. Both are read once, a batch at a time. A day that was loaded before is replaced;
        where its marker has the same hashes and `as_of` nothing is read or changed, and that marker is returned.

        Raises ConfigError for a table that cannot be stored, WarehouseError for everything else that is expected:
        a locked, foreign, full or read-only database, rows that do not fit, counts that do not add up.
        """
        clock = time.perf_counter()
        declared = Declared.read(self.name, self.table)
        with SQLite.connect(self.path, create=True) as db:
            db.begin()
            prepare(db, declared)
            loaded = _read_markers(db, self.name, "and date = :date", date=day.date)
            if loaded and all(loaded[0][x] == getattr(day, x) for x in ("raw_sha256", "clean_sha256", "as_of")):
                return loaded[0]
            counts = Load(db, declared, day).run(rows, rejects)
            marker = {"dataset": self.name, **vars(day), **counts}
            marker |= {"loaded_at": config.utc_now(), "seconds": round(time.perf_counter() - clock, 3)}
            marker = {column: marker[column] for column in LOADS.columns}
            db.run("delete from loads where dataset = :dataset and date = :date", **marker)
            db.insert("loads", LOADS.columns, [tuple(map(db.encode, marker.values()))])
            db.commit()
            return marker

    def loads(self) -> list[dict[str, Any]]:
        """The markers of this dataset, by date, with dates and aware times. Empty where nothing is loaded."""
        with self._read() as db:
            return _read_markers(db, self.name) if db else []

    def watermark_before(self, date: dt.date) -> dt.datetime | None:
        """The highest `watermark` of the loaded days before `date`; None where there is none."""
        with self._read() as db:
            earlier = _read_markers(db, self.name, "and date < :date", date=date) if db else []
            return max((marker["watermark"] for marker in earlier if marker["watermark"]), default=None)

    @contextmanager
    def _read(self) -> "Iterator[SQLite | None]":
        if not self.path.exists():
            yield None
            return
        with SQLite.connect(self.path) as db:
            yield db if _check_stored(db, LOADS) else None


def _read_markers(db: "SQLite", name: str, condition: str = "", **params: Any) -> list[dict[str, Any]]:
    sql = f"select {', '.join(LOADS.columns)} from loads where dataset = :dataset {condition} order by date"  # noqa: S608
    rows = db.run(sql, dataset=name, **params).fetchall()
    kinds = LOADS.columns.items()
    return [{c: db.decode(value, kind) for (c, kind), value in zip(kinds, row, strict=True)} for row in rows]


# -- the table as declared, and the tables as stored --------------------------------------------------------------


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
        taken = ("loads", "rejects", *TEMPORARY)
        if declared.name != name or name in taken or '"' in name:
            raise ConfigError(f"table {declared.name} of dataset {name}: give both one name, not {', '.join(taken)}")
        if reserved := [c for c in kinds if c.lower() in RESERVED_COLUMNS or c.startswith("_") or '"' in c]:
            raise ConfigError(f"table {name}: the warehouse needs the name {', '.join(reserved)}: rename the column")
        if not key or not set(key.values()) <= {"integer", "text"}:
            raise ConfigError(f"table {name}: its primary key must be the natural key, of integer and text columns")
        if kinds.get("updated_at") != "time":
            raise ConfigError(
                f"table {name}: it needs a column updated_at of type DateTime(timezone=True), outside the key: "
                "add it, and leave it null where the source has none"
            )
        return cls(name, key, {column: kind for column, kind in kinds.items() if column not in key})

    def stored(self) -> list[Table]:
        """The tables of this dataset."""
        key, state = tuple(self.key), {"gone": "integer", **self.row}
        days = {"load_date": "date", "mode": "text", "as_of": "time", "extracted_at": "time"}
        events = {"load_date": "date", **self.key, "at": "time", **state}
        return [
            Table(self.name, {**self.key, **self.row, "ingested_at": "time", "load_date": "date"}, key),
            Table(f"{self.name}_days", days, ("load_date",)),
            Table(f"{self.name}_events", events, ("load_date", *key, "at")),
            Table(f"{self.name}_changes", {**self.key, "as_of": "time", **state}, (*key, "as_of")),
            Table(f"{self.name}_forgotten", self.key, key),
        ]

    def temporary(self) -> list[Table]:
        """The tables of one load: the day's records; the users it must look at; of whom a snapshot now says something
        else; the present as it is to be, the last word of the snapshots with its time; and the present as it was."""
        key, state = tuple(self.key), {**self.key, "gone": "integer", **self.row}
        present = {**state, "until": "time", "ingested_at": "time", "load_date": "date"}
        columns = {**state, "at": "time"}, self.key, state, present, state
        return [Table(t, c, (*key, "at") if t == "stage" else key) for t, c in zip(TEMPORARY, columns, strict=True)]


class Words(dict[str, Any]):
    """What stands in braces in the SQL: names of tables and indexes, lists of columns; any other word is an Alias."""

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        suffixes = ("days", "events", "changes", "forgotten", "history", "by_as_of", "by_key", "not_understood")
        super().__init__({suffix: f'"{declared.name}_{suffix}"' for suffix in suffixes})
        self["present"] = f'"{declared.name}"'
        self["key"] = ", ".join(f'"{column}"' for column in declared.key)
        self["row"] = ", ".join(f'"{column}"' for column in declared.row)
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
        self.last_change = f'select max(x.as_of) from "{declared.name}_changes" x where ({key}) = ({self.key})'  # noqa: S608


def _find_kind(name: str, column: "sa.Column[Any]") -> str:
    import sqlalchemy as sa

    if isinstance(column.type, sa.DateTime) and column.type.timezone:
        return "time"
    kinds = {sa.Boolean: "boolean", sa.Integer: "integer", sa.Float: "float", sa.Date: "date", sa.String: "text"}
    for type_, kind in kinds.items():
        if isinstance(column.type, type_):
            return kind
    raise ConfigError(
        f"table {name}: column {column.name} cannot be stored as {column.type!r}: "
        "use BigInteger, Text, Boolean, Float, Date or DateTime(timezone=True)"
    )


INDEXES = """
create unique index if not exists {by_as_of} on {days} (as_of);
create index if not exists {by_key} on {events} ({key}, at);
create index if not exists {not_understood} on {changes} ({key}) where gone = 2
"""

HISTORY = """
with snapshots as (
  select as_of, load_date, lag(as_of) over (order by as_of) as _before from {days} where as_of is not null
),
facts as (
  -- what a record says
  select {e.key}, {e.row}, e.gone, e.at, 0 as _rank, d.extracted_at as _read, e.load_date
    from {events} e join {days} d on d.load_date = e.load_date
  union all
  -- what a snapshot says otherwise than the one before it; since its updated_at, where that lies between the two
  select {c.key}, {c.row}, c.gone,
         case when c.updated_at < c.as_of and (s._before is null or c.updated_at > s._before)
              then c.updated_at else c.as_of end,
         1, s.as_of, s.load_date
    from {changes} c join snapshots s on s.as_of = c.as_of
   where c.gone < 2
  union all
  -- what the first snapshot after a record says, changed or not: at its as_of, and since its updated_at as above
  select {e.key}, {c.row}, coalesce(c.gone, 1), case when _since = 1 then c.updated_at else s.as_of end,
         1, s.as_of, s.load_date
    from {events} e
    cross join (select 0 as _since union all select 1) both_times
    join snapshots s on s.as_of = (select min(as_of) from {days} where as_of >= e.at)
    left join {changes} c on ({c.key}) = ({e.key})
     and c.as_of = ({e.last_change} and x.as_of <= s.as_of)
   where coalesce(c.gone, 1) < 2
     and (_since = 0 or c.updated_at < s.as_of and (s._before is null or c.updated_at > s._before))
),
ordered as (
  select *, lead(at) over (partition by {key} order by at, _rank, _read, load_date) as _next from facts
),
states as (
  -- of the facts at one time the last
  select {key}, {row}, gone, at, (gone, {row}) is distinct from (lag(gone) over _in_time, {row_before}) as _new
    from ordered where _next is null or _next > at
  window _in_time as (partition by {key} order by at)
),
intervals as (
  select {key}, {row}, gone, at as valid_from, lead(at) over (partition by {key} order by at) as valid_to
    from states where _new
)
select {key}, {row}, valid_from, valid_to from intervals where gone = 0
"""


def prepare(db: "SQLite", declared: Declared) -> None:
    """Create what is missing, add columns that the declaration gained; raise WarehouseError for other differences."""
    for shared in (LOADS, REJECTS):
        if not _check_stored(db, shared):
            db.create(shared)
    tables = declared.stored()
    missing = [table.name for table in tables if not db.describe(table.name).columns]
    if missing and (len(missing) < len(tables) or _read_markers(db, declared.name)):
        raise WarehouseError(
            f"{db.path}: there is no table {', '.join(missing)}, but others of {declared.name}, or markers in loads: "
            "if they are another program's, choose another database; else restore it, or drop them and load again"
        )
    for table in tables:
        if missing:
            db.create(table)
            continue
        _check_stored(db, table, may_be_added=declared.row)
        for column in table.columns.keys() - db.describe(table.name).columns.keys():
            db.add_column(table, column)
    words = Words(declared)
    for statement in INDEXES.format_map(words).split(";"):
        db.run(statement)
    db.create_view(f"{declared.name}_history", HISTORY.format_map(words))


def _check_stored(db: "SQLite", table: Table, may_be_added: Iterable[str] = ()) -> bool:
    """Whether the table is there; raises WarehouseError where it is, and differs from what it should be."""
    found = db.describe(table.name)
    if not found.columns:
        return False
    wanted = {column: db.types[kind] for column, kind in table.columns.items()}
    differences = [f"no column {c}" for c in wanted if c not in found.columns and c not in may_be_added]
    differences += [f"a column {c} too many" for c in found.columns if c not in wanted]
    differences += [f"{c} as {t}, not {wanted[c]}" for c, t in found.columns.items() if wanted.get(c, t) != t]
    if found.key != table.key:
        differences.append(f"the primary key ({', '.join(found.key)}), not ({', '.join(table.key)})")
    if differences:
        raise WarehouseError(
            f"{db.path}: the table {table.name} has {', '.join(differences)}: "
            "declare it as it is, or choose another database"
        )
    return True


# -- one load -----------------------------------------------------------------------------------------------------


class Load:
    """One day's load, inside its transaction."""

    def __init__(self, db: "SQLite", declared: Declared, day: Day) -> None:
        self.db, self.declared, self.day = db, declared, day
        self.words = Words(declared)
        self.snapshot = day.mode == config.SNAPSHOT
        self.what = f"{declared.name} {day.date}"

    def run(self, rows: "Iterable[pa.RecordBatch]", rejects: Iterable[Reject]) -> dict[str, Any]:
        """Stage and merge; returns the counts and the watermark. Raises WarehouseError where they do not add up."""
        for table in self.declared.temporary():
            self.db.create(table, temporary=True)
        counts = self._stage(rows, rejects)
        known = self._one("select count(*) from {days} where load_date = :date")[0]
        before = self._one("select count(*) from {present}")[0]
        counts |= self._merge(counts.pop("staged"))
        growth = self._one("select count(*) from {present}")[0] - before
        self._check(counts, None if known else growth)
        return counts

    def _execute(self, sql: str, **params: Any) -> sqlite3.Cursor:
        return self.db.run(sql.format_map(self.words), **vars(self.day) | params)

    def _one(self, sql: str, **params: Any) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._execute(sql, **params).fetchone()
        return row

    # staging

    def _stage(self, rows: "Iterable[pa.RecordBatch]", rejects: Iterable[Reject]) -> dict[str, Any]:
        """Fill `stage`, one record for each key and time, and `rejects`; returns the counts of the day alone."""
        tombstones = set(self._execute("select {key} from {forgotten}").fetchall())
        records, forgotten = self._stage_rows(rows, tombstones)
        rejected, forgotten_rejects = self._stage_rejects(rejects, tombstones)
        if (records + rejected, rejected) != (self.day.extracted, self.day.rejected):
            raise WarehouseError(
                f"{self.what}: the manifests say {self.day.extracted} records, {self.day.rejected} of them rejected, "
                f"the files hold {records} rows and {rejected} rejects: transform the day again"
            )
        staged, deletions, newest = self._one(
            "select count(*), count(*) filter (where gone = 1), max(updated_at) from stage where gone < 2"
        )
        if deletions:
            # Of a user who is gone nothing is known: two deletions never differ.
            self._execute("update stage set {nulls} where gone = 1")
        watermark = self.db.decode(newest, "time")
        return {
            "rejected": rejected - forgotten_rejects,
            "forgotten": forgotten + forgotten_rejects,
            "duplicate": records - forgotten - staged,
            "watermark": min(watermark, self.day.as_of) if watermark else None,
            "staged": staged,
        }

    def _stage_rows(self, rows: "Iterable[pa.RecordBatch]", tombstones: set[Key]) -> tuple[int, int]:
        """Returns how many rows came, and how many of them were of forgotten keys."""
        columns = *self.declared.key, "gone", *self.declared.row, "at"
        # Of one key and time the highest updated_at stays, of equal ones the later.
        keep_newest = """
            on conflict ({key}, at) do update set gone = excluded.gone, {set_row}
            where stage.updated_at is null or excluded.updated_at >= stage.updated_at
        """.format_map(self.words)
        records = forgotten = 0
        for batch in rows:
            tuples = self._read_batch(batch)
            if tombstones:
                kept = [row for row in tuples if row[: len(self.declared.key)] not in tombstones]
                forgotten += batch.num_rows - len(kept)
                tuples = kept
            self.db.insert("stage", columns, tuples, keep_newest)
            records += batch.num_rows
        return records, forgotten

    def _read_batch(self, batch: "pa.RecordBatch") -> Iterable[tuple[Any, ...]]:
        """The batch as tuples for `stage`: key, gone, row, at."""
        import pyarrow as pa
        import pyarrow.compute as pc

        kinds = self.declared.key | self.declared.row
        names = [name for name in batch.schema.names if name != "deleted"]
        if sorted(names) != sorted(kinds):
            raise self._refuse(f"the rows have the columns {', '.join(names)}, the table has {', '.join(kinds)}")
        columns = {name: self._cast(batch.column(name), name, kind) for name, kind in kinds.items()}
        if nulls := [name for name in self.declared.key if columns[name].null_count]:
            raise self._refuse(f"a row has no {', '.join(nulls)}, which is its key")
        gone: Iterable[int] = repeat(0)
        if "deleted" in batch.schema.names:
            gone = pc.fill_null(batch.column("deleted"), False).cast(pa.int8()).to_pylist()
        at: Iterable[Any] = repeat(self.db.encode(self.day.as_of))
        if not self.snapshot:
            # Without a time it was some time in the window; a time after the day was read cannot be true.
            time_type = columns["updated_at"].type
            stop, read = pa.scalar(self.day.window_stop, time_type), pa.scalar(self.day.extracted_at, time_type)
            said = pc.fill_null(columns["updated_at"], stop)
            at = self.db.encode_column(pc.if_else(pc.greater(said, read), read, said), "time")
        key, row = (
            [self.db.encode_column(columns[name], kind) for name, kind in some.items()]
            for some in (self.declared.key, self.declared.row)
        )
        return zip(*key, gone, *row, at, strict=False)  # repeat() has no end

    def _cast(self, column: "pa.Array[Any]", name: str, kind: str) -> "pa.Array[Any]":
        import pyarrow as pa
        import pyarrow.compute as pc

        types = {
            "integer": pa.int64(),
            "text": pa.string(),
            "boolean": pa.bool_(),
            "float": pa.float64(),
            "date": pa.date32(),
            "time": pa.timestamp("us", "UTC"),
        }
        try:
            column = column.cast(types[kind])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise self._refuse(f"the column {name} holds {column.type}, not {kind} ({error})") from error
        if kind == "float":
            # NaN is not even equal to itself: a row with it would change with every load.
            column = pc.if_else(pc.is_nan(column), None, column)
        if kind in LIMITS and column.null_count < len(column):
            found, (low, high) = pc.min_max(column), (pa.scalar(limit, types[kind]) for limit in LIMITS[kind])
            if not low.value <= found["min"].value <= found["max"].value <= high.value:
                raise self._refuse(f"the column {name} holds a {kind} outside the years 1 to 9999")
        return column

    def _refuse(self, problem: str) -> WarehouseError:
        return WarehouseError(f"{self.what}: {problem}: make cleaning and table agree, and transform the day again")

    def _stage_rejects(self, rejects: Iterable[Reject], tombstones: set[Key]) -> tuple[int, int]:
        """Write the day's rejects, and stage their keys where it is a snapshot.

        Returns how many came, and how many of them were of forgotten keys.
        """
        self._execute("delete from rejects where dataset = :name and load_date = :date", name=self.declared.name)
        day, as_of = (self.declared.name, self.db.encode(self.day.date)), self.db.encode(self.day.as_of)
        rejected = forgotten = 0
        rejects = iter(rejects)
        while some := [(self._read_key(reject[4]), reject) for reject in islice(rejects, REJECTS_AT_ONCE)]:
            kept = [(key, reject) for key, reject in some if key not in tombstones]
            self.db.insert("rejects", REJECTS.columns, [day + reject for _, reject in kept])
            if self.snapshot:
                # A row with the same key is understood, and stays.
                not_understood = [(*key, as_of, 2) for key, _ in kept if key]
                self.db.insert("stage", (*self.declared.key, "at", "gone"), not_understood, "on conflict do nothing")
            rejected += len(some)
            forgotten += len(some) - len(kept)
        return rejected, forgotten

    def _read_key(self, text: str | None) -> Key | None:
        """The key of a reject; None where it is none that a row could have."""
        values = json.loads(text) if text is not None else None
        kinds = list(self.declared.key.values())
        if isinstance(values, list) and list(map(_find_key_kind, values)) == kinds:
            return tuple(values)
        return None

    # merging

    def _merge(self, staged: int) -> dict[str, int]:
        """Bring what is staged into the tables; returns the counts that depend on what was there."""
        read = self.day.mode, self._snapshot_at(), self.db.encode(self.day.extracted_at)
        known = self._one("select mode, as_of, extracted_at from {days} where load_date = :date")
        first = self._one("select count(*) from {days}") == (0,)
        if known and known != read:
            self._take_out(*known[:2])
        if self.snapshot:
            self._check_instant()
        if first:
            return self._merge_first(staged)
        if self.snapshot:
            self._merge_snapshot()
        else:
            self._merge_records()
        return self._count(staged)

    def _snapshot_at(self) -> Any:
        return self.db.encode(self.day.as_of) if self.snapshot else None

    def _check_instant(self) -> None:
        clash = self._one("select min(load_date) from {days} where as_of = :as_of and load_date <> :date")[0]
        if clash:
            raise WarehouseError(
                f"{self.what}: its snapshot was read at the same instant as that of {clash} "
                f"({self.day.as_of.isoformat()}), so neither can be the later: extract one of the two days again"
            )

    def _add_day(self) -> None:
        self._execute(
            """
            insert into {days} (load_date, mode, as_of, extracted_at) values (:date, :mode, :snapshot_at, :extracted_at)
            on conflict (load_date) do nothing
            """,
            snapshot_at=self._snapshot_at(),
        )

    def _merge_first(self, staged: int) -> dict[str, int]:
        """The very first day has nothing to be compared with. Not needed, but three times as fast."""
        self._add_day()
        if self.snapshot:
            self._execute("""
                insert into {changes} ({key}, as_of, gone, {row})
                select {key}, at, gone, {row} from stage where gone <> 1
            """)
            newest = ":as_of"
        else:
            self._write_events()
            newest = "(select max(x.at) from stage x where ({x.key}) = ({s.key}))"
        inserted = self._execute(
            """
            insert into {present} ({key}, {row}, ingested_at, load_date)
            select {key}, {row}, :extracted_at, :date from stage s where gone = 0 and at = {newest}
            """.replace("{newest}", newest)
        ).rowcount
        count_absent = "select count(*) from stage s where gone = 1 and at = {newest}"
        absent = self._one(count_absent.replace("{newest}", newest))[0]
        none = dict.fromkeys(("updated", "deleted", "vanished", "reverted"), 0)
        return {"stale": staged - inserted - absent, "unchanged": absent, "inserted": inserted, **none}

    def _merge_records(self) -> None:
        self._execute("insert into touched ({key}) select distinct {key} from {events} where load_date = :date")
        self._execute("delete from {events} where load_date = :date")
        self._execute("insert into touched ({key}) select distinct {key} from stage where true on conflict do nothing")
        self._write_events()
        self._add_day()
        self._refresh("select {key} from touched")

    def _write_events(self) -> None:
        self._execute("""
            insert into {events} (load_date, {key}, at, gone, {row}) select :date, {key}, at, gone, {row} from stage
        """)

    def _merge_snapshot(self) -> None:
        """Compare the snapshot with the present first: of a user whom both show alike nothing is to be written."""
        newest = self._one("select count(*) from {days} where as_of > :as_of") == (0,)
        self._execute("""
            insert into touched ({key})
            select {u.key} from {present} u left join stage s on ({s.key}) = ({u.key})
             where s.gone is null or s.gone <> 0 or ({s.row}) is distinct from ({u.row})
        """)
        self._execute("""
            insert into touched ({key})
            select {s.key} from stage s where not exists (select 1 from {present} u where ({u.key}) = ({s.key}))
        """)
        # But look also where the present is not what the store says of this snapshot: users not understood, users with
        # a record since the last snapshot, and, where this is not the last, users who changed after it.
        self._touch_undecided()
        if not newest:
            self._execute("""
                insert into touched ({key})
                select distinct {key} from {changes} where as_of > :as_of on conflict do nothing
            """)
        self._add_day()
        self._say("select {key}, gone, {row} from stage", self.day.as_of)
        # Later snapshots have the last word, unless they only repeat this one or do not understand the user.
        undecided = "select {key} from changed union select {key} from {changes} where gone = 2"
        self._refresh("select {key} from touched" if newest else undecided)

    def _touch_undecided(self) -> None:
        """The users of whom the last snapshot may not have the last word."""
        self._execute("""
            insert into touched ({key})
            select {key} from {changes} where gone = 2
            union
            select {e.key} from {days} d join {events} e on e.load_date = d.load_date
             where not exists (select 1 from {days} x where x.as_of >= d.extracted_at)
               and not exists (select 1 from {days} x where x.as_of >= e.at)
            on conflict do nothing
        """)

    def _take_out(self, mode: str, as_of: Any) -> None:
        """Undo the day as it was loaded before: it was read again, at another time or in another mode."""
        if mode == config.SNAPSHOT:
            self._execute("insert into touched ({key}) select {key} from {changes} where as_of = :as_of", as_of=as_of)
            self._say(
                """
                select {c.key}, c.gone, {c.row} from {changes} c join touched k on ({k.key}) = ({c.key})
                 where c.as_of = ({c.last_change} and x.as_of < :as_of)
                """,
                as_of,
            )
        else:
            self._execute("insert into touched ({key}) select distinct {key} from {events} where load_date = :date")
            self._execute("delete from {events} where load_date = :date")
        self._execute("delete from {days} where load_date = :date")
        if mode == config.SNAPSHOT:
            self._touch_undecided()
        self._refresh("select {key} from touched")
        self._execute("delete from touched")

    def _say(self, states: str, as_of: Any) -> None:
        """Make the snapshot at `as_of` say `states` of the touched users; the next one goes on saying what it said."""
        self._execute("delete from changed")
        self._execute(
            """
            insert into changed ({key}, gone, {row})
            select {k.key}, coalesce(s.gone, 1), {s.row}
              from touched k
              left join ({states}) s on ({s.key}) = ({k.key})
              left join {changes} c on ({c.key}) = ({k.key})
               and c.as_of = ({k.last_change} and x.as_of <= :as_of)
             where (coalesce(s.gone, 1), {s.row}) is distinct from (coalesce(c.gone, 1), {c.row})
            """.replace("{states}", states),
            as_of=as_of,
        )
        following = self._one("select min(as_of) from {days} where as_of > :as_of", as_of=as_of)[0]
        if following:
            self._execute(
                """
                insert into {changes} ({key}, as_of, gone, {row})
                select {k.key}, :following, coalesce(c.gone, 1), {c.row}
                  from changed k
                  left join {changes} c on ({c.key}) = ({k.key})
                   and c.as_of = ({k.last_change} and x.as_of <= :as_of)
                 where true
                on conflict do nothing
                """,
                as_of=as_of,
                following=following,
            )
            self._execute(
                """
                delete from {changes} where as_of = :following and ({key}) in (
                  select {k.key} from changed k join {changes} c on ({c.key}) = ({k.key}) and c.as_of = :following
                   where (c.gone, {c.row}) is not distinct from (k.gone, {k.row}))
                """,
                following=following,
            )
        self._execute(
            "delete from {changes} where as_of = :as_of and ({key}) in (select {key} from changed)", as_of=as_of
        )
        self._execute(
            """
            insert into {changes} ({key}, as_of, gone, {row})
            select {k.key}, :as_of, k.gone, {k.row}
              from changed k
              left join {changes} c on ({c.key}) = ({k.key})
               and c.as_of = ({k.last_change} and x.as_of < :as_of)
             where (k.gone, {k.row}) is distinct from (coalesce(c.gone, 1), {c.row})
            """,
            as_of=as_of,
        )

    def _refresh(self, keys: str) -> None:
        """Make the present right for the users whom `keys` selects; `was` keeps what it said before this load."""
        # What the snapshots say last of each user, and until when: those that do not understand them say nothing.
        self._execute(
            """
            insert into want ({key}, gone, {row}, until, ingested_at, load_date)
            select {k.key}, coalesce(c.gone, 1), {c.row},
                   case when u.as_of is null then (select max(as_of) from {days})
                        else (select max(as_of) from {days} where as_of < u.as_of) end,
                   d.extracted_at, d.load_date
              from ({keys}) k
              left join {changes} c on ({c.key}) = ({k.key})
               and c.as_of = ({k.last_change} and x.gone < 2)
              left join {changes} u on ({u.key}) = ({k.key}) and u.gone = 2
               and u.as_of = ({k.last_change})
              left join {days} d on d.as_of = c.as_of
        """.replace("{keys}", keys)
        )
        # The newest record, where it is later. Of the days that brought the same the first is named.
        self._execute("""
            insert into want ({key}, gone, {row}, until, ingested_at, load_date)
            select {e.key}, e.gone, {e.row}, e.at, d.extracted_at, d.load_date
              from want w
              join {events} e on ({e.key}) = ({w.key}) and (e.at, e.load_date) = (
                   select x.at, x.load_date from {events} x join {days} y on y.load_date = x.load_date
                    where ({x.key}) = ({w.key}) order by x.at desc, y.extracted_at desc, x.load_date desc limit 1)
              join {days} d on d.load_date = (
                   select min(x.load_date) from {events} x where ({x.key}) = ({e.key}) and x.at = e.at
                      and (x.gone, {x.row}) is not distinct from (e.gone, {e.row}))
             where w.until is null or e.at > w.until
            on conflict ({key}) do update
               set gone = excluded.gone, {set_row}, ingested_at = excluded.ingested_at, load_date = excluded.load_date
        """)
        self._execute("""
            insert into was ({key}, gone, {row})
            select {w.key}, {u.absent}, {u.row} from want w left join {present} u on ({u.key}) = ({w.key})
             where ({u.absent}, {u.row}) is distinct from (w.gone, {w.row})
            on conflict do nothing
        """)
        self._execute("delete from {present} where ({key}) in (select {key} from want where gone = 1)")
        self._execute("""
            insert into {present} as p ({key}, {row}, ingested_at, load_date)
            select {key}, {row}, ingested_at, load_date from want where gone = 0
            on conflict ({key}) do update
               set {set_row}, ingested_at = excluded.ingested_at, load_date = excluded.load_date
             where ({excluded.row}, excluded.ingested_at, excluded.load_date)
                   is distinct from ({p.row}, p.ingested_at, p.load_date)
        """)
        self._execute("delete from want")

    def _count(self, staged: int) -> dict[str, int]:
        """Put every kept record into one class. Who was not touched is now as the record says, and was before."""
        stale = self._one("""
            select count(*)
              from touched k
              join stage s on ({s.key}) = ({k.key}) and s.gone < 2
              left join {present} u on ({u.key}) = ({k.key})
             where s.at < (select max(x.at) from stage x where ({x.key}) = ({k.key}))
                or (s.gone, {s.row}) is distinct from ({u.absent}, {u.row})
        """)[0]
        inserted, updated, deleted, vanished, reverted = self._one("""
            with moved as (
              select w.gone as was, {u.absent} as now, s.gone as said,
                     (s.gone, {s.row}) is not distinct from ({u.absent}, {u.row}) as so
                from was w
                left join {present} u on ({u.key}) = ({w.key})
                left join stage s on ({s.key}) = ({w.key}) and s.gone < 2
                 and s.at = (select max(x.at) from stage x where ({x.key}) = ({w.key}))
               where (w.gone, {w.row}) is distinct from ({u.absent}, {u.row})
            )
            select count(*) filter (where so and was = 1),
                   count(*) filter (where so and was = 0 and now = 0),
                   count(*) filter (where so and now = 1),
                   count(*) filter (where not so and :mode = 'snapshot' and said is null and now = 1),
                   count(*) filter (where not so and not (:mode = 'snapshot' and said is null and now = 1))
              from moved
        """)
        return {
            "stale": stale,
            "unchanged": staged - stale - inserted - updated - deleted,
            "inserted": inserted,
            "updated": updated,
            "deleted": deleted,
            "vanished": vanished,
            "reverted": reverted,
        }

    def _check(self, counts: dict[str, int], growth: int | None) -> None:
        """Raise WarehouseError where a record is unaccounted for, or where users came or went without a count."""
        numbers = ", ".join(f"{name} {counts[name]}" for name in (*CLASSES, "vanished"))
        if sum(counts[name] for name in CLASSES) != self.day.extracted or min(counts[name] for name in CLASSES) < 0:
            raise WarehouseError(f"{self.what}: {self.day.extracted} records do not divide into {numbers}: report this")
        if growth is not None and growth != counts["inserted"] - counts["deleted"] - counts["vanished"]:
            raise WarehouseError(
                f"{self.what}: {numbers}, but the table has grown by {growth} rows: was it changed by hand? "
                "Restore it, or load all days again into a new database"
            )


def _find_key_kind(value: Any) -> str | None:
    if type(value) is int and -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
        return "integer"
    # A lone surrogate is valid in JSON, and in no database.
    return "text" if isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value) else None


# -- SQLite -------------------------------------------------------------------------------------------------------


class SQLite:
    """A connection to a SQLite file: locking, types, DDL; those of its errors that a user can meet become one line."""

    types: ClassVar = {
        "integer": "INTEGER",
        "text": "TEXT",
        "boolean": "BOOLEAN",
        "float": "REAL",
        "date": "TEXT",
        "time": "TEXT",
    }

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self.connection = path, connection

    @classmethod
    @contextmanager
    def connect(cls, path: Path, create: bool = False) -> "Iterator[SQLite]":
        """A connection for one transaction: what is not committed when it closes is rolled back.

        With `create` the file and its folder are made where they are missing.
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
        uri = f"file:{quote(str(path))}?mode={'rwc' if create else 'rw'}"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
                if create:
                    cls._prepare(connection)
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
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
        # A committed day survives a power cut: in WAL mode, NORMAL could lose the last commits.
        connection.execute("pragma synchronous = full")
        # A day of any size is staged in a file, whatever this SQLite was compiled to do: memory stays bounded.
        connection.execute("pragma temp_store = file")
        # 64 MB: with the default of 2 MB a merge into a large table reads the same pages again and again.
        connection.execute("pragma cache_size = -64000")

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
        """Insert rows of encoded values."""
        names = [f'"{column}"' for column in columns]
        sql = f'insert into "{table}" ({", ".join(names)}) values ({", ".join("?" * len(names))}) {on_conflict}'  # noqa: S608
        self.connection.executemany(sql, rows)

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
        """Create a table that is ordered by its key, in which no column of the key can be null."""
        key = ", ".join(f'"{column}"' for column in table.key)
        columns = [
            f'"{column}" {self.types[kind]}{" not null" if column in table.key else ""}'
            for column, kind in table.columns.items()
        ]
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
