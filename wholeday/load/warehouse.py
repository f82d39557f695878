"""The warehouse: a day's rows into SQL tables, in one transaction, whatever was loaded before or is loaded later.

Owns the tables and what they mean. Of a dataset named `users`:

    users            the present, one row a user
    users_history    a view: one row per user and interval in which nothing changed
    _users_days       the days the tables below were made from
    _users_events     what incremental days say: every record, once per day that brought it
    _users_changes    what a snapshot says otherwise than the snapshot before it
    _users_forgotten  keys of which nothing may be stored again
    loads, rejects   the markers and the rejected records of all datasets

Everything known is a fact: at some time a user's row became this, or the user was absent. An incremental
record is a fact at its `updated_at`; a snapshot is a fact about everybody at its `as_of`, those it does not
list included. The last fact is the present. A snapshot that repeats the one before it adds nothing to
`_users_changes`, and a day that arrives late, again or corrected finds its place between the others:
the tables depend on which days are loaded, never on the order of loading.

`gone` says how: 0 a row, 1 absent (all attributes null), 2 not understood (a snapshot's rejected record).

Refuses to read files, to judge a day's quality, and to change a table it did not make.
The SQL is one text for any database; what differs between databases is behind database.py.
"""

import datetime as dt
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from wholeday import clock
from wholeday.config.days import SNAPSHOT
from wholeday.errors import QualityError, WarehouseError
from wholeday.load.database import Connection, find_database
from wholeday.load.merge import Merge
from wholeday.load.old_names import has_old_names, refuse_old_names, rename_tables
from wholeday.load.staging import Day, Key, Reject, Staging
from wholeday.log import logger
from wholeday.schema.tables import HISTORY, INDEXES, LOADS, REJECTS, Declared, Table, Words, join_names

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy as sa

    Load = tuple[Day, Iterable[pa.RecordBatch], Iterable[Reject]]
    """A day to be loaded: what `Warehouse.load` takes."""
from wholeday.storage.known_source import SOURCE_GATE, KnownSource, tell_ways_out
from wholeday.storage.workspace import Workspace

MAY_BE_NULL = ("watermark", "pruned_at", "details", "source")  # of a marker


# What a value of a kind must be that is read: SQLite stores any value in any column.
TYPES: dict[str, type | tuple[type, ...]] = {
    "date": dt.date,
    "time": dt.datetime,
    "integer": int,
    "float": (int, float),
    "text": str,
}


@dataclass(frozen=True)
class Rejected:
    """How many records are rejected for one reason, on how many days."""

    reason: str
    records: int
    days: int


def open_warehouse(workspace: Workspace) -> "Warehouse":
    """Return the warehouse of a dataset. It connects to nothing yet. Raises ConfigError for an unusable URL."""
    pipeline = workspace.pipeline
    table, keys = workspace.dataset.table, workspace.tombstones().keys
    return Warehouse(pipeline.database, workspace.name, table, keys, pipeline.is_private)


