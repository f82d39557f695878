"""Define the content of a warehouse after some loaded days, in plain Python and independent of the order of loading.

A fact states that a user has a state from a time on. A state is (row, updated_at), or ABSENT.

- A record of an incremental day is one fact. Its time is `updated_at`, or the end of the day's window if that is null,
  but never later than the extraction.
- A snapshot is a fact about every user at its `as_of`: the row in the snapshot, or ABSENT without a row or with a
  deletion. A row with an `updated_at` after the `as_of` of the previous snapshot, if any, is a fact at that time too.
- A rejected record is not a fact. In a snapshot its user is NOT_UNDERSTOOD: neither present nor absent.
- If records of a day share key and fact time, the highest `updated_at` wins, and the later record among equal ones.

The lists of `carts` are part of their rows: (name, lines, notes), the lists as canonical JSON. A child row has the
interval of its parent.

Facts are ordered by time. At the same time, facts of records precede facts of snapshots; then the time of extraction
decides, then the date. The last fact is the present; the maximal intervals of one state are the history.
"""

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any, NamedTuple

ABSENT, NOT_UNDERSTOOD = None, "not understood"


@dataclass(frozen=True)
class Record:
    """A record after cleaning. `key` is None if it is unreadable; only a rejected record has an unreadable key."""

    key: Any
    updated_at: dt.datetime | None
    row: Any
    deleted: bool = False
    rejected: bool = False


@dataclass(frozen=True)
class ReadDay:
    """An extracted day."""

    date: dt.date
    mode: str
    as_of: dt.datetime
    extracted_at: dt.datetime
    window_stop: dt.datetime
    records: tuple[Record, ...] = ()


class Fact(NamedTuple):
    """A fact. Facts of one key sort in their order."""

    key: Any
    time: dt.datetime
    rank: int
    read: dt.datetime
    date: dt.date
    state: Any


def keep(
    day: ReadDay, forgotten: Iterable[Any] = ()
) -> tuple[dict[tuple[Any, dt.datetime], Record], set[Any], dict[str, int]]:
    """Return the day's records by key and fact time, the NOT_UNDERSTOOD keys, and the number of dropped records."""
    known = [record for record in day.records if record.key not in forgotten]
    good = [record for record in known if not record.rejected]
    kept = {}
    for record in sorted(good, key=lambda record: () if record.updated_at is None else (record.updated_at,)):
        time = day.as_of if day.mode == "snapshot" else min(record.updated_at or day.window_stop, day.extracted_at)
        kept[record.key, time] = record
    not_understood = {record.key for record in known if record.rejected} - {key for key, _ in kept} - {None}
    return (
        kept,
        not_understood,
        {
            "extracted": len(day.records),
            "rejected": len(known) - len(good),
            "forgotten": len(day.records) - len(known),
            "duplicate": len(good) - len(kept),
        },
    )


def state_of(record: Record | None) -> Any:
    return ABSENT if record is None or record.deleted else (record.row, record.updated_at)


def snapshots(days: Iterable[ReadDay]) -> list[ReadDay]:
    return sorted((day for day in days if day.mode == "snapshot"), key=lambda day: day.as_of)


def says(snapshot: ReadDay, key: Any) -> Any:
    kept, not_understood, _ = keep(snapshot)
    return NOT_UNDERSTOOD if key in not_understood else state_of(kept.get((key, snapshot.as_of)))


def facts(days: Iterable[ReadDay], forgotten: Iterable[Any] = ()) -> list[list[Fact]]:
    """Return all facts of each key with a kept record, in order."""
    days, found = list(days), []
    for day in days:
        if day.mode == "incremental":
            kept = keep(day, forgotten)[0]
            found += [
                Fact(key, time, 0, day.extracted_at, day.date, state_of(record)) for (key, time), record in kept.items()
            ]
    keys, before = {key for day in days for key, _ in keep(day, forgotten)[0]}, None
    for day in snapshots(days):
        for key in keys:
            if (state := says(day, key)) != NOT_UNDERSTOOD:
                changed = state and state[1]
                between = changed and (before is None or before < changed) and changed < day.as_of
                found += [
                    Fact(key, time, 1, day.as_of, day.date, state) for time in [day.as_of] + [changed] * bool(between)
                ]
        before = day.as_of
    found.sort(key=lambda fact: (fact.key, fact[1:5]))
    return [list(of_key) for _, of_key in groupby(found, key=lambda fact: fact.key)]


def history(days: Iterable[ReadDay], forgotten: Iterable[Any] = ()) -> set[tuple[Any, ...]]:
    """Return the maximal intervals of one state as (key, row, updated_at, valid_from, valid_to)."""
    intervals = set()
    for of_key in facts(days, forgotten):
        state_at = {fact.time: fact.state for fact in of_key}
        runs = [(state, next(run)[0]) for state, run in groupby(state_at.items(), key=lambda item: item[1])]
        stops = [start for _, start in runs[1:]] + [None]
        intervals |= {
            (of_key[0].key, *state, start, stop) for (state, start), stop in zip(runs, stops, strict=True) if state
        }
    return intervals


