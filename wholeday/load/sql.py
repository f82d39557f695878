"""The words that stand in braces in the SQL of the warehouse, its indexes and the view of the history.

Values of `_state`, in `_users_events` and `_users_changes`: 0, there is a row; 1, the user is absent, and all columns
are null; 2, unknown, as the snapshot has a rejected record of the user.
"""

import functools
from typing import Any

from wholeday.schema.tables import Declared, join_names

ALIASES = (*"cekprsuwx", "excluded")
INDEXES = {  # each is named after the dataset and its key here: `_users_by_as_of`
    "by_as_of": "create unique index {by_as_of} on {days} (as_of)",
    "by_key": "create index {by_key} on {events} ({key}, at)",
    "unknown": "create index {unknown} on {changes} ({key}) where _state = 2",
}


class Words(dict[str, Any]):
    """The words in braces of the SQL over a dataset. Any other word raises KeyError when a text is formatted.

    `{present}`, `{days}`, … are its tables, `{by_key}`, … its indexes, `{key}` and `{row}` lists of its columns.
    `{s.key}` and `{s.row}` are the columns of a table with the alias s.
    """

    def __init__(self, declared: Declared, **more: str) -> None:
        """Take a dataset, and more words with their SQL."""
        super().__init__(_list_words(declared), **more)


@functools.lru_cache(maxsize=64)
def _list_words(declared: Declared) -> dict[str, Any]:
    """Build the words of a dataset once: a load needs them four times."""
    words: dict[str, Any] = {role: f'"{table.name}"' for role, table in declared.stored._asdict().items()}
    words |= {index: f'"_{declared.name}_{index}"' for index in INDEXES}
    words |= {alias: Alias(alias, declared) for alias in ALIASES}
    words |= {"some_events": words["events"], "some_changes": words["changes"]}
    words["key"] = join_names(declared.key)
    words["row"] = join_names(declared.row)
    words["nulls"] = ", ".join(f'"{column}" = null' for column in declared.row)
    words["set_row"] = ", ".join(f'"{column}" = excluded."{column}"' for column in declared.row)
    words["row_before"] = ", ".join(f'lag("{column}") over _in_time' for column in declared.row)
    return words


class Alias:
    """The columns of a table under an alias: `{s.key}` is `s."user_id"`, `{s.row}` is `s."name", s."email", …`."""

    def __init__(self, alias: str, declared: Declared) -> None:
        self.key = ", ".join(f'{alias}."{column}"' for column in declared.key)
        self.row = ", ".join(f'{alias}."{column}"' for column in declared.row)
        # The state of a user in {present}. Every stored row has a load_date: without one, an outer join found none.
        self.state = f"case when {alias}.load_date is null then 1 else 0 end"
        # The last snapshot that changed what the snapshots say of this user; a condition on x may follow.
        key = ", ".join(f'x."{column}"' for column in declared.key)
        changes = declared.stored.changes.name
        self.last_change = f'select max(x.as_of) from "{changes}" x where ({key}) = ({self.key})'  # noqa: S608


# The definition of the history: the states of users, absence included, each with its interval and the day that brought
# it. All facts about a user must be among those of {some_events} and {some_changes}.
INTERVALS = """
with snapshots as (
  select as_of, load_date, lag(as_of) over (order by as_of) as _before from {days} where as_of is not null
),
facts as (
  -- what a record says
  select {e.key}, {e.row}, e._state, e.at, 0 as _rank, d.extracted_at as _read, e.load_date
    from {some_events} e join {days} d on d.load_date = e.load_date
  union all
  -- what a snapshot says otherwise than the one before it; since its updated_at, where that lies between the two
  select {c.key}, {c.row}, c._state,
         case when c.updated_at < c.as_of and (s._before is null or c.updated_at > s._before)
              then c.updated_at else c.as_of end,
         1, s.as_of, s.load_date
    from {some_changes} c join snapshots s on s.as_of = c.as_of
   where c._state < 2
  union all
  -- what the first snapshot after a record says, changed or not: at its as_of, and since its updated_at as above
  select {e.key}, {c.row}, coalesce(c._state, 1), case when _since = 1 then c.updated_at else s.as_of end,
         1, s.as_of, s.load_date
    from {some_events} e
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
  select {key}, {row}, _state, at, load_date,
         (_state, {row}) is distinct from (lag(_state) over _in_time, {row_before}) as _new
    from ordered where _next is null or _next > at
  window _in_time as (partition by {key} order by at)
),
intervals as (
  select {key}, {row}, _state, load_date, at as valid_from, lead(at) over (partition by {key} order by at) as valid_to
    from states where _new
)
"""
VERSIONS = INTERVALS + "select {key}, {row}, valid_from, valid_to from intervals where _state = 0"  # noqa: S608
# The view, which reads the versions as they are stored.
HISTORY = """
select {key}, {row}, valid_from, valid_to from {past}
union all
select {key}, {row}, valid_from, null from {present}
"""
