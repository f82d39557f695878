"""The tables of a dataset held against the days that were loaded, and against each other.

Owns what the store says of a day, read back, and what it says is there now: each as a query of its own, which has
nothing in common with the statements by which merge.py got there. Works in temporary tables, and refuses to change
any other.

How the records of a day divide into inserted, updated, deleted, unchanged and superseded is not counted again: it
depends on what was loaded before.
"""

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from wholeday.config.days import SNAPSHOT
from wholeday.errors import WarehouseError
from wholeday.load.database import Connection
from wholeday.load.old_names import refuse_old_names
from wholeday.load.staging import Day, Staging
from wholeday.load.warehouse import MAY_BE_NULL, check_stored, decode, scan_markers
from wholeday.schema.tables import CLASSES, HISTORY, LOADS, REJECTS, Declared, Table, Words

if TYPE_CHECKING:
    import sqlalchemy as sa

    from wholeday.load.warehouse import Load

EXAMPLES = 10  # rows that are named, of all that differ in one comparison


class Finding(NamedTuple):
    """Something that differs; or, as a `remark`, what is worth knowing while nothing is wrong.

    `thing` is `raw`, `clean` or a table; `date` is None where it is not of one day.
    """

    date: dt.date | None
    thing: str
    what: str
    remark: bool = False


def compare(date: dt.date, thing: str, said: Mapping[str, Any], should: Mapping[str, Any]) -> Iterator[Finding]:
    """A finding for each name in `should` of which something else is said."""
    for name, value in should.items():
        if said[name] != value:
            yield Finding(date, thing, f"{name} is {_show(said[name])}, should be {_show(value)}")


