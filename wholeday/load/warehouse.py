"""The warehouse of a dataset: load a day into its tables in one transaction, rebuild them, and read them.

Of a dataset named `users`:

    users             the present, one row per user
    users_history     a view: one row per user and interval without changes, past and present
    _users_past       the intervals that have ended; users holds the others
    _users_days       the loaded days, from which the tables below are made
    _users_events     what incremental days say: every record, once for each day that brought it
    _users_changes    what a snapshot says otherwise than the snapshot before it
    _users_forgotten  keys of users who must not be stored again
    loads, rejects    the markers and the rejected records of all datasets

Everything known is a fact: at some time, a user got a row or became absent. An incremental record is a fact at its
`updated_at`. A snapshot is a fact about every user at its `as_of`, also about those whom it does not list. The last
fact about a user is the present. A snapshot that repeats the one before it adds nothing to `_users_changes`. A day that
arrives late, again or corrected finds its place among the others, so the tables depend on which days are loaded, and
never on the order of loading.

Responsibilities: the transaction of a load, and the rule that a table holds one source.
Non-goals: reading files, and judging the quality of a day.
"""

import datetime as dt
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import msgspec

from wholeday import clock
from wholeday.config.days import SNAPSHOT
from wholeday.days import name_days
from wholeday.errors import DatasetError, QualityError, WarehouseError
from wholeday.load.catalog import check_table, check_view, clear_tables, prepare_tables, read_days
from wholeday.load.clean_day import CleanDay
from wholeday.load.database import Connection, Database, decode, find_database
from wholeday.load.markers import read_known_source, read_markers, scan_markers
from wholeday.load.merge import Merge
from wholeday.load.old_tables import has_old_tables, refuse_old_tables, upgrade_tables
from wholeday.load.sql import Words
from wholeday.load.staging import Staging
from wholeday.log import logger
from wholeday.schema.dataset import Dataset
from wholeday.schema.marker import Marker
from wholeday.schema.tables import LOADS, REJECTS, Declared
from wholeday.storage.known_source import SOURCE_GATE, KnownSource, describe_ways_out, is_let_through, join_accepted
from wholeday.storage.tombstones import Key, to_key
from wholeday.storage.workspace import Workspace


@dataclass(frozen=True)
class RejectReason:
    """How many records were rejected for one reason, and on how many days."""

    reason: str
    records: int
    days: int


def open_warehouse(workspace: Workspace) -> "Warehouse":
    """Return the warehouse of a dataset, without connecting.

    Raises ConfigError for an unusable URL, and DatasetError for a record class that its database cannot store.
    """
    pipeline = workspace.pipeline
    warehouse = Warehouse(pipeline.database, workspace.dataset, workspace.tombstones().keys, pipeline.is_private)
    _check_types(warehouse.database, workspace.dataset.declared)
    return warehouse


def _check_types(database: Database, declared: Declared) -> None:
    for table in (declared.stored.present, *(child.table for child in declared.children)):
        for column, kind in table.columns.items():
            try:
                database.to_type(kind)
            except DatasetError as error:
                raise DatasetError(
                    f"dataset {declared.name}: column {column} of table {table.name}: {error}"
                ) from error


