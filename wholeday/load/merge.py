"""Merge a staged day into the tables of the warehouse. The second half of a load.

Responsibilities: the order of facts (see warehouse.py), in SQL that is the same for all databases, and the class in
which every record is counted.
Non-goals: which records of the day are kept; see staging.py.
"""

from typing import Any, NamedTuple

from wholeday.config.days import SNAPSHOT
from wholeday.errors import WarehouseError
from wholeday.load.children import fill_children, update_children
from wholeday.load.history import History
from wholeday.load.staging import Statements
from wholeday.schema.marker import CLASSES, Marker


class _Reading(NamedTuple):
    """A row of `_users_days`: which extraction of a day is loaded."""

    mode: str
    as_of: Any
    extracted_at: Any


class Merge(Statements):
    """Merges the staged records of a day."""

    def merge(self) -> Marker:
        """Merge the day, and return its marker with all counts. Raises WarehouseError if they do not add up."""
        self.history = History(self)
        kept = self.day.extracted - self.day.rejected - self.day.forgotten - self.day.duplicate
        self.words["newest"] = self._write_is_newest(kept)
        row = self.one("select mode, as_of, extracted_at from {days} where load_date = :date")
        loaded = _Reading(*row) if row else None
        with self.db.watching(self.declared.name) as growth:
            merged = self._update_children(self._merge(kept, loaded), is_reload=loaded is not None)
            self._check(merged, None if loaded else growth())
        return merged

    def _merge(self, kept: int, loaded: _Reading | None) -> Marker:
        """Merge the day, after undoing the reading of it that is `loaded`."""
        reading = _Reading(*(self.db.encode(self.params[name]) for name in ("mode", "snapshot_at", "extracted_at")))
        if loaded and loaded != reading:
            self._undo(loaded)
        if self.snapshot:
            self._check_as_of()
        if self.first:
            return self._merge_first(kept)
        if self.snapshot:
            self._merge_snapshot(is_new=loaded != reading)
        else:
            self._merge_records(is_new=loaded != reading)
        self.history.write()
        return self._count(kept)

    def _update_children(self, merged: Marker, is_reload: bool) -> Marker:
        """Derive the child rows of the rows that the load changed.

        Another record class, without child tables, may have made a day that is loaded again. Its rows are derived, too.
        """
        if not self.declared.children:
            return merged
        if self.first:
            changes = fill_children(self.db, self.declared)
        else:
            self.execute("delete from _touched")
            self.execute("insert into _touched ({key}) select {key} from _before")
            if is_reload:
                self.execute("""
                    insert into _touched ({key}) select {key} from {present} where load_date = :date
                    on conflict do nothing
                """)
            changes = update_children(self.db, self.declared, "select {key} from _touched".format_map(self.words))
        found = {"added": changes.added, "removed": changes.removed}
        return merged.replace(details=(merged.details or {}) | {name: x for name, x in found.items() if x})

    def _write_is_newest(self, kept: int) -> str:
        """Return SQL for whether s, a staged record, is the newest of its user. Usually every user has only one."""
        if self.snapshot or self.one("select count(*) from (select distinct {key} from {stage}) k") == (kept,):
            return "true"
        return "not exists (select 1 from {stage} x where ({x.key}) = ({s.key}) and x.at > s.at)".format_map(self.words)

    def _check_as_of(self) -> None:
        clash = self.one("select min(load_date) from {days} where as_of = :as_of and load_date <> :date")[0]
        if clash:
            raise WarehouseError(
                f"{self.what}: it has the same as_of as {clash} "
                f"({self.day.as_of.isoformat()}), so neither is the later one: extract one of the two days again"
            )

    def _add_day(self) -> None:
        self.execute("""
            insert into {days} (load_date, mode, as_of, extracted_at) values (:date, :mode, :snapshot_at, :extracted_at)
            on conflict (load_date) do nothing
        """)

    def _merge_first(self, kept: int) -> Marker:
        """Merge the first day of a dataset, whose records are staged where they stay. This is only faster."""
        self._add_day()
        stored = self.declared.stored
        since = "case when updated_at < :as_of then updated_at else :as_of end" if self.snapshot else "at"
        self.words["valid_from"] = since
        with self.db.filling([stored.present.name, stored.days.name]):
            inserted = self.execute("""
                insert into {present} ({key}, {row}, valid_from, ingested_at, load_date)
                select {key}, {row}, {valid_from}, :extracted_at, :date from {stage} s where _state = 0 and {newest}
            """).rowcount
        if self.words["newest"] != "true":
            self.history.add_unordered("select distinct {s.key} from {stage} s where not {newest}")
            self.history.write_unordered()
        superseded = self.one("select count(*) from {stage} s where not {newest}")[0]
        return self.day.replace(
            superseded=superseded,
            unchanged=kept - inserted - superseded,  # deletions
            inserted=inserted,
        )

    def _merge_records(self, is_new: bool) -> None:
        self.execute("insert into _touched ({key}) select distinct {key} from {events} where load_date = :date")
        self.execute("delete from {events} where load_date = :date")
        self.execute("""
            insert into _touched ({key})
            select distinct {key} from _stage where true order by {key} on conflict do nothing
        """)
        self.execute("""
            insert into {events} (load_date, {key}, at, _state, {row})
            select :date, {key}, at, _state, {row} from _stage order by {key}, at
        """)
        self._add_day()
        self._refresh("select {key} from _touched")
        if is_new:
            self.history.add_records()
        else:
            self.history.add_unordered("select {key} from _touched")

    def _merge_snapshot(self, is_new: bool) -> None:
        """Merge a snapshot. Nothing is written about users who are alike in the snapshot and in the present."""
        newest = self.one("select count(*) from {days} where as_of > :as_of") == (0,)
        self.execute("""
            insert into _touched ({key})
            select {s.key} from _stage s left join {present} u on ({u.key}) = ({s.key})
             where u.load_date is null or s._state <> 0 or ({s.row}) is distinct from ({u.row})
        """)
        # These numbers show whether the snapshot lists every user, which is usual.
        new = "select count(*) from _touched k where not exists (select 1 from {present} u where ({u.key}) = ({k.key}))"
        listed = self.one("select count(*) from _stage")[0] - self.one(new)[0]
        if self.one("select count(*) from {present}")[0] > listed:
            self.execute("""
                insert into _touched ({key})
                select {u.key} from {present} u where not exists (select 1 from _stage s where ({s.key}) = ({u.key}))
            """)
        # The present may not be what the snapshots say of: unknown users, users with a record since the last snapshot,
        # and, if later snapshots are loaded, users who changed after this one.
        self._touch_undecided()
        if not newest:
            self.execute("""
                insert into _touched ({key})
                select distinct {key} from {changes} where as_of > :as_of order by {key} on conflict do nothing
            """)
            if is_new:
                self.history.add_around(self.day.as_of)
        self._add_day()
        self._record("select {key}, _state, {row} from _stage", self.day.as_of)
        # Later snapshots decide the present, unless they only repeat this one or the user is unknown to them.
        undecided = "select {key} from _changed union select {key} from {changes} where _state = 2"
        self._refresh("select {key} from _touched" if newest else undecided)
        if is_new and newest:
            self.history.add_recent(self.day.as_of)
        else:
            self.history.add_unordered("select {key} from _changed union select {key} from _before")

    def _touch_undecided(self) -> None:
        """Touch the users whose present the last snapshot may not decide."""
        self.execute("""
            insert into _touched ({key})
            select {key} from {changes} where _state = 2
            union
            select {e.key} from {days} d
             cross join {events} e  -- in this order, or SQLite scans all events
             where e.load_date = d.load_date
               and not exists (select 1 from {days} x where x.as_of >= d.extracted_at)
               and not exists (select 1 from {days} x where x.as_of >= e.at)
            on conflict do nothing
        """)

    def _undo(self, loaded: _Reading) -> None:
        """Remove the earlier load of the day, which was extracted again, at another time or in another mode."""
        as_of = loaded.as_of
        if loaded.mode == SNAPSHOT:
            self.execute(
                "insert into _touched ({key}) select distinct {key} from {changes} where as_of in (:as_of, :following)",
                as_of=as_of,
                following=self.history.find_following(as_of),
            )
            self._record(
                """
                select {c.key}, c._state, {c.row} from _touched k
                 cross join {changes} c  -- in this order, or SQLite scans all changes
                 where ({c.key}) = ({k.key}) and c.as_of = ({k.last_change} and x.as_of < :as_of)
                """,
                as_of,
            )
            self.history.add_unordered("select {key} from _changed")
            self.history.add_around(as_of)
        else:
            self.execute("insert into _touched ({key}) select distinct {key} from {events} where load_date = :date")
            self.execute("delete from {events} where load_date = :date")
        self.execute("delete from {days} where load_date = :date")
        if loaded.mode == SNAPSHOT:
            self._touch_undecided()
        self._refresh("select {key} from _touched")
        self.history.add_unordered("select {key} from _touched")
        self.execute("delete from _touched")

    def _record(self, states: str, as_of: Any) -> None:
        """Record in {changes} that the snapshot at `as_of` says `states` of the touched users.

        The following snapshot keeps its states: they are written as changes from this one.
        """
        self.execute("delete from _changed")
        self.execute(
            """
            insert into _changed ({key}, _state, {row})
            select {k.key}, coalesce(s._state, 1), {s.row}
              from _touched k
              left join ({states}) s on ({s.key}) = ({k.key})
              left join {changes} c on ({c.key}) = ({k.key})
               and c.as_of = ({k.last_change} and x.as_of <= :as_of)
             where (coalesce(s._state, 1), {s.row}) is distinct from (coalesce(c._state, 1), {c.row})
             order by {k.key}
            """,
            words={"states": states},
            as_of=as_of,
        )
        following = self.history.find_following(as_of)
        if following:
            self.execute(
                """
                insert into {changes} ({key}, as_of, _state, {row})
                select {k.key}, :following, coalesce(c._state, 1), {c.row}
                  from _changed k
                  left join {changes} c on ({c.key}) = ({k.key})
                   and c.as_of = ({k.last_change} and x.as_of <= :as_of)
                 where true
                on conflict do nothing
                """,
                as_of=as_of,
                following=following,
            )
            self.execute(
                """
                delete from {changes} where as_of = :following and ({key}) in (
                  select {k.key} from _changed k
                   cross join {changes} c  -- in this order, or SQLite scans all changes
                   where ({c.key}) = ({k.key}) and c.as_of = :following
                     and (c._state, {c.row}) is not distinct from (k._state, {k.row}))
                """,
                following=following,
            )
        self.execute(
            "delete from {changes} where as_of = :as_of and ({key}) in (select {key} from _changed)", as_of=as_of
        )
        self.execute(
            """
            insert into {changes} ({key}, as_of, _state, {row})
            select {k.key}, :as_of, k._state, {k.row}
              from _changed k
              left join {changes} c on ({c.key}) = ({k.key})
               and c.as_of = ({k.last_change} and x.as_of < :as_of)
             where (k._state, {k.row}) is distinct from (coalesce(c._state, 1), {c.row})
            """,
            as_of=as_of,
        )

    def _refresh(self, keys: str) -> None:
        """Update the present of the users that `keys` selects. `_before` keeps their rows from before this load."""
        # The last state of each user in the snapshots, and the time until which they say so. Unknown users have none.
        self.execute(
            """
            insert into _wanted ({key}, _state, {row}, valid_from, _until, ingested_at, load_date)
            select {k.key}, coalesce(c._state, 1), {c.row},
                   case when c.updated_at < c.as_of and (d._before is null or c.updated_at > d._before)
                        then c.updated_at else c.as_of end,
                   case when u.as_of is null then (select max(as_of) from {days})
                        else (select max(as_of) from {days} where as_of < u.as_of) end,
                   d.extracted_at, d.load_date
              from ({keys}) k
              left join {changes} c on ({c.key}) = ({k.key})
               and c.as_of = ({k.last_change} and x._state < 2)
              left join {changes} u on ({u.key}) = ({k.key}) and u._state = 2
               and u.as_of = ({u.last_change})
              left join (select *, lag(as_of) over (order by as_of) as _before from {days} where as_of is not null) d
                on d.as_of = c.as_of
             order by {k.key}
            """,
            words={"keys": keys},
        )
        # The newest record, if it is later. The first of the days that brought it is named.
        self.execute("""
            insert into _wanted ({key}, _state, {row}, valid_from, _until, ingested_at, load_date)
            select {e.key}, e._state, {e.row}, e.at, e.at, d.extracted_at, d.load_date
              from _wanted w
              cross join {events} e  -- in this order, or SQLite scans all events
              join {days} d on d.load_date = (
                   select min(x.load_date) from {events} x where ({x.key}) = ({e.key}) and x.at = e.at
                      and (x._state, {x.row}) is not distinct from (e._state, {e.row}))
             where ({e.key}) = ({w.key}) and (e.at, e.load_date) = (
                   select x.at, x.load_date from {events} x join {days} y on y.load_date = x.load_date
                    where ({x.key}) = ({w.key}) order by x.at desc, y.extracted_at desc, x.load_date desc limit 1)
               and (w._until is null or e.at > w._until)
            on conflict ({key}) do update
               set _state = excluded._state, {set_row}, valid_from = excluded.valid_from,
                   ingested_at = excluded.ingested_at, load_date = excluded.load_date
        """)
        self.execute("""
            insert into _before ({key}, _state, {row}, valid_from, valid_to)
            select {w.key}, {u.state}, {u.row}, u.valid_from, w.valid_from
              from _wanted w left join {present} u on ({u.key}) = ({w.key})
             where ({u.state}, {u.row}) is distinct from (w._state, {w.row})
            on conflict do nothing
        """)
        self.execute("delete from {present} where ({key}) in (select {key} from _wanted where _state = 1)")
        self.execute("""
            insert into {present} as p ({key}, {row}, valid_from, ingested_at, load_date)
            select {key}, {row}, valid_from, ingested_at, load_date from _wanted where _state = 0 order by {key}
            on conflict ({key}) do update
               set {set_row}, ingested_at = excluded.ingested_at, load_date = excluded.load_date,
                   valid_from = case when ({excluded.row}) is distinct from ({p.row})
                                     then excluded.valid_from else p.valid_from end
             where ({excluded.row}, excluded.ingested_at, excluded.load_date)
                   is distinct from ({p.row}, p.ingested_at, p.load_date)
        """)
        self.execute("delete from _wanted")

    def _count(self, kept: int) -> Marker:
        """Count every kept record in one class. An untouched user was, and is, as the record says."""
        superseded = self.one("""
            select count(*)
              from _stage s
              left join {present} u on ({u.key}) = ({s.key})
             where ({s.key}) in (select {key} from _touched) and s._state < 2
               and not ({newest} and (s._state, {s.row}) is not distinct from ({u.state}, {u.row}))
        """)[0]
        inserted, updated, deleted, vanished, reverted = self.one("""
            with _moved as (
              select w._state as old, {u.state} as new, s._state as staged,
                     (s._state, {s.row}) is not distinct from ({u.state}, {u.row}) as by_record
                from _before w
                left join {present} u on ({u.key}) = ({w.key})
                left join _stage s on ({s.key}) = ({w.key}) and s._state < 2 and {newest}
               where (w._state, {w.row}) is distinct from ({u.state}, {u.row})
            )
            select count(*) filter (where by_record and old = 1),
                   count(*) filter (where by_record and old = 0 and new = 0),
                   count(*) filter (where by_record and new = 1),
                   count(*) filter (where not by_record and :mode = 'snapshot' and staged is null and new = 1),
                   count(*) filter (where not by_record and not (:mode = 'snapshot' and staged is null and new = 1))
              from _moved
        """)
        nulled = self._count_nulled()
        return self.day.replace(
            superseded=superseded,
            unchanged=kept - superseded - inserted - updated - deleted,
            inserted=inserted,
            updated=updated,
            deleted=deleted,
            vanished=vanished,
            reverted=reverted,
            details=({"nulled": nulled} if nulled else {}) | (self.day.details or {}),
        )

    def _count_nulled(self) -> dict[str, int]:
        """Count by column the values that this load made null in rows that `users` had before and still has.

        Only changed users are read, so an unchanged snapshot costs nothing.
        """
        columns = list(self.declared.row)
        nulled = ", ".join(f'count(w."{column}") filter (where u."{column}" is null)' for column in columns)
        counts = self.one(
            f"select {nulled} from _before w join {{present}} u on ({{u.key}}) = ({{w.key}}) where w._state = 0"  # noqa: S608
        )
        return {column: count for column, count in zip(columns, counts, strict=True) if count}

    def _check(self, merged: Marker, growth: int | None) -> None:
        """Raise WarehouseError if a record is in no class, or if users were added or removed without a count."""
        by_class = {name: merged.counts[name] for name in CLASSES}
        numbers = ", ".join(f"{name} {number}" for name, number in (by_class | {"vanished": merged.vanished}).items())
        if sum(by_class.values()) != self.day.extracted or min(by_class.values()) < 0:
            raise WarehouseError(f"{self.what}: {self.day.extracted} records do not divide into {numbers}: report this")
        if growth is not None and growth != merged.inserted - merged.deleted - merged.vanished:
            raise WarehouseError(
                f"{self.what}: {numbers}, but the table has grown by {growth} rows: was it changed by hand? "
                "Restore it, or load all days again into a new database"
            )