def present(days: Iterable[ReadDay], forgotten: Iterable[Any] = ()) -> dict[Any, tuple[Any, ...]]:
    """Return the last facts as {key: (row, updated_at, load_date)}.

    If the last fact is a record, `load_date` is the first date of the records with that fact. If it is a snapshot,
    `load_date` is the date of the earliest one in the latest run of snapshots with that state.
    """
    days, users = list(days), {}
    for of_key in facts(days, forgotten):
        key, time, rank, read, date, state = of_key[-1]
        if rank:
            earlier = [day for day in snapshots(days) if day.as_of <= read]
            date = list(takewhile(lambda day: says(day, key) == state, reversed(earlier)))[-1].date  # noqa: B023
        else:
            date = min(fact.date for fact in of_key if (fact.time, fact.rank, fact.state) == (time, rank, state))
        if state is not ABSENT:
            users[key] = (*state, date)
    return users


def expand(key: Any, row: tuple[Any, ...]) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of the child tables of a row of `carts`. Items have a key, or a position from 0."""
    _, lines, notes = row
    lines, notes = json.loads(lines or "[]"), json.loads(notes or "[]")
    return {
        "carts_lines": [(key, line["sku"], line["quantity"], write_json(line["parts"])) for line in lines],
        "carts_lines_parts": [
            (key, line["sku"], position, part["name"])
            for line in lines
            for position, part in enumerate(line["parts"] or [])
        ],
        "carts_notes": [(key, position, note["text"]) for position, note in enumerate(notes)],
    }


def write_json(value: Any) -> str | None:
    """Write canonical JSON."""
    return None if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))


def children(rows: Iterable[tuple[Any, ...]]) -> dict[str, set[tuple[Any, ...]]]:
    """Return the rows of the child tables of rows (key, row, …). What follows the row is that of the child rows."""
    found: dict[str, set[tuple[Any, ...]]] = {name: set() for name in expand(None, (None, None, None))}
    for key, row, *more in rows:
        for name, items in expand(key, row).items():
            found[name] |= {(*item, *more) for item in items}
    return found


def count(day: ReadDay, forgotten: Iterable[Any], before: dict[Any, Any], after: dict[Any, Any]) -> dict[str, Any]:
    """Count each record in one class, and users changed without a record. `before` and `after` enclose the load.

    `details` counts values that became null in users that stay present, and child rows that were added or removed.
    """
    kept, _, counts = keep(day, forgotten)
    counts |= dict.fromkeys(("superseded", "unchanged", "inserted", "updated", "deleted", "vanished", "reverted"), 0)
    was, now = ({key: user[:2] for key, user in users.items()} for users in (before, after))
    newest = dict(sorted(kept))
    moved = {key for key in was.keys() | now.keys() if was.get(key) != now.get(key)}
    for (key, time), record in kept.items():
        if time < newest[key] or state_of(record) != now.get(key):
            counts["superseded"] += 1
        elif key not in moved:
            counts["unchanged"] += 1
        else:
            counts["inserted" if key not in was else "updated" if key in now else "deleted"] += 1
            moved.remove(key)
    for key in moved:
        counts["vanished" if day.mode == "snapshot" and key not in newest and key not in now else "reverted"] += 1
    stayed = [(was[key], now[key]) for key in was.keys() & now.keys()]
    has_lists = any(isinstance(row, tuple) for row, _ in (*was.values(), *now.values()))
    columns = ("name", "lines", "notes", "updated_at") if has_lists else ("name", "updated_at")
    flat = [[(*row, at) if has_lists else (row, at) for row, at in pair] for pair in stayed]
    nulled = {
        column: sum(old[place] is not None and new[place] is None for old, new in flat)
        for place, column in enumerate(columns)
    }
    details = {"nulled": nulled} | (compare_children(was, now) if has_lists else {})
    found = {name: {column: x for column, x in numbers.items() if x} for name, numbers in details.items()}
    return {**counts, "details": {name: numbers for name, numbers in found.items() if numbers}}


def compare_children(was: dict[Any, Any], now: dict[Any, Any]) -> dict[str, dict[str, int]]:
    """Count the child rows whose keys are new or missing. A key is all columns before the values of the item."""
    width = {"carts_lines": 2, "carts_lines_parts": 3, "carts_notes": 2}
    before, after = (children((key, row) for key, (row, _) in rows.items()) for rows in (was, now))
    keys = {name: [{row[:number] for row in rows[name]} for rows in (before, after)] for name, number in width.items()}
    return {
        "added": {name: len(new - old) for name, (old, new) in keys.items()},
        "removed": {name: len(old - new) for name, (old, new) in keys.items()},
    }