class Warehouse:
    """A dataset in a database. Each call is one connection. Reading creates nothing."""

    def __init__(
        self,
        url: str,
        dataset: Dataset,
        tombstones: Callable[[], Iterable[Key]] = tuple,
        private: bool = True,
    ) -> None:
        """Take a SQLAlchemy URL and a dataset, without connecting.

        `tombstones` returns keys of users who must not be stored, besides those in the database. Files of a new
        `private` database are readable by this user only. Raises ConfigError for a URL that names no usable database.
        """
        self.name, self.dataset, self.tombstones = dataset.name, dataset, tombstones
        self.database = find_database(url, private)

    def load(self, clean: CleanDay, accept: bool = False) -> Marker:
        """Load a day in one transaction and return its marker.

        An earlier load of the day is replaced. If its marker has the same hashes and `as_of`, nothing is read, and that
        marker is returned. A day of another source than the newest loaded day is refused, unless a person let it
        through: at its extraction, or now, with `accept`.

        Raises QualityError for another source, ConfigError for a table that cannot be stored, WarehouseError for any
        other expected error: a locked, foreign, full or read-only database, rows that do not fit, counts that do not
        add up. After InterruptedTransactionError the day may be committed or not: call this again, with new iterators.
        """
        declared, day = self.dataset.declared, clean.draft
        with self.database.connect(create=True) as db:
            db.begin(self.name)
            prepare_tables(db, declared)
            self._insert_tombstones(db, declared, self.tombstones())
            loaded = read_markers(db, self.name, "and date = :date", date=day.date)
            if loaded and loaded[0].has(raw_sha256=day.raw_sha256, clean_sha256=day.clean_sha256, as_of=day.as_of):
                return self._confirm(db, loaded[0], day)
            if loaded and loaded[0].source == day.source:
                day = day.replace(accepted=join_accepted(day.accepted, loaded[0].accepted))
            else:
                day = self._check_source(db, day, accept)
            marker = _load(db, declared, replace(clean, draft=day))
            db.commit()
            if day.mode == SNAPSHOT:
                _warn_of_future(db, self.name, day)
            return marker

    def _confirm(self, db: Connection, marker: Marker, day: Marker) -> Marker:
        """Return the marker of a day that is already loaded from these files, updated by what the manifests say now."""
        accepted = join_accepted(day.accepted, marker.accepted)
        values = {"transform_version": day.transform_version, "accepted": accepted, "source": day.source}
        if marker.has(**values):
            return marker
        sets = ", ".join(f"{column} = :{column}" for column in values)
        place = {"dataset": marker.dataset, "date": marker.date}
        db.run(f"update loads set {sets} where dataset = :dataset and date = :date", **values, **place)  # noqa: S608
        db.commit()
        return marker.replace(**values)

    def _check_source(self, db: Connection, day: Marker, accept: bool) -> Marker:
        """Return the day, with the gate in its `accepted` if it is let through now. Raises QualityError."""
        known = read_known_source(db, self.name)
        refusal = known.refuse(day.source) if known else None
        if not refusal or is_let_through(day.accepted):
            return day
        if not accept:
            raise QualityError(f"{self.name} {day.date}: {refusal}: {describe_ways_out(self.name)}")
        return day.replace(accepted=join_accepted(day.accepted, SOURCE_GATE))

    def rebuild(self, days: Sequence[CleanDay], drop: Collection[dt.date] = ()) -> set[dt.date]:
        """Replace the tables of the dataset by new ones of these days, in their order, in one transaction.

        Readers see the old tables until the commit; writers wait. The tables may be damaged, or differ from the
        declaration. Tombstones stay. If a loaded day is neither among these days nor to be dropped, nothing changes,
        and such days are returned. Raises WarehouseError as `load` does.
        """
        declared = self.dataset.declared
        with self.database.connect(create=True) as db:
            db.begin(self.name)
            if lost := read_days(db, self.name) - {day.draft.date for day in days} - {*drop}:
                return lost
            tombstones = clear_tables(db, declared)
            prepare_tables(db, declared)
            self._insert_tombstones(db, declared, [*tombstones, *self.tombstones()])
            for day in days:
                _load(db, declared, day)
            db.commit()
            return set()

    def upgrade_old_tables(self) -> None:
        """Upgrade tables that an older version made, so that a rebuild can read them."""
        if self.database.exists():
            with self.database.connect() as db:
                if has_old_tables(db, self.name):
                    db.begin(self.name)
                    upgrade_tables(db, self.dataset.declared)
                    db.commit()

    def _insert_tombstones(self, db: Connection, declared: Declared, keys: Iterable[Key]) -> None:
        db.insert(declared.stored.forgotten.name, declared.key, keys, skip_known=True)

    def read_markers(self) -> list[Marker]:
        """Return the markers of the loaded days, by date."""
        with self._read() as db:
            return read_markers(db, self.name) if db else []

    def read_marker(self, date: dt.date) -> Marker | None:
        """Return the marker of a day; None if it is not loaded."""
        with self._read() as db:
            markers = read_markers(db, self.name, "and date = :date", date=date) if db else []
            return markers[0] if markers else None

    def read_days(self) -> set[dt.date]:
        """Return the days in the tables: with a marker, or with a deleted marker."""
        with self._read() as db:
            return read_days(db, self.name) if db else set()

    def read_days_let_through(self) -> set[dt.date]:
        """Return the loaded days of another source that a person let through."""
        with self._read() as db:
            found = scan_markers(db, self.name, "and accepted like '%source%'") if db else ()
            return {marker.date for marker, _ in found if marker.date and is_let_through(marker.accepted)}

    def read_known_source(self) -> KnownSource | None:
        """Return the source of the newest loaded day that names one."""
        with self._read() as db:
            return read_known_source(db, self.name) if db else None

    def refuse_to_lose(self, dates: Iterable[dt.date]) -> None:
        """Raise WarehouseError: these days are loaded and have no raw files, so a rebuild would lose them."""
        with self._read() as db:
            markers = read_markers(db, self.name, "and pruned_at is not null") if db else []
        pruned = {marker.date for marker in markers}.intersection(dates)
        why = f" (pruned: {name_days(pruned)})" if pruned else ""
        raise WarehouseError(
            f"{self.name} {name_days(dates)}: loaded in {self.database}, but without raw files to load again{why}: "
            "restore the files from a backup, or drop these days with --drop-missing"
        )

    def mark_pruned(self, marker: Marker) -> bool:
        """Record in the marker that the files of the day are pruned; False if the day was loaded again meanwhile."""
        with self.database.connect() as db:
            db.begin(self.name)
            place = {name: getattr(marker, name) for name in ("dataset", "date", "raw_sha256", "clean_sha256")}
            same = " and ".join(f"{name} = :{name}" for name in place)
            sql = f"update loads set pruned_at = coalesce(pruned_at, :now) where {same}"  # noqa: S608
            updated = db.run(sql, now=clock.utc_now(), **place)
            db.commit()
            return updated.rowcount > 0

    def count_rejects(self) -> list[RejectReason]:
        """Count the rejected records by field and reason, the most frequent first."""
        sql = """
            select coalesce(field || ': ', '') || coalesce(reason, ''), count(*), count(distinct load_date)
              from rejects where dataset = :dataset group by 1
        """
        with self._read() as db:
            rows = db.run(sql, dataset=self.name).fetchall() if db and check_table(db, REJECTS) else []
            return sorted((RejectReason(*row) for row in rows), key=lambda found: (-found.records, found.reason))

    def watermark_before(self, date: dt.date) -> dt.datetime | None:
        """Return the highest `watermark` of the loaded days before `date`; None if there is none."""
        with self._read() as db:
            sql = "select max(watermark) from loads where dataset = :dataset and date < :date"
            newest = db.run(sql, dataset=self.name, date=date).fetchone()[0] if db else None
            return decode(db, f"{self.name}: a watermark in loads", newest, "timestamp") if db else None

    def compute_growth(self) -> dict[dt.date, int]:
        """Return by how many rows `users` grew or shrank on each day (UTC) with a change, by the whole history."""
        sql = f"""
            select substr(cast(at as text), 1, 10), sum(change)
              from (select valid_from as at, 1 as change from "{self.name}_history"
                    union all select valid_to, -1 from "{self.name}_history" where valid_to is not null) changes
             group by 1 order by 1
        """  # noqa: S608
        with self._read() as db:
            rows = db.run(sql).fetchall() if db and check_view(db, f"{self.name}_history") else []
            return {dt.date.fromisoformat(date): change for date, change in rows}

    def read_keys(self) -> Iterator[Key]:
        """Yield the keys of all present rows. Raises WarehouseError if the table has another key."""
        if not self.database.exists():
            return
        declared = self.dataset.declared
        with self.database.connect(readonly=True) as db:
            stored = db.describe(self.name).columns
            if stored and not declared.key.keys() <= stored.keys():
                check_table(db, declared.stored.present)
            if stored:
                yield from map(to_key, db.stream("select {key} from {present}".format_map(Words(declared))))

    def count(self) -> int:
        """Count the present rows."""
        with self._read() as db:
            if not db or not db.describe(self.name).columns:
                return 0
            return int(db.run(f'select count(*) from "{self.name}"').fetchone()[0])  # noqa: S608

    @contextmanager
    def _read(self) -> Iterator[Connection | None]:
        """Connect if `loads` exists. Raises WarehouseError if it differs, or if an older version made the tables."""
        if not self.database.exists():
            yield None
            return
        with self.database.connect() as db:
            refuse_old_tables(db, self.name)
            yield db if check_table(db, LOADS) else None


