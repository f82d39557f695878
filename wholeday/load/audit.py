"""Compare the tables of a dataset with the days that were loaded, and with each other.

Responsibilities: what the stored facts say of a day and of the present, by queries of their own. They share nothing
with the statements of merge.py, so that a mistake there is found here. Versions are computed by their definition.
Non-goals: changing any table but temporary ones. How the records of a day divide into inserted, updated, deleted,
unchanged and superseded is not counted again, as it depends on what was loaded before.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from wholeday.config.days import SNAPSHOT
from wholeday.errors import WarehouseError
from wholeday.load.catalog import check_table, list_left
from wholeday.load.children import list_views, select_items
from wholeday.load.clean_day import CleanDay
from wholeday.load.database import Connection, Row, decode
from wholeday.load.history import FIND
from wholeday.load.markers import has_markers, scan_markers
from wholeday.load.old_tables import refuse_old_tables
from wholeday.load.sql import HISTORY, Words
from wholeday.load.staging import Staging
from wholeday.schema.marker import CLASSES, Marker
from wholeday.schema.tables import LOADS, REJECTS, ChildTable, Declared, Table, quote

EXAMPLES = 10  # rows that are named, of all that differ in one comparison


class Finding(NamedTuple):
    """A difference; or, as a `remark`, something worth knowing though nothing is wrong.

    `thing` is `raw`, `clean` or a table; `date` is None if the finding is not about one day.
    """

    date: dt.date | None
    thing: str
    what: str
    remark: bool = False


def compare(date: dt.date, thing: str, actual: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding for each name in `expected` that has another value in `actual`."""
    for name, value in expected.items():
        if actual[name] != value:
            yield Finding(date, thing, f"{name} is {_show(actual[name])}, should be {_show(value)}")