class Audit:
    """What the warehouse says of a dataset, at one moment."""

    def __init__(self, db: Connection, declared: Declared, missing: Collection[str] = ()) -> None:
        """Take the tables as declared; an empty temporary one stands for each that is `missing`."""
        self.db, self.declared, self.missing = db, declared, missing
        self.tables = declared.stored()
        self.words = Words(declared)
        self.words["known"] = " or ".join(f'c."{column}" is not null' for column in declared.row)
        self.words["stored_rejects"] = f"{db.permanent}.{REJECTS.name}"
        for table in (LOADS, *self.tables):
            if table.name in missing:
                self._create(table)
        if REJECTS.name in missing:  # a temporary table of this name is used to compare
            self._create(REJECTS, "_rejects")
            self.words["stored_rejects"] = "_rejects"
        self.markers: dict[dt.date, dict[str, Any]] = {}
        self.faults: dict[dt.date, list[str]] = {}
        self.days: set[dt.date] = set()
        self._lost: list[Finding] = []
        self._read_days()

    @classmethod
    def open(cls, db: Connection, name: str, table: "Callable[[sa.MetaData], sa.Table]") -> "Audit | None":
        """The tables of a dataset, None where nothing of it was ever loaded. The connection is one for reading.

        Raises WarehouseError where a table is other than declared.
        """
        refuse_old_names(db, name)
        is_loaded = check_stored(db, LOADS) and _has_markers(db, name)
        declared = Declared.read(name, table)
        tables = [LOADS, *declared.stored(), REJECTS]
        missing = [table.name for table in tables if not check_stored(db, table, may_be_added=declared.row)]
        if not is_loaded and {table.name for table in declared.stored()} <= {*missing}:
            return None
        # A column that is declared but not there yet comes with the next load.
        there = db.describe(declared.stored().present.name).columns or declared.row
        row = {column: kind for column, kind in declared.row.items() if column in there}
        return cls(db, replace(declared, row=row), missing)

    def has(self, *tables: Table) -> bool:
        """Whether the database has all of these tables."""
        return not any(table.name in self.missing for table in tables)

    def check_tables(self) -> Iterator[Finding]:
        """Name the tables that are missing."""
        if self.missing:
            what = f"{self.db}: there is no table {', '.join(self.missing)}: rebuild makes it again"
            yield Finding(None, self.declared.name, what)

    def find_reading(self, date: dt.date) -> tuple[Any, ...] | None:
        """Which reading of a day its rows are of, by the table of days: mode, `as_of` (of a snapshot), `extracted_at`.

        None if the day has no rows.
        """
        sql = "select mode, as_of, extracted_at from {days} where load_date = :date"
        row: tuple[Any, ...] | None = self._run(sql, date=date).fetchone()
        return row

    def name_reading(self, day: Day) -> tuple[Any, ...]:
        """The same of a day as its manifests describe it."""
        as_of = self.db.encode(day.as_of) if day.mode == SNAPSHOT else None
        return day.mode, as_of, self.db.encode(day.extracted_at)

    def _read_days(self) -> None:
        """Find the markers, what of them is not fit to be held against anything, and the days in the table of days."""
        for marker, unread in scan_markers(self.db, self.declared.name):
            nulls = [name for name, value in marker.items() if value is None and name not in {*unread, *MAY_BE_NULL}]
            faults = [*unread.values(), *(f"{name} is null" for name in nulls)]
            if marker["date"]:
                self.markers[marker["date"]] = marker
                self.faults |= {marker["date"]: faults} if faults else {}
            else:
                self._lost += [Finding(None, "loads", fault) for fault in faults]
        for (day,) in self._run("select load_date from {days}").fetchall():
            try:
                self.days.add(decode(self.db, "load_date", day, "date"))
            except WarehouseError as error:
                self._lost.append(Finding(None, self.tables.days.name, str(error)))

    def check_marker(self, marker: dict[str, Any]) -> Iterator[Finding]:
        """Hold a marker against itself, and against the table of days."""
        date, days = marker["date"], self.tables.days.name
        if date in self.faults:
            yield from (Finding(date, "loads", fault) for fault in self.faults[date])
            return
        total = sum(marker[name] for name in CLASSES)
        if total != marker["extracted"]:
            yield Finding(date, "loads", f"extracted is {marker['extracted']}, the counts add up to {total}")
        if not self.has(self.tables.days):
            return
        should = {name: self.db.encode(marker[name]) for name in ("mode", "as_of", "extracted_at")}
        if marker["mode"] != SNAPSHOT:
            should["as_of"] = None
        row = self._run(f"select {', '.join(should)} from {{days}} where load_date = :date", date=date).fetchone()  # noqa: S608
        if row:
            yield from compare(date, days, dict(zip(should, row, strict=True)), should)
        else:
            yield Finding(date, days, "the day is missing")

    def check_rows(self, marker: dict[str, Any] | None, load: "Load") -> Iterator[Finding]:
        """Hold what the tables say of a day against the rows and rejects it was loaded from.

        Raises WarehouseError where these do not fit the table, FolderError where they cannot be read. The connection
        can be used all the same.
        """
        with self.db.savepoint():
            yield from self._check_rows(marker, load)

    def _check_rows(self, marker: dict[str, Any] | None, load: "Load") -> Iterator[Finding]:
        day, rows, rejects = load
        stage = self.declared.temporary(day.mode == SNAPSHOT)[0]
        self._create(REJECTS)
        counts = Staging(self.db, self.declared, day).stage(rows, rejects)
        if (
            marker and counts["forgotten"] == day.forgotten
        ):  # else there are lines of forgotten users, which were kept perhaps
            names = ["rejected", "forgotten", "duplicate"]
            newest = counts["watermark"]
            # The newest record may be one of those that were erased.
            if not day.forgotten or (newest and (marker["watermark"] is None or marker["watermark"] < newest)):
                names.append("watermark")
            yield from compare(day.date, "loads", marker, {name: counts[name] for name in names})
        self._create(stage, "_stored")
        if day.mode == SNAPSHOT and self.has(self.tables.changes):
            self._run("delete from _stage where _state = 1")  # to leave a user out says the same
            self._run(SAID_BY_SNAPSHOT, as_of=day.as_of)
            yield from self._compare_tables(day.date, self.tables.changes.name, stage, "_stored", "_stage")
        elif day.mode != SNAPSHOT and self.has(self.tables.events):
            self._run(SAID_BY_RECORDS, date=day.date)
            yield from self._compare_tables(day.date, self.tables.events.name, stage, "_stored", "_stage")
        if not self.has(REJECTS):
            return
        self._create(REJECTS, "_stored")
        self._run(
            "insert into _stored select * from {stored_rejects} where dataset = :name and load_date = :date",
            name=self.declared.name,
            date=day.date,
        )
        yield from self._compare_tables(day.date, "rejects", REJECTS, "_stored", f"{self.db.temporary}.rejects")

    def check_days(self) -> Iterator[Finding]:
        """Name the days of which there are rows that no load has left there."""
        yield from self._lost
        for table, sql in ORPHANS.items() if self.has(self.tables.days) else ():
            for (day,) in self._run(sql, name=self.declared.name).fetchall():
                thing = table.format(self.declared.name)
                yield Finding(None, thing, f"has rows of {day}, which is not in _{self.declared.name}_days")

    def check_changes(self) -> Iterator[Finding]:
        """Name the changes that are none, and what is said of a user of whom nothing is known."""
        changes = self.tables.changes
        key = [column for column in changes.key if column != "as_of"]
        rows = self.db.stream(CHANGES.format_map(self.words))
        return _name_some(None, changes.name, (_describe_change([*key, "as_of"], row) for row in rows))

    def check_present(self) -> Iterator[Finding]:
        """Hold the present against what the store says is there."""
        if not self.has(self.tables.present, self.tables.days, self.tables.events, self.tables.changes):
            return
        present = self.tables.present
        self._create(present, "_expected")
        self._run(PRESENT)
        yield from self._compare_tables(None, present.name, present, f'"{present.name}"', "_expected")

    def check_history(self) -> Iterator[Finding]:
        """Name the view of the history where it is not as a load makes it."""
        view = f"{self.declared.name}_history"
        if not self.has(self.tables.days, self.tables.events, self.tables.changes):
            return  # it is dropped with them, and comes again with them
        if not self.db.has_view(view, HISTORY.format_map(self.words)):
            what = "the view is missing, or another one: the next day that is loaded, or rebuild, makes it again"
            yield Finding(None, view, what)

    def _create(self, table: Table, name: str = "") -> None:
        """Have an empty temporary table, like `table`, under its name or another."""
        self.db.create(table._replace(name=name or table.name), temporary=True)

    def _run(self, sql: str, **params: Any) -> Any:
        return self.db.run(sql.format_map(self.words), **params)

    def _compare_tables(
        self, date: dt.date | None, thing: str, table: Table, said: str, should: str
    ) -> Iterator[Finding]:
        """A finding for each row that `said` and `should`, two tables like `table`, do not share; up to EXAMPLES."""
        key, row = list(table.key), [column for column in table.columns if column not in table.key]
        a, b = ({x: ", ".join(f'{t}."{c}"' for c in some) for x, some in (("key", key), ("row", row))} for t in "ab")
        rows = self.db.stream(f"""
            select {a["key"]}, {a["row"]}, {b["key"]}, {b["row"]}
              from {said} a left join {should} b on ({a["key"]}) = ({b["key"]})
             where b."{key[0]}" is null or ({a["row"]}) is distinct from ({b["row"]})
            union all
            select {a["key"]}, {a["row"]}, {b["key"]}, {b["row"]}
              from {should} b left join {said} a on ({a["key"]}) = ({b["key"]})
             where a."{key[0]}" is null
        """)  # noqa: S608
        columns = [*key, *row]
        number = len(columns)
        return _name_some(date, thing, (_describe(columns, len(key), row[:number], row[number:]) for row in rows))