class Warehouse:
    """A dataset in the database at `url`. A connection lasts for one call; reading never creates anything."""

    def __init__(
        self,
        url: str,
        name: str,
        table: "Callable[[sa.MetaData], sa.Table]",
        tombstones: Callable[[], Iterable[Key]] = tuple,
        private: bool = True,
    ) -> None:
        """Take a SQLAlchemy URL, the dataset's name and its table's declaration; connects to nothing yet.

        `tombstones` gives keys of which nothing may be stored, besides those that the database has. Only this user may
        read the files of a `private` database that this makes.
        Raises ConfigError for a URL of no database that can be used.
        """
        self.name, self.table, self.tombstones = name, table, tombstones
        self.database = find_database(url, private)

    def load(
        self, day: Day, rows: "Iterable[pa.RecordBatch]", rejects: Iterable[Reject], accept: bool = False
    ) -> dict[str, Any]:
        """Make the warehouse say what this day says, in one transaction; returns the marker written with it.

        `rows` are batches with exactly the table's declared columns, in any order, and maybe `deleted` (bool: the
        record is a deletion). `rejects` are (part, line, reason, field, key, record), the key a JSON array of the
        primary key's values or None. Both are read once, a batch at a time. A day that was loaded before is replaced;
        where its marker has the same hashes and `as_of` nothing is read or changed, and that marker is returned.
        A day of another source than the newest loaded day is refused, unless a person let it through: when it was
        extracted, or now, by `accept`.

        Raises QualityError for another source, ConfigError for a table that cannot be stored, WarehouseError for
        everything else that is expected: a locked, foreign, full or read-only database, rows that do not fit, counts
        that do not add up. BrokenOffError leaves open whether the day was committed: the same once more, with its rows
        anew, finds that out first.
        """
        declared = Declared.read(self.name, self.table)
        with self.database.connect(create=True) as db:
            db.begin(self.name)
            prepare(db, declared)
            self._bury(db, declared, self.tombstones())
            loaded = read_markers(db, self.name, "and date = :date", date=day.date)
            if loaded and all(loaded[0][x] == getattr(day, x) for x in ("raw_sha256", "clean_sha256", "as_of")):
                return self._confirm(db, loaded[0], day)
            if loaded and loaded[0]["source"] == day.source:
                day = replace(day, accepted=join_accepted(day.accepted, loaded[0]["accepted"] or ""))
            else:
                day = self._check_source(db, day, accept)
            marker = _load(db, declared, day, rows, rejects)
            db.commit()
            if day.mode == SNAPSHOT:
                _warn_of_future(db, self.name, day)
            return marker

    def rebuild(self, loads: "Sequence[Load]", give_up: Collection[dt.date] = ()) -> set[dt.date]:
        """Make the dataset's tables anew of these days, in their order, in one transaction; tombstones stay.

        Until it is committed others read the tables as they were, and those who write wait. The tables may be damaged,
        or other than declared. Where a day that is loaded is neither among these nor among those to `give_up`, nothing
        is changed, and such days are returned. Raises WarehouseError as `load` does.
        """
        declared = Declared.read(self.name, self.table)
        with self.database.connect(create=True) as db:
            db.begin(self.name)
            if lost := _find_days(db, self.name) - {day.date for day, _, _ in loads} - {*give_up}:
                return lost
            tombstones = _clear(db, declared)
            prepare(db, declared)
            self._bury(db, declared, [*tombstones, *self.tombstones()])
            for day, rows, rejects in loads:
                _load(db, declared, day, rows, rejects)
            db.commit()
            return set()

    def rename_old_tables(self) -> None:
        """Give the tables that an older version made their names of today, before a rebuild reads them."""
        if self.database.exists():
            with self.database.connect() as db:
                if has_old_names(db, self.name):
                    db.begin(self.name)
                    rename_tables(db, Declared.read(self.name, self.table))
                    db.commit()

    def _bury(self, db: Connection, declared: Declared, keys: Iterable[Key]) -> None:
        db.insert(f"_{self.name}_forgotten", declared.key, keys, skip_known=True)

    def find_days(self) -> set[dt.date]:
        """The days in the tables: those that have a marker, and those whose marker somebody deleted."""
        with self._read() as db:
            return _find_days(db, self.name) if db else set()

    def find_let_through(self) -> set[dt.date]:
        """Find the loaded days of another source that a person let through."""
        sql = "select date, accepted from loads where dataset = :name and accepted like '%source%'"
        with self._read() as db:
            rows = db.run(sql, name=self.name).fetchall() if db else []
            return {
                decode(db, f"{self.name}: a day in loads", date, "date")
                for date, accepted in rows
                if db and SOURCE_GATE in accepted.split(", ")
            }

    def refuse_to_lose(self, dates: Iterable[dt.date]) -> None:
        """Raise WarehouseError: these days are loaded and have no raw files, so a rebuild would lose them."""
        with self._read() as db:
            markers = read_markers(db, self.name, "and pruned_at is not null") if db else []
        pruned = {marker["date"] for marker in markers}.intersection(dates)
        given_up = f" (prune has given up those of {name_days(pruned)})" if pruned else ""
        raise WarehouseError(
            f"{self.name} {name_days(dates)}: in {self.database}, but without raw files to be made of again{given_up}: "
            "bring them back from a copy, or give these days up with --drop-missing"
        )

    def _confirm(self, db: Connection, marker: dict[str, Any], day: Day) -> dict[str, Any]:
        """The marker of a day that is loaded as it is; it may have been made anew by other code, or let through."""
        accepted = join_accepted(day.accepted, marker["accepted"] or "")
        said = {"transform_version": day.transform_version, "accepted": accepted, "source": day.source}
        if marker | said != marker:
            sets = ", ".join(f"{column} = :{column}" for column in said)
            db.run(f"update loads set {sets} where dataset = :dataset and date = :date", **marker | said)  # noqa: S608
            db.commit()
        return marker | said

    def _check_source(self, db: Connection, day: Day, accept: bool) -> Day:
        """Return the day, with the gate in its `accepted` if it is let through now. Raises QualityError."""
        known = find_known(db, self.name)
        refusal = known.refuse(day.source) if known else None
        if not refusal or SOURCE_GATE in day.accepted.split(", "):
            return day
        if not accept:
            raise QualityError(f"{self.name} {day.date}: {refusal}: {tell_ways_out(self.name)}")
        return replace(day, accepted=join_accepted(day.accepted, SOURCE_GATE))

    def find_known(self) -> KnownSource | None:
        """Find the source of the newest loaded day; None if no loaded day names its source."""
        with self._read() as db:
            return find_known(db, self.name) if db else None

    def loads(self) -> list[dict[str, Any]]:
        """The markers of this dataset, by date, with dates and aware times. Empty where nothing is loaded."""
        with self._read() as db:
            return read_markers(db, self.name) if db else []

    def find_marker(self, date: dt.date) -> dict[str, Any] | None:
        """The marker of a day, as in `loads`; None where it is not loaded."""
        with self._read() as db:
            markers = read_markers(db, self.name, "and date = :date", date=date) if db else []
            return markers[0] if markers else None

    def note_pruned(self, marker: dict[str, Any]) -> bool:
        """Have it on record that the files of a loaded day are given up; False where its marker is another by now."""
        with self.database.connect() as db:
            db.begin(self.name)
            noted = db.run(
                "update loads set pruned_at = coalesce(pruned_at, :now) where dataset = :dataset and date = :date "
                "and raw_sha256 = :raw_sha256 and clean_sha256 = :clean_sha256",
                now=clock.utc_now(),
                **{name: marker[name] for name in ("dataset", "date", "raw_sha256", "clean_sha256")},
            )
            db.commit()
            return noted.rowcount > 0

    def summarise_rejects(self) -> list[Rejected]:
        """The reasons for which records are rejected, each with its field, the most frequent first."""
        sql = """
            select coalesce(field || ': ', '') || coalesce(reason, ''), count(*), count(distinct load_date)
              from rejects where dataset = :dataset group by 1
        """
        with self._read() as db:
            rows = db.run(sql, dataset=self.name).fetchall() if db and check_stored(db, REJECTS) else []
            return sorted((Rejected(*row) for row in rows), key=lambda each: (-each.records, each.reason))

    def watermark_before(self, date: dt.date) -> dt.datetime | None:
        """The highest `watermark` of the loaded days before `date`; None where there is none."""
        with self._read() as db:
            sql = "select max(watermark) from loads where dataset = :dataset and date < :date"
            newest = db.run(sql, dataset=self.name, date=date).fetchone()[0] if db else None
            return decode(db, f"{self.name}: a watermark in loads", newest, "time") if db else None

    def find_growth(self) -> dict[dt.date, int]:
        """By how many rows the table grew, or shrank, on each day (UTC) when something changed, of all that is known.

        The whole history is worked out for it: some fifteen seconds for a million users.
        """
        sql = f"""
            with ends as materialized (select valid_from, valid_to from "{self.name}_history")
            select substr(cast(at as text), 1, 10), sum(change)
              from (select valid_from as at, 1 as change from ends
                    union all select valid_to, -1 from ends where valid_to is not null) changes
             group by 1 order by 1
        """  # noqa: S608
        with self._read() as db:
            rows = db.run(sql).fetchall() if db and _check_view(db, f"{self.name}_history") else []
            return {dt.date.fromisoformat(date): change for date, change in rows}

    def read_keys(self) -> Iterator[Key]:
        """Stream the keys of all rows that the table has now. Raises WarehouseError where its key is another one."""
        if not self.database.exists():
            return
        declared = Declared.read(self.name, self.table)
        with self.database.connect(readonly=True) as db:
            there = db.describe(self.name).columns
            if there and not declared.key.keys() <= there.keys():
                check_stored(db, declared.stored().present)
            if there:
                yield from db.stream("select {key} from {present}".format_map(Words(declared)))

    def count(self) -> int:
        """How many rows the table has: what is there now."""
        with self._read() as db:
            if not db or not db.describe(self.name).columns:
                return 0
            return int(db.run(f'select count(*) from "{self.name}"').fetchone()[0])  # noqa: S608

    @contextmanager
    def _read(self) -> Iterator[Connection | None]:
        if not self.database.exists():
            yield None
            return
        with self.database.connect() as db:
            refuse_old_names(db, self.name)
            yield db if check_stored(db, LOADS) else None