class Audit:
    """Reads what the warehouse says of a dataset at one moment."""

    def __init__(
        self, db: Connection, declared: Declared, missing: Collection[str] = (), left: Collection[str] = ()
    ) -> None:
        """Take the declared tables. An empty temporary table stands for each that is `missing`.

        `left` are child tables that the record class does not have any more.
        """
        self.db, self.declared, self.missing, self.left = db, declared, missing, left
        self.tables = declared.stored
        has_values = " or ".join(f'c."{column}" is not null' for column in declared.row)
        self.words = Words(declared, has_values=has_values, rejects=f"{db.permanent}.{REJECTS.name}")
        for table in (LOADS, *self.tables):
            if table.name in missing:
                self._create(table)
        if REJECTS.name in missing:  # a temporary table of this name is used to compare
            self._create(REJECTS, "_rejects")
            self.words["rejects"] = "_rejects"
        self.markers: dict[dt.date, Marker] = {}
        self.faults: dict[dt.date, list[str]] = {}
        """Unreadable or missing values of a marker, by day. Such a marker is not compared."""
        self.days: set[dt.date] = set()
        self._undated: list[Finding] = []
        self._read_markers()
        self._read_days()

    @classmethod
    def open(cls, db: Connection, declared: Declared) -> "Audit | None":
        """Open the tables of a dataset on a readonly connection; None if nothing of it was ever loaded.

        Raises WarehouseError if a table differs from its declaration.
        """
        refuse_old_tables(db, declared.name)
        is_loaded = check_table(db, LOADS) and has_markers(db, declared.name)
        tables = [LOADS, *declared.stored, REJECTS]
        missing = [table.name for table in tables if not check_table(db, table, optional=declared.row)]
        if not is_loaded and {table.name for table in declared.stored} <= {*missing}:
            return None
        # The next load adds the declared columns that are not stored yet.
        stored = db.describe(declared.stored.present.name).columns or declared.row
        row = {column: kind for column, kind in declared.row.items() if column in stored}
        children = _list_stored(db, declared)
        missing += [
            child.name
            for child in declared.children
            if child.levels[0].list_name in stored and child.name not in {found.name for found in children}
        ]
        return cls(db, replace(declared, row=row, children=children), missing, list_left(db, declared))

    def has(self, *tables: Table) -> bool:
        """Whether the database has all of these tables."""
        return not any(table.name in self.missing for table in tables)

    def check_tables(self) -> Iterator[Finding]:
        """Report missing tables, and those that the record class does not have any more."""
        if self.missing:
            what = f"{self.db}: the table {', '.join(self.missing)} is missing: rebuild creates it"
            yield Finding(None, self.declared.name, what)
        for name in self.left:
            yield Finding(None, name, "the record class has no such child table any more: rebuild drops it")

    def is_loaded_from(self, day: Marker) -> bool:
        """Whether the rows of a day are from this extraction of it, by `_users_days`."""
        return self._read_day(day.date) == tuple(self._expect_day(day).values())

    def _expect_day(self, day: Marker) -> dict[str, Any]:
        """Return what `_users_days` stores of a day."""
        as_of = day.as_of if day.mode == SNAPSHOT else None
        return {"mode": day.mode, "as_of": self.db.encode(as_of), "extracted_at": self.db.encode(day.extracted_at)}

    def _read_day(self, date: dt.date) -> Row | None:
        row: Row | None = self._run(
            "select mode, as_of, extracted_at from {days} where load_date = :date", date=date
        ).fetchone()
        return row

    def _read_markers(self) -> None:
        for marker, faults in scan_markers(self.db, self.declared.name):
            if marker.date:
                self.markers[marker.date] = marker
                self.faults |= {marker.date: [*faults.values()]} if faults else {}
            else:
                self._undated += [Finding(None, "loads", fault) for fault in faults.values()]

    def _read_days(self) -> None:
        for (day,) in self._run("select load_date from {days}").fetchall():
            try:
                self.days.add(decode(self.db, "load_date", day, "date"))
            except WarehouseError as error:
                self._undated.append(Finding(None, self.tables.days.name, str(error)))

    def check_marker(self, marker: Marker) -> Iterator[Finding]:
        """Compare a marker with itself, and with `_users_days`."""
        date, days = marker.date, self.tables.days.name
        if date in self.faults:
            yield from (Finding(date, "loads", fault) for fault in self.faults[date])
            return
        total = sum(marker.counts[name] for name in CLASSES)
        if total != marker.extracted:
            yield Finding(date, "loads", f"extracted is {marker.extracted}, the counts add up to {total}")
        if not self.has(self.tables.days):
            return
        if row := self._read_day(date):
            expected = self._expect_day(marker)
            yield from compare(date, days, dict(zip(expected, row, strict=True)), expected)
        else:
            yield Finding(date, days, "the day is missing")

    def check_rows(self, marker: Marker | None, clean: CleanDay) -> Iterator[Finding]:
        """Compare what the tables say of a day with the rows and rejects that it was loaded from.

        Raises WarehouseError if these do not fit the table, FolderError if they cannot be read. The connection stays
        usable.
        """
        with self.db.savepoint():
            day = clean.draft
            stage = self.declared.temporary(day.mode == SNAPSHOT).stage
            self._create(REJECTS)  # staging writes there, and not into the permanent table of that name
            staged = Staging(self.db, self.declared, day).stage(clean.rows, clean.rejects)
            if marker and staged.forgotten == day.forgotten:  # otherwise the files hold lines of erased users
                names = ["rejected", "forgotten", "duplicate"]
                newest = staged.watermark
                # The newest record may have been erased since.
                if not day.forgotten or (newest and (marker.watermark is None or marker.watermark < newest)):
                    names.append("watermark")
                counts = {name: getattr(staged, name) for name in names}
                yield from compare(day.date, "loads", msgspec.structs.asdict(marker), counts)
            self._create(stage, "_stored")
            facts, select = (
                (self.tables.changes, STORED_OF_SNAPSHOT)
                if day.mode == SNAPSHOT
                else (self.tables.events, STORED_OF_RECORDS)
            )
            if self.has(facts):
                if day.mode == SNAPSHOT:
                    self._run("delete from _stage where _state = 1")  # a user who is not listed is absent, too
                self._run(select, date=day.date, as_of=day.as_of)
                yield from self._compare_tables(day.date, facts.name, stage, "_stored", "_stage")
            if not self.has(REJECTS):
                return
            self._create(REJECTS, "_stored")
            self._run(
                "insert into _stored select * from {rejects} where dataset = :name and load_date = :date",
                name=self.declared.name,
                date=day.date,
            )
            yield from self._compare_tables(day.date, "rejects", REJECTS, "_stored", f"{self.db.temporary}.rejects")

    def check_days(self) -> Iterator[Finding]:
        """Report rows of days that are not in `_users_days`."""
        yield from self._undated
        names = {role: table.name for role, table in self.tables._asdict().items()}
        for table, sql in ORPHANS.items() if self.has(self.tables.days) else ():
            for (day,) in self._run(sql, name=self.declared.name).fetchall():
                thing = table.format_map(names)
                yield Finding(None, thing, f"has rows of {day}, which is not in _{self.declared.name}_days")

    def check_changes(self) -> Iterator[Finding]:
        """Report changes that repeat the snapshot before, and values of absent or unknown users."""
        changes = self.tables.changes
        key = [column for column in changes.key if column != "as_of"]
        rows = self.db.stream(CHANGES.format_map(self.words))
        return _limit(None, changes.name, (_describe_change([*key, "as_of"], row) for row in rows))

    def check_present(self) -> Iterator[Finding]:
        """Compare the present, and the past versions, with what the stored facts say."""
        present, past = self.tables.present, self.tables.past
        if not self.has(self.tables.days, self.tables.events, self.tables.changes):
            return
        self._create(self.declared.temporary().versions)
        self._run(FIND)
        if self.has(present):
            self._create(present, "_expected")
            self._run(PRESENT)
            yield from self._compare_tables(None, present.name, present, f'"{present.name}"', "_expected")
        if self.has(past):
            expected = "(select * from _versions where valid_to is not null)"
            yield from self._compare_tables(None, past.name, past, f'"{past.name}"', expected)

    def check_children(self) -> Iterator[Finding]:
        """Compare the child tables, and the views of their history, with the lists in the rows of the dataset."""
        for child in self.declared.children if self.has(self.tables.present) else ():
            expected = f"({select_items(self.db, child, quote(self.declared.name))})"
            yield from self._compare_tables(None, child.name, child.table, quote(child.name), expected)
        for view, select in list_views(self.db, self.declared):
            if not self.db.has_view(view, select):
                yield Finding(None, view, "the view is missing or changed: the next load, or rebuild, creates it again")

    def check_history(self) -> Iterator[Finding]:
        """Report the view of the history if it is not as a load creates it."""
        view = f"{self.declared.name}_history"
        if not self.has(self.tables.present, self.tables.past):
            return  # it was dropped with them
        if not self.db.has_view(view, HISTORY.format_map(self.words)):
            what = "the view is missing or changed: the next load, or rebuild, creates it again"
            yield Finding(None, view, what)

    def _create(self, table: Table, name: str = "") -> None:
        """Create an empty temporary table like `table`, under its name or another."""
        self.db.create(table._replace(name=name or table.name), temporary=True)

    def _run(self, sql: str, **params: Any) -> Any:
        return self.db.run(sql.format_map(self.words), **params)

    def _compare_tables(
        self, date: dt.date | None, thing: str, table: Table, actual: str, expected: str
    ) -> Iterator[Finding]:
        """Yield a finding for each row that two tables like `table` do not share, up to EXAMPLES."""
        key, row = list(table.key), [column for column in table.columns if column not in table.key]
        columns = [*key, *row]
        a, b = ({x: _prefix(t, some) for x, some in (("key", key), ("row", row), ("all", columns))} for t in "ab")
        differs = f"or ({a['row']}) is distinct from ({b['row']})" if row else ""
        rows = self.db.stream(f"""
            select {a["all"]}, {b["all"]}
              from {actual} a left join {expected} b on ({a["key"]}) = ({b["key"]})
             where b."{key[0]}" is null {differs}
            union all
            select {a["all"]}, {b["all"]}
              from {expected} b left join {actual} a on ({a["key"]}) = ({b["key"]})
             where a."{key[0]}" is null
        """)  # noqa: S608
        number = len(columns)
        return _limit(date, thing, (_describe(columns, len(key), row[:number], row[number:]) for row in rows))