def _load(db: Connection, declared: Declared, clean: CleanDay) -> Marker:
    """Stage and merge a day, and write its marker. Raises WarehouseError if the counts do not add up."""
    started = time.perf_counter()
    for table in declared.temporary()[1:]:  # staging creates the first one
        db.create(table, temporary=True)
    facts = "select 1 from {days} union all select 1 from {events} union all select 1 from {changes}"
    first = not db.run(f"select exists ({facts})".format_map(Words(declared))).fetchone()[0]
    staged = Staging(db, declared, clean.draft, first).stage(clean.rows, clean.rejects)
    merged = Merge(db, declared, staged, first).merge()
    marker = merged.replace(loaded_at=clock.utc_now(), seconds=round(time.perf_counter() - started, 3))
    write_marker(db, marker)
    return marker


def write_marker(db: Connection, marker: Marker) -> None:
    """Write a marker in place of an earlier one of the day."""
    db.run("delete from loads where dataset = :dataset and date = :date", dataset=marker.dataset, date=marker.date)
    values = msgspec.structs.asdict(marker)
    if marker.details is not None:
        values["details"] = json.dumps(marker.details, ensure_ascii=False)
    db.insert("loads", LOADS.columns, [tuple(db.encode(values[column]) for column in LOADS.columns)])


def _warn_of_future(db: Connection, name: str, day: Marker) -> None:
    """Warn if a snapshot that was read under a wrong clock keeps this one from changing anything."""
    later = read_markers(db, name, "and mode = :mode and as_of > :as_of", mode=day.mode, as_of=day.as_of)
    if ahead := [marker for marker in later if clock.is_future(marker.as_of)]:
        logger.warning(
            "%s %s: superseded by the snapshot of %s, which was read under a wrong clock (%s): read that day again",
            *(name, day.date, ahead[0].date, f"{ahead[0].as_of:%Y-%m-%dT%H:%M:%SZ}"),
        )