def _load(
    db: Connection, declared: Declared, day: Day, rows: "Iterable[pa.RecordBatch]", rejects: Iterable[Reject]
) -> dict[str, Any]:
    """Stage and merge a day; returns the marker it writes. Raises WarehouseError where the counts do not add up."""
    started = time.perf_counter()
    for table in declared.temporary()[1:]:  # the first is filled as it is made
        db.create(table, temporary=True)
    facts = "select 1 from {days} union all select 1 from {events} union all select 1 from {changes}"
    first = not db.run(f"select exists ({facts})".format_map(Words(declared))).fetchone()[0]
    counts = Merge(db, declared, day, first).merge(Staging(db, declared, day, first).stage(rows, rejects))
    marker = {"dataset": declared.name, **vars(day), **counts}
    marker |= {"loaded_at": clock.utc_now(), "seconds": round(time.perf_counter() - started, 3), "pruned_at": None}
    marker = {column: marker[column] for column in LOADS.columns}
    db.run("delete from loads where dataset = :dataset and date = :date", **marker)
    if day.absent:
        marker["details"] |= {"absent": day.absent}
    row = marker | {"details": json.dumps(marker["details"], ensure_ascii=False)}
    db.insert("loads", LOADS.columns, [tuple(map(db.encode, row.values()))])
    return marker


