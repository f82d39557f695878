"""Keep the stored history up to date: the past versions of users, and since when each present row is valid.

Responsibilities: which users have other versions after a load, and their versions. A user whose new fact is later than
all others gets one more version: the row that `users` had until now. Of other users all versions are computed again.
Non-goals: what a version is; see INTERVALS in sql.py.
"""

import datetime as dt
from typing import Any

from wholeday.load.database import Connection
from wholeday.load.sql import VERSIONS, Words
from wholeday.load.staging import Statements
from wholeday.schema.tables import Declared

LAST = dt.datetime.max.replace(tzinfo=dt.UTC)
# Records after the snapshot before `as_of`, up to the snapshot that follows.
AROUND = """
select {e.key}, e.at from {days} d
 cross join {events} e  -- in this order, or SQLite scans all events
 where e.load_date = d.load_date and e.at <= :following
   and not exists (select 1 from {days} x where x.as_of < :as_of and x.as_of >= d.extracted_at)
   and not exists (select 1 from {days} x where x.as_of < :as_of and x.as_of >= e.at)
"""
# The events and changes of the users in `_unordered`. SQLite would scan all of them in another order of the tables.
SOME = {
    "some_events": "(select x.* from _unordered k cross join {events} x where ({x.key}) = ({k.key}))",
    "some_changes": "(select x.* from _unordered k cross join {changes} x where ({x.key}) = ({k.key}))",
}

FIND = "insert into _versions ({key}, {row}, valid_from, valid_to) " + VERSIONS
WRITE_PAST = """
insert into {past} ({key}, {row}, valid_from, valid_to)
select {key}, {row}, valid_from, valid_to from _versions where valid_to is not null
on conflict do nothing
"""
WRITE_PRESENT = """
update {present} as p set valid_from = x.valid_from from _versions x
 where x.valid_to is null and ({x.key}) = ({p.key}) and p.valid_from is distinct from x.valid_from
"""


class History:
    """Collects the users of one load whose facts are out of order, and writes the versions of all its users."""

    def __init__(self, statements: Statements) -> None:
        self._execute, self._one = statements.execute, statements.one
        statements.words["around"] = AROUND.format_map(statements.words)

    def add_unordered(self, keys: str, **params: Any) -> None:
        """Add the users that a query selects."""
        self._execute(
            "insert into _unordered ({key}) select {key} from ({keys}) s where true on conflict do nothing",
            words={"keys": keys},
            **params,
        )

    def add_around(self, as_of: Any) -> None:
        """Add the users with a fact whose time depends on whether there is a snapshot at `as_of`.

        It may be the first snapshot after a record, or may lie between the following snapshot and its `updated_at`. All
        users that the following snapshot changed must be in `_touched`.
        """
        following = self.find_following(as_of) or LAST
        self.add_unordered(
            """
            select {e.key} from ({around}) e
            union all
            select {c.key} from _touched k
             cross join {changes} c  -- in this order, or SQLite scans all changes
             where ({c.key}) = ({k.key}) and c.as_of = :following and c.updated_at <= :as_of
               and not exists (select 1 from {days} x where x.as_of < :as_of and x.as_of >= c.updated_at)
            """,
            as_of=as_of,
            following=following,
        )

    def add_recent(self, as_of: Any) -> None:
        """Add the users with a record after the last snapshot but one, if the last one, at `as_of`, changed their row.

        A fact that says what holds already begins no version. A record may also be later than the snapshot.
        """
        self.add_unordered(
            """
            select {e.key} from ({around}) e
             where e.at > :as_of or exists (select 1 from _before w where ({w.key}) = ({e.key}))
            """,
            as_of=as_of,
            following=LAST,
        )

    def add_records(self) -> None:
        """Add the users with a staged record that is not later than all other facts.

        A fact that says what holds already begins no version.
        """
        self.add_unordered("""
            select {s.key} from _stage s
              left join {present} u on ({u.key}) = ({s.key})
             where not {newest} or s.at <= (select max(as_of) from {days})
                or exists (select 1 from {events} x
                            where ({x.key}) = ({s.key}) and x.at >= s.at and x.load_date <> :date)
               and (u.valid_from is null or s.at < u.valid_from
                    or (s._state, {s.row}) is distinct from (0, {u.row})
                    or exists (select 1 from _before w where ({w.key}) = ({s.key})))
        """)

    def find_following(self, as_of: Any) -> Any:
        """Return the time of the first snapshot after `as_of`; None if there is none."""
        return self._one("select min(as_of) from {days} where as_of > :as_of", as_of=as_of)[0]

    def write(self) -> None:
        """Write the versions that the load changed. `_before` holds the rows of `users` that it changed."""
        self._execute("""
            insert into {past} ({key}, {row}, valid_from, valid_to)
            select {w.key}, {w.row}, w.valid_from, w.valid_to from _before w
             where w._state = 0 and not exists (select 1 from _unordered k where ({k.key}) = ({w.key}))
        """)
        if self._one("select exists (select 1 from _unordered)")[0]:
            self.write_unordered()

    def write_unordered(self) -> None:
        """Compute all versions of the users in `_unordered` again, and write those that differ."""
        self._execute(FIND, words=SOME)
        self._execute("""
            delete from {past} as p where ({key}) in (select {key} from _unordered) and not exists (
              select 1 from _versions x where ({x.key}, x.valid_from) = ({p.key}, p.valid_from)
                 and ({x.row}, x.valid_to) is not distinct from ({p.row}, p.valid_to))
        """)
        self._execute(WRITE_PAST)
        self._execute(WRITE_PRESENT)


def fill_history(db: Connection, declared: Declared) -> None:
    """Write all versions into tables that do not have them yet."""
    db.create(declared.temporary().versions, temporary=True)
    for sql in (FIND, WRITE_PAST, WRITE_PRESENT):
        db.run(sql.format_map(Words(declared)))