def _prefix(table: str, columns: Iterable[str]) -> str:
    return ", ".join(f'{table}."{column}"' for column in columns)


def _list_stored(db: Connection, declared: Declared) -> tuple[ChildTable, ...]:
    """Return the child tables that are stored, with their stored columns. The next load adds what is missing."""
    found = []
    for child in declared.children:
        if check_table(db, child.table, optional=child.row):
            stored = db.describe(child.name).columns
            found.append(replace(child, row={name: kind for name, kind in child.row.items() if name in stored}))
    return tuple(found)


def _limit(date: dt.date | None, thing: str, rows: Iterable[str]) -> Iterator[Finding]:
    """Yield a finding for each of the first rows, and one for how many more there are."""
    number = 0
    for number, what in enumerate(rows, 1):
        if number <= EXAMPLES:
            yield Finding(date, thing, what)
    if number > EXAMPLES:
        yield Finding(date, thing, f"and {number - EXAMPLES:,} more rows")


def _name_row(columns: Iterable[str], key: Iterable[Any]) -> str:
    return ", ".join(f"{column} {_show(value)}" for column, value in zip(columns, key, strict=False))


def _describe_change(key: list[str], row: Row) -> str:
    what = (
        "not a change: the snapshot before says the same"
        if row[-1]
        else "it has values, although it says that the user is absent or unknown"
    )
    return f"{_name_row(key, row)}: {what}"