def _warn_of_future(db: Connection, name: str, day: Day) -> None:
    """Warn where a snapshot that was taken under a wrong clock keeps this one from changing anything."""
    newest = read_markers(db, name, "and mode = :mode and as_of > :as_of", mode=day.mode, as_of=day.as_of)
    if ahead := [marker for marker in newest if clock.is_future(marker["as_of"])]:
        logger.warning(
            "%s %s: superseded by the snapshot of %s, which was taken under a wrong clock (%s): read that day again",
            *(name, day.date, ahead[0]["date"], f"{ahead[0]['as_of']:%Y-%m-%dT%H:%M:%SZ}"),
        )


def _find_days(db: Connection, name: str) -> set[dt.date]:
    """The days in the tables: those that have a marker, and those whose marker somebody deleted.

    Raises WarehouseError where one is no date.
    """
    days = []
    if check_stored(db, LOADS):
        days += db.run("select date from loads where dataset = :name", name=name).fetchall()
    if "load_date" in db.describe(f"_{name}_days").columns:
        days += db.run(f'select load_date from "_{name}_days"').fetchall()  # noqa: S608
    return {decode(db, f"{name}: a day in loads or _{name}_days", date, "date") for (date,) in days}


def _clear(db: Connection, declared: Declared) -> list[tuple[Any, ...]]:
    """Delete the dataset's rows from all tables; returns its tombstones. Tables that are not as declared are dropped.

    Without days, or a table for them, they are another program's: they stay, and `prepare` says what is wrong.
    """
    name, tables = declared.name, declared.stored()
    if not _find_days(db, name) and db.describe(tables.days.name).columns.keys() != tables.days.columns.keys():
        return []
    forgotten = db.describe(tables.forgotten.name)
    tombstones = db.run(f'select * from "{forgotten.name}"').fetchall() if forgotten.columns else []  # noqa: S608
    if tombstones and list(forgotten.columns) != list(declared.key):
        raise WarehouseError(
            f"{db}: the keys in {forgotten.name} are ({', '.join(forgotten.columns)}), those declared "
            f"({', '.join(declared.key)}): bring that table into the new form, or what is forgotten would come back"
        )
    wanted = [table._replace(columns={c: db.types[kind] for c, kind in table.columns.items()}) for table in tables]
    stored = [db.describe(table.name) for table in tables]
    for view in (table.name for table in stored if table.kind == "view"):
        raise WarehouseError(f"{db}: {view} is a view, not a table: drop it, or choose another database")
    if stored == wanted:  # whoever reads need not wait
        for table in tables:
            db.run(f'delete from "{table.name}"')  # noqa: S608
    else:
        db.run(f'drop view if exists "{name}_history"')
        for table in tables:
            db.run(f'drop table if exists "{table.name}"')
    for table in (LOADS, REJECTS):
        if check_stored(db, table):
            db.run(f"delete from {table.name} where dataset = :name", name=name)  # noqa: S608
    return tombstones


