"""What is staged into the tables of the warehouse: the second half of a load.

Owns the order of facts (see warehouse.py), in SQL that is one text for any database, and what every record
is counted as.
"""

from typing import Any

from wholeday.config.days import SNAPSHOT
from wholeday.errors import WarehouseError
from wholeday.load.staging import Statements
from wholeday.schema.tables import CLASSES


class Merge(Statements):
    """Brings what is staged into the tables, and counts what came of every record."""

    def merge(self, counts: dict[str, Any]) -> dict[str, Any]:
        """Bring what is staged into the tables; returns the counts with those added that depend on other days.

        Raises WarehouseError where they do not add up.
        """
        staged = counts.pop("staged")
        self.words["newest"] = self._ask_newest(staged)
        known = self.one("select mode, as_of, extracted_at from {days} where load_date = :date")
        with self.db.watching(self.declared.name) as growth:
            counts |= self._bring_in(staged, known)
            self._check(counts, None if known else growth())
        return counts

    def _bring_in(self, staged: int, known: tuple[Any, ...] | None) -> dict[str, Any]:
        """The day, which is `known` where it was loaded before."""
        read = self.day.mode, self._snapshot_at(), self.db.encode(self.day.extracted_at)
        if known and known != read:
            self._take_out(*known[:2])
        if self.snapshot:
            self._check_instant()
        if self.first:
            return self._merge_first(staged)
        if self.snapshot:
            self._merge_snapshot()
        else:
            self._merge_records()
        return self._count(staged)

    def _ask_newest(self, staged: int) -> str:
        """The SQL that asks whether s, a record in `_stage`, is its user's newest. As a rule nobody comes twice."""
        if self.snapshot or self.one("select count(*) from (select distinct {key} from {stage}) k") == (staged,):
            return "true"
        return "not exists (select 1 from {stage} x where ({x.key}) = ({s.key}) and x.at > s.at)".format_map(self.words)

    def _snapshot_at(self) -> Any:
        return self.db.encode(self.day.as_of) if self.snapshot else None

    def _check_instant(self) -> None:
        clash = self.one("select min(load_date) from {days} where as_of = :as_of and load_date <> :date")[0]
        if clash:
            raise WarehouseError(
                f"{self.what}: its snapshot was read at the same instant as that of {clash} "
                f"({self.day.as_of.isoformat()}), so neither can be the later: extract one of the two days again"
            )

    def _add_day(self) -> None:
        self.execute(
            """
            insert into {days} (load_date, mode, as_of, extracted_at) values (:date, :mode, :snapshot_at, :extracted_at)
            on conflict (load_date) do nothing
            """,
            snapshot_at=self._snapshot_at(),
        )

    def _merge_first(self, staged: int) -> dict[str, Any]:
        """The very first day has nothing to be compared with, and lies where it stays. Not needed, but much faster."""
        self._add_day()
        stored = self.declared.stored()
        with self.db.filling([stored.present.name, stored.days.name]):
            inserted = self.execute("""
                insert into {present} ({key}, {row}, ingested_at, load_date)
                select {key}, {row}, :extracted_at, :date from {stage} s where _state = 0 and {newest}
            """).rowcount
        superseded = self.one("select count(*) from {stage} s where not {newest}")[0]
        none = dict.fromkeys(("updated", "deleted", "vanished", "reverted"), 0)
        counts = {"superseded": superseded, "unchanged": staged - inserted - superseded, "inserted": inserted, **none}
        return counts | {"details": {}}

    def _merge_records(self) -> None:
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

    def _merge_snapshot(self) -> None:
        """Compare the snapshot with the present first: of a user whom both show alike nothing is to be written."""
        newest = self.one("select count(*) from {days} where as_of > :as_of") == (0,)
        self.execute("""
            insert into _touched ({key})
            select {s.key} from _stage s left join {present} u on ({u.key}) = ({s.key})
             where u.load_date is null or s._state <> 0 or ({s.row}) is distinct from ({u.row})
        """)
        # As a rule the snapshot lists everybody, which these numbers show.
        new = "select count(*) from _touched k where not exists (select 1 from {present} u where ({u.key}) = ({k.key}))"
        listed = self.one("select count(*) from _stage")[0] - self.one(new)[0]
        if self.one("select count(*) from {present}")[0] > listed:
            self.execute("""
                insert into _touched ({key})
                select {u.key} from {present} u where not exists (select 1 from _stage s where ({s.key}) = ({u.key}))
            """)
        # But look also where the present is not what the store says of this snapshot: users not understood, users with
        # a record since the last snapshot, and, where this is not the last, users who changed after it.
        self._touch_undecided()
        if not newest:
            self.execute("""
                insert into _touched ({key})
                select distinct {key} from {changes} where as_of > :as_of order by {key} on conflict do nothing
            """)
        self._add_day()
        self._say("select {key}, _state, {row} from _stage", self.day.as_of)
        # Later snapshots have the last word, unless they only repeat this one or do not understand the user.
        undecided = "select {key} from _changed union select {key} from {changes} where _state = 2"
        self._refresh("select {key} from _touched" if newest else undecided)

    def _touch_undecided(self) -> None:
        """The users of whom the last snapshot may not have the last word."""
        self.execute("""
            insert into _touched ({key})
            select {key} from {changes} where _state = 2
            union
            select {e.key} from {days} d
             cross join {events} e  -- else SQLite goes through all events there are
             where e.load_date = d.load_date
               and not exists (select 1 from {days} x where x.as_of >= d.extracted_at)
               and not exists (select 1 from {days} x where x.as_of >= e.at)
            on conflict do nothing
        """)

    def _take_out(self, mode: str, as_of: Any) -> None:
        """Undo the day as it was loaded before: it was read again, at another time or in another mode."""
        if mode == SNAPSHOT:
            self.execute("insert into _touched ({key}) select {key} from {changes} where as_of = :as_of", as_of=as_of)
            self._say(
                """
                select {c.key}, c._state, {c.row} from _touched k
                 cross join {changes} c  -- else SQLite goes through all changes there are
                 where ({c.key}) = ({k.key}) and c.as_of = ({k.last_change} and x.as_of < :as_of)
                """,
                as_of,
            )
        else:
            self.execute("insert into _touched ({key}) select distinct {key} from {events} where load_date = :date")
            self.execute("delete from {events} where load_date = :date")
        self.execute("delete from {days} where load_date = :date")
        if mode == SNAPSHOT:
            self._touch_undecided()
        self._refresh("select {key} from _touched")
        self.execute("delete from _touched")

    def _say(self, states: str, as_of: Any) -> None:
        """Make the snapshot at `as_of` say `states` of the touched users; the next one goes on saying what it said."""
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
            """.replace("{states}", states),
            as_of=as_of,
        )
        following = self.one("select min(as_of) from {days} where as_of > :as_of", as_of=as_of)[0]
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
                   cross join {changes} c  -- else SQLite goes through all changes there are
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
        """Make the present right for the users whom `keys` selects; `_before` keeps what it said before this load."""
        # What the snapshots say last of each user, and until when: those that do not understand them say nothing.
        self.execute(
            """
            insert into _wanted ({key}, _state, {row}, _until, ingested_at, load_date)
            select {k.key}, coalesce(c._state, 1), {c.row},
                   case when u.as_of is null then (select max(as_of) from {days})
                        else (select max(as_of) from {days} where as_of < u.as_of) end,
                   d.extracted_at, d.load_date
              from ({keys}) k
              left join {changes} c on ({c.key}) = ({k.key})
               and c.as_of = ({k.last_change} and x._state < 2)
              left join {changes} u on ({u.key}) = ({k.key}) and u._state = 2
               and u.as_of = ({u.last_change})
              left join {days} d on d.as_of = c.as_of
             order by {k.key}
        """.replace("{keys}", keys)
        )
        # The newest record, where it is later. Of the days that brought the same the first is named.
        self.execute("""
            insert into _wanted ({key}, _state, {row}, _until, ingested_at, load_date)
            select {e.key}, e._state, {e.row}, e.at, d.extracted_at, d.load_date
              from _wanted w
              cross join {events} e  -- else SQLite goes through all events there are, not through those of these users
              join {days} d on d.load_date = (
                   select min(x.load_date) from {events} x where ({x.key}) = ({e.key}) and x.at = e.at
                      and (x._state, {x.row}) is not distinct from (e._state, {e.row}))
             where ({e.key}) = ({w.key}) and (e.at, e.load_date) = (
                   select x.at, x.load_date from {events} x join {days} y on y.load_date = x.load_date
                    where ({x.key}) = ({w.key}) order by x.at desc, y.extracted_at desc, x.load_date desc limit 1)
               and (w._until is null or e.at > w._until)
            on conflict ({key}) do update
               set _state = excluded._state, {set_row},
                   ingested_at = excluded.ingested_at, load_date = excluded.load_date
        """)
        self.execute("""
            insert into _before ({key}, _state, {row})
            select {w.key}, {u.absent}, {u.row} from _wanted w left join {present} u on ({u.key}) = ({w.key})
             where ({u.absent}, {u.row}) is distinct from (w._state, {w.row})
            on conflict do nothing
        """)
        self.execute("delete from {present} where ({key}) in (select {key} from _wanted where _state = 1)")
        self.execute("""
            insert into {present} as p ({key}, {row}, ingested_at, load_date)
            select {key}, {row}, ingested_at, load_date from _wanted where _state = 0 order by {key}
            on conflict ({key}) do update
               set {set_row}, ingested_at = excluded.ingested_at, load_date = excluded.load_date
             where ({excluded.row}, excluded.ingested_at, excluded.load_date)
                   is distinct from ({p.row}, p.ingested_at, p.load_date)
        """)
        self.execute("delete from _wanted")

    def _count(self, staged: int) -> dict[str, Any]:
        """Put every kept record into one class. Who was not touched is now as the record says, and was before."""
        superseded = self.one("""
            select count(*)
              from _stage s
              left join {present} u on ({u.key}) = ({s.key})
             where ({s.key}) in (select {key} from _touched) and s._state < 2
               and not ({newest} and (s._state, {s.row}) is not distinct from ({u.absent}, {u.row}))
        """)[0]
        inserted, updated, deleted, vanished, reverted = self.one("""
            with _moved as (
              select w._state as was, {u.absent} as now, s._state as said,
                     (s._state, {s.row}) is not distinct from ({u.absent}, {u.row}) as so
                from _before w
                left join {present} u on ({u.key}) = ({w.key})
                left join _stage s on ({s.key}) = ({w.key}) and s._state < 2 and {newest}
               where (w._state, {w.row}) is distinct from ({u.absent}, {u.row})
            )
            select count(*) filter (where so and was = 1),
                   count(*) filter (where so and was = 0 and now = 0),
                   count(*) filter (where so and now = 1),
                   count(*) filter (where not so and :mode = 'snapshot' and said is null and now = 1),
                   count(*) filter (where not so and not (:mode = 'snapshot' and said is null and now = 1))
              from _moved
        """)
        return {
            "superseded": superseded,
            "unchanged": staged - superseded - inserted - updated - deleted,
            "inserted": inserted,
            "updated": updated,
            "deleted": deleted,
            "vanished": vanished,
            "reverted": reverted,
            "details": self._list_removed(),
        }

    def _list_removed(self) -> dict[str, dict[str, int]]:
        """Count by column the values that this load made null, in rows that `users` had before and still has.

        Only users in `_before` are looked at, so an unchanged snapshot costs nothing.
        """
        columns = list(self.declared.row)
        nulled = ", ".join(f'count(w."{column}") filter (where u."{column}" is null)' for column in columns)
        counts = self.one(
            f"select {nulled} from _before w join {{present}} u on ({{u.key}}) = ({{w.key}}) where w._state = 0"  # noqa: S608
        )
        found = {column: count for column, count in zip(columns, counts, strict=True) if count}
        return {"nulled": found} if found else {}

    def _check(self, counts: dict[str, Any], growth: int | None) -> None:
        """Raise WarehouseError where a record is unaccounted for, or where users came or went without a count."""
        numbers = ", ".join(f"{name} {counts[name]}" for name in (*CLASSES, "vanished"))
        if sum(counts[name] for name in CLASSES) != self.day.extracted or min(counts[name] for name in CLASSES) < 0:
            raise WarehouseError(f"{self.what}: {self.day.extracted} records do not divide into {numbers}: report this")
        if growth is not None and growth != counts["inserted"] - counts["deleted"] - counts["vanished"]:
            raise WarehouseError(
                f"{self.what}: {numbers}, but the table has grown by {growth} rows: was it changed by hand? "
                "Restore it, or load all days again into a new database"
            )