def _has_markers(db: Connection, name: str) -> bool:
    return db.run("select 1 from loads where dataset = :name limit 1", name=name).fetchone() is not None


def _name_some(date: dt.date | None, thing: str, rows: Iterable[str]) -> Iterator[Finding]:
    """A finding for each of the first rows, and how many more there are."""
    number = 0
    for number, what in enumerate(rows, 1):
        if number <= EXAMPLES:
            yield Finding(date, thing, what)
    if number > EXAMPLES:
        yield Finding(date, thing, f"and {number - EXAMPLES:,} more rows")


def _name_row(columns: Iterable[str], key: Iterable[Any]) -> str:
    return ", ".join(f"{column} {_show(value)}" for column, value in zip(columns, key, strict=False))


def _describe_change(key: list[str], row: tuple[Any, ...]) -> str:
    what = (
        "it is no change: the snapshot before says the same"
        if row[-1]
        else "it has values, of a user of whom it says that none is known"
    )
    return f"{_name_row(key, row)}: {what}"


def _describe(columns: list[str], keys: int, said: tuple[Any, ...], should: tuple[Any, ...]) -> str:
    """How a row differs from what it should be, column by column; either is all null where there is none."""
    key = said[:keys] if said[0] is not None else should[:keys]
    who = _name_row(columns, key)
    if said[0] is None:
        return f"{who}: the row is missing"
    if should[0] is None:
        return f"{who}: there should be no such row"
    pairs = zip(columns, said, should, strict=True)
    return f"{who}: " + "; ".join(f"{c} is {_show(x)}, should be {_show(y)}" for c, x, y in pairs if x != y)