def read_markers(db: Connection, name: str, condition: str = "", **params: Any) -> list[dict[str, Any]]:
    """Markers by date, with dates and aware times; raises WarehouseError where one holds something else."""
    markers = []
    for marker, faults in scan_markers(db, name, condition, **params):
        nulls = [column for column, value in marker.items() if value is None and column not in MAY_BE_NULL]
        if faults := faults or {column: f"{column} is null" for column in nulls}:
            day, fault = marker["date"] or "of no day", next(iter(faults.values()))
            raise WarehouseError(
                f"{db}: loads, {name} {day}: {fault}: put that right, or delete the row and run the day again"
            )
        markers.append(marker)
    return markers


def scan_markers(
    db: Connection, name: str, condition: str = "", **params: Any
) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Markers by date, each with what is wrong with the columns that cannot be read, and are None."""
    sql = f"select {join_names(LOADS.columns)} from loads where dataset = :dataset {condition} order by date"  # noqa: S608
    rows = db.run(sql, dataset=name, **params).fetchall()
    for row in rows:
        marker: dict[str, Any] = dict.fromkeys(LOADS.columns)
        faults = {}
        for (column, kind), value in zip(LOADS.columns.items(), row, strict=True):
            try:
                marker[column] = parse_details(value) if column == "details" else decode(db, column, value, kind)
            except WarehouseError as error:
                faults[column] = str(error)
        yield marker, faults


def parse_details(text: Any) -> dict[str, dict[str, int]] | None:
    """Parse the column `details` of a marker, as `{"nulled": {column: values}}`. None if an older version wrote it.

    Raises WarehouseError for anything else.
    """
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, dict[str, int]], strict=True)
    except (msgspec.DecodeError, TypeError) as error:
        raise WarehouseError(f"details is {text!r}, which is no JSON object of counts") from error


def find_known(db: Connection, name: str) -> KnownSource | None:
    """Find the newest marker that names its source."""
    sql = "select date, source from loads where dataset = :name and source is not null order by date desc limit 1"
    row = db.run(sql, name=name).fetchone()
    return KnownSource(decode(db, f"{name}: a day in loads", row[0], "date"), row[1]) if row else None


def join_accepted(accepted: str, others: str) -> str:
    """Add SOURCE_GATE to the gates that were let through, if it is among the `others`."""
    gates = [gate for gate in accepted.split(", ") if gate]
    added = SOURCE_GATE in others.split(", ") and SOURCE_GATE not in gates
    return ", ".join([*gates, *([SOURCE_GATE] if added else [])])


def decode(db: Connection, column: str, value: Any, kind: str) -> Any:
    """A value of a column; raises WarehouseError where it is none of its kind, as in SQLite any may be."""
    try:
        found = db.decode(value, kind)
    except (ValueError, TypeError):
        found = value
    fits = found is None or isinstance(found, TYPES.get(kind, object))
    if not fits or (isinstance(found, dt.datetime) and not found.tzinfo):
        raise WarehouseError(f"{column} is {value!r}, which is no {kind}")
    return found


def name_days(days: Iterable[dt.date]) -> str:
    """Days in words: `2026-11-02, 2026-11-05..2026-11-09`."""
    runs: list[list[dt.date]] = []
    for day in sorted(days):
        if runs and day - runs[-1][-1] == dt.timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)


def prepare(db: Connection, declared: Declared) -> None:
    """Create what is missing, add columns that the declaration gained; raise WarehouseError for other differences."""
    refuse_old_names(db, declared.name)
    shared = [table for table in (LOADS, REJECTS) if not check_stored(db, table)]
    if shared == [REJECTS]:  # the two are made together: this one was dropped, and what the days rejected with it
        raise WarehouseError(
            f"{db}: there is no table rejects, but one of loads: restore it, or drop that too and load again"
        )
    for table in shared:
        db.create(table)
    tables = declared.stored()
    missing = [table.name for table in tables if not db.describe(table.name).columns]
    view = f"{declared.name}_history"
    if missing and (len(missing) < len(tables) or db.describe(view).columns or read_markers(db, declared.name)):
        raise WarehouseError(
            f"{db}: there is no table {', '.join(missing)}, but others of {declared.name}, or markers in loads: "
            "if they are another program's, choose another database; else restore it, or drop them and load again"
        )
    for table in tables:
        if missing:
            db.create(table)
            continue
        check_stored(db, table, may_be_added=declared.row)
        _add_columns(db, table)
    _check_view(db, view)
    words = Words(declared)
    for suffix, sql in INDEXES.items():
        db.create_index(f"_{declared.name}_{suffix}", sql.format_map(words))
    db.create_view(view, HISTORY.format_map(words))


def _add_columns(db: Connection, table: Table) -> None:
    """Add the columns that the stored table does not have yet; its rows have null in them."""
    there = db.describe(table.name).columns
    for column in table.columns:
        if column not in there:
            db.add_column(table, column)


def _check_view(db: Connection, view: str) -> bool:
    """Whether the view exists; raises WarehouseError if a table has its name."""
    found = db.describe(view)
    if found.columns and found.kind != "view":
        raise WarehouseError(f"{db}: {view} is a table, not a view: drop it, or choose another database")
    return bool(found.columns)


def check_stored(db: Connection, table: Table, may_be_added: Iterable[str] = ()) -> bool:
    """Whether the table is there; raises WarehouseError where it is, and differs from what it should be."""
    found = db.describe(table.name)
    if not found.columns:
        return False
    if found.kind != "table":
        raise WarehouseError(f"{db}: {table.name} is a view, not a table: drop it, or choose another database")
    wanted = {column: db.types[kind] for column, kind in table.columns.items()}
    optional = {*may_be_added}
    differences = [f"no column {c}" for c in wanted if c not in found.columns and c not in optional]
    differences += [f"a column {c} too many" for c in found.columns if c not in wanted]
    differences += [f"{c} as {t}, not {wanted[c]}" for c, t in found.columns.items() if wanted.get(c, t) != t]
    if found.key != table.key:
        differences.append(f"the primary key ({', '.join(found.key)}), not ({', '.join(table.key)})")
    if differences:
        raise WarehouseError(
            f"{db}: the table {table.name} has {', '.join(differences)}: "
            "declare it as it is, or choose another database"
        )
    return True