def _describe(columns: list[str], keys: int, actual: Row, expected: Row) -> str:
    """Describe how a row differs from the expected one, by column. A missing row is all null."""
    key = actual[:keys] if actual[0] is not None else expected[:keys]
    who = _name_row(columns, key)
    if actual[0] is None:
        return f"{who}: the row is missing"
    if expected[0] is None:
        return f"{who}: there should be no such row"
    pairs = zip(columns, actual, expected, strict=True)
    return f"{who}: " + "; ".join(f"{c} is {_show(x)}, should be {_show(y)}" for c, x, y in pairs if x != y)


def _show(value: Any) -> str:
    return "null" if value is None else repr(value) if isinstance(value, str) else str(value)


STORED_OF_RECORDS = """
insert into _stored ({key}, _state, {row}, at) select {key}, _state, {row}, at from {events} where load_date = :date
"""

# The last change of each user up to this snapshot.
STORED_OF_SNAPSHOT = """
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
 where c._same or c._state > 0 and ({has_values})
"""

PRESENT = """
insert into _expected ({key}, {row}, valid_from, ingested_at, load_date)
with unclear as (
  -- users who are unknown to the last snapshots, and since when: earlier snapshots say nothing of them from then on
  select {u.key}, u.as_of from {changes} u where u._state = 2 and u.as_of = ({u.last_change})
),
records as (
  -- records after the last snapshot that knows the user, the newest first; the first of the days that brought it
  select {e.key}, e._state, {e.row},
         min(e.load_date) over (partition by {e.key}, e.at, e._state, {e.row}) as load_date,
         row_number() over (partition by {e.key} order by e.at desc, d.extracted_at desc, e.load_date desc) as _nth
    from {events} e
    join {days} d on d.load_date = e.load_date
    left join unclear u on ({u.key}) = ({e.key})
   where not exists (select 1 from {days} s where s.as_of >= e.at and (u.as_of is null or s.as_of < u.as_of))
),
latest as (
  select {r.key}, {r.row}, d.extracted_at, d.load_date
    from records r join {days} d on d.load_date = r.load_date
   where r._nth = 1 and r._state = 0
  union all
  select {c.key}, {c.row}, d.extracted_at, d.load_date
    from {changes} c join {days} d on d.as_of = c.as_of
   where c._state = 0 and c.as_of = ({c.last_change} and x._state < 2)
     and not exists (select 1 from records r where ({r.key}) = ({c.key}))
)
select {p.key}, {p.row}, x.valid_from, p.extracted_at, p.load_date
  from latest p left join _versions x on ({x.key}) = ({p.key}) and x.valid_to is null
"""

ORPHANS = {
    "{events}": "select distinct load_date from {events} where load_date not in (select load_date from {days})",
    "{changes}": """
        select distinct as_of from {changes}
         where as_of not in (select as_of from {days} where as_of is not null)
    """,
    "rejects": """
        select distinct load_date from {rejects}
         where dataset = :name and load_date not in (select load_date from {days})
    """,
}