def _show(value: Any) -> str:
    return "null" if value is None else repr(value) if isinstance(value, str) else str(value)


SAID_BY_RECORDS = """
insert into _stored ({key}, _state, {row}, at) select {key}, _state, {row}, at from {events} where load_date = :date
"""

# Of each user the last change of what the snapshots say, up to this one.
SAID_BY_SNAPSHOT = """
insert into _stored ({key}, _state, {row})
select {c.key}, c._state, {c.row} from {changes} c
 where c._state <> 1 and c.as_of = ({c.last_change} and x.as_of <= :as_of)
"""

CHANGES = """
select {c.key}, c.as_of, c._same from (
  select {key}, as_of, _state, {row},
         (_state, {row}) is not distinct from (coalesce(lag(_state) over _in_time, 1), {row_before}) as _same
    from {changes}
  window _in_time as (partition by {key} order by as_of)
) c
 where c._same or c._state > 0 and ({known})
"""

PRESENT = """
insert into _expected ({key}, {row}, ingested_at, load_date)
with unclear as (
  -- users whom the last snapshots did not understand, since when: the word of those before holds no longer than that
  select {u.key}, u.as_of from {changes} u where u._state = 2 and u.as_of = ({u.last_change})
),
records as (
  -- what came after the last word of the snapshots, the newest first; of the days that brought the same, the first
  select {e.key}, e._state, {e.row},
         min(e.load_date) over (partition by {e.key}, e.at, e._state, {e.row}) as load_date,
         row_number() over (partition by {e.key} order by e.at desc, d.extracted_at desc, e.load_date desc) as _nth
    from {events} e
    join {days} d on d.load_date = e.load_date
    left join unclear u on ({u.key}) = ({e.key})
   where not exists (select 1 from {days} s where s.as_of >= e.at and (u.as_of is null or s.as_of < u.as_of))
)
select {r.key}, {r.row}, d.extracted_at, d.load_date
  from records r join {days} d on d.load_date = r.load_date
 where r._nth = 1 and r._state = 0
union all
select {c.key}, {c.row}, d.extracted_at, d.load_date
  from {changes} c join {days} d on d.as_of = c.as_of
 where c._state = 0 and c.as_of = ({c.last_change} and x._state < 2)
   and not exists (select 1 from records r where ({r.key}) = ({c.key}))
"""

ORPHANS = {
    "_{}_events": "select distinct load_date from {events} where load_date not in (select load_date from {days})",
    "_{}_changes": """
        select distinct as_of from {changes}
         where as_of not in (select as_of from {days} where as_of is not null)
    """,
    "rejects": """
        select distinct load_date from {stored_rejects}
         where dataset = :name and load_date not in (select load_date from {days})
    """,
}
