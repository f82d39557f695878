"""Read the life of one record: its versions, and every fact about it with the raw record that said it.

Responsibilities: which day brought a version, and the result of each record with this key.
Non-goals: printing. The rules about facts are in load/sql.py; this module only looks at their result.
"""

import datetime as dt
import decimal
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from wholeday.commands.forget.lookup import parse_key
from wholeday.commands.forget.search import DayFiles, Search
from wholeday.commands.forget.tables import find_rejects, match_key
from wholeday.config.days import SNAPSHOT
from wholeday.errors import ConfigError, FolderError
from wholeday.load.database import Connection, decode
from wholeday.load.old_tables import refuse_old_tables
from wholeday.load.sql import INTERVALS, Words
from wholeday.load.warehouse import open_warehouse
from wholeday.schema.kinds import BOOLEAN, JSON, TIME, UUID, parse_decimal
from wholeday.schema.reject import Reject
from wholeday.schema.tables import Declared, Level, quote
from wholeday.storage.day_folder import list_days
from wholeday.storage.tombstones import Finder, Key, Tombstone
from wholeday.storage.workspace import Workspace

Result: TypeAlias = Literal[
    "version", "deletion", "vanished", "unchanged", "superseded", "duplicate", "rejected", "unknown", "not loaded"
]
PRESENT, ABSENT, UNKNOWN = range(3)  # values of `_state`
LAST = dt.datetime.max.replace(tzinfo=dt.UTC)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A state of the record and its interval, in UTC. `row` is None while the source did not have the record."""

    valid_from: dt.datetime
    valid_to: dt.datetime | None
    date: dt.date
    """The day that brought the state."""
    row: dict[str, Any] | None
    """The values by column. JSON and lists are decoded."""
    changed: dict[str, tuple[Any, Any]]
    """The values before and after. An item of a list is named by its key or position: `line_items[tea-1].price`."""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A statement of a day about the record, and its result."""

    date: dt.date
    result: Result
    at: dt.datetime | None = None
    """When it holds. None for a rejected record, and on a day that is not loaded."""
    reason: str | None = None
    """Why a record was rejected, or why its raw record cannot be shown."""
    file: str | None = None
    line: int | None = None
    """The line in the file, from 1."""
    record: str | None = None
    """The raw record, as the source sent it."""
    parent: dict[str, Any] | None = None
    """The columns of the parent that the record came for, if its source is asked for each row of another dataset."""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one record. `erased_since`: it is forgotten, and no load stores it again."""

    dataset: str
    key: Key
    erased_since: dt.datetime | None
    versions: list[Version]
    facts: list[Fact]


@dataclass
class _Line:
    """A line with the key: its place, and its row or reject; None if the day was not transformed."""

    file: str
    number: int
    record: str
    made: dict[str, Any] | Reject | None
    parent: dict[str, Any] | None

    def place(self) -> dict[str, Any]:
        return {"file": self.file, "line": self.number, "record": self.record, "parent": self.parent}


class _Stored(NamedTuple):
    """A fact as the tables of the warehouse hold it. `row` is None unless the record is present in it."""

    at: dt.datetime
    state: int
    row: dict[str, Any] | None

    @property
    def updated_at(self) -> dt.datetime | None:
        return self.row["updated_at"] if self.row else None


@dataclass
class _Day:
    """A day as the warehouse has it."""

    mode: str | None = None
    """None: the day is not loaded."""
    facts: list[_Stored] = field(default_factory=list)
    rejects: list[str] = field(default_factory=list)
    """The reasons of rejected records."""


def read_life(workspace: Workspace, text: str) -> Life:
    """Read the life of the record with a key: text, or a JSON array if the key has several columns.

    Files of days that say nothing else of the key are not read, unless the warehouse does not know it at all. Raises
    ConfigError if neither tables nor files have it, WarehouseError, FolderError.
    """
    declared = workspace.dataset.declared
    key = parse_key(declared, text)
    days: dict[dt.date, _Day] = {}
    versions: list[Version] = []
    database = open_warehouse(workspace).database
    if database.exists():
        with database.connect(readonly=True) as db:
            refuse_old_tables(db, workspace.name)
            if db.describe(declared.stored.days.name).columns:
                days = _read_days(db, workspace, key)
                versions = read_versions(db, declared, key)
    raw = sorted(list_days(workspace.pipeline.data_dir, "raw", workspace.name))
    known = [date for date, day in days.items() if day.facts or day.rejects]
    wanted = {*known, *(date for date in raw if date not in days)} if known else {*raw}
    search = Search(workspace, Finder(workspace.conversion.key_readers, [key]), list(declared.key))
    facts = [fact for date in sorted(wanted) for fact in _list_facts(search, date, days.get(date, _Day()), versions)]
    erased = [line.since for line in workspace.tombstones().read() if isinstance(line, Tombstone) and line.key == key]
    if not facts and not versions and not erased:
        raise ConfigError(f"{workspace.name}: no file and no table has the key {text}: check the spelling")
    since = erased[0] if erased else None
    return Life(dataset=workspace.name, key=key, erased_since=since, versions=versions, facts=facts)


def _read_days(db: Connection, workspace: Workspace, key: Key) -> dict[dt.date, _Day]:
    """Read the loaded days, with their facts about a key."""
    declared = workspace.dataset.declared
    same_key, values = match_key(declared, key)
    words = Words(declared)
    columns = _list_columns(declared)
    loaded = db.run("select load_date, mode from {days}".format_map(words)).fetchall()
    days = {decode(db, "load_date", date, "date"): _Day(mode) for date, mode in loaded}
    for sql in (
        f"select load_date, at, _state, {columns} from {{events}} where {same_key}",  # noqa: S608
        f"select d.load_date, c.as_of, c._state, {columns} from {{changes}} c "  # noqa: S608
        f"join {{days}} d on d.as_of = c.as_of where {same_key}",
    ):
        for date, at, state, *row in db.run(sql.format_map(words), **values).fetchall():
            present = _read_row(db, declared, row) if state == PRESENT else None
            fact = _Stored(decode(db, "a time", at, "timestamp"), state, present)
            days.setdefault(decode(db, "load_date", date, "date"), _Day()).facts.append(fact)
    finder = Finder(workspace.conversion.key_readers, [key])
    for place in find_rejects(db, workspace.name, finder):
        same = "dataset = :name and (load_date, part, line) = (:date, :part, :line)"
        found = {"name": workspace.name, "date": place[0], "part": place[1], "line": place[2]}
        field_, reason = db.run(f"select field, reason from rejects where {same}", **found).fetchone()  # noqa: S608
        day = days.setdefault(decode(db, "load_date", place[0], "date"), _Day())
        day.rejects.append(f"{field_}: {reason}" if field_ else reason)
    return days


def read_versions(db: Connection, declared: Declared, key: Key) -> list[Version]:
    """Read the states of a key in the order of time, by the definition of the history: absences are not stored."""
    same_key, values = match_key(declared, key)
    words = Words(declared)
    some = {f"some_{role}": f"(select * from {words[role]} where {same_key})" for role in ("events", "changes")}  # noqa: S608
    columns = f"_state, load_date, valid_from, valid_to, {_list_columns(declared)}"
    intervals = INTERVALS.format_map(words | some)
    rows = db.run(f"{intervals} select {columns} from intervals order by valid_from", **values)  # noqa: S608
    versions: list[Version] = []
    before = None
    for state, date, since, until, *found in rows.fetchall():
        row = _read_row(db, declared, found) if state == PRESENT else None
        versions.append(
            Version(
                valid_from=decode(db, "valid_from", since, "timestamp"),
                valid_to=decode(db, "valid_to", until, "timestamp"),
                date=decode(db, "load_date", date, "date"),
                row=row,
                changed=_compare_rows(declared, before, row) if before and row else {},
            )
        )
        before = row or before
    return versions


def _list_columns(declared: Declared) -> str:
    """Return the columns of the row for a select; JSON as text."""
    return ", ".join(f"cast({quote(c)} as text)" if kind == JSON else quote(c) for c, kind in declared.row.items())


def _read_row(db: Connection, declared: Declared, values: Iterable[Any]) -> dict[str, Any]:
    """Decode the values of a row, in the same types for every database."""
    row = {}
    for (column, kind), value in zip(declared.row.items(), values, strict=True):
        row[column] = None if value is None else _read_value(decode(db, column, value, kind), kind)
    return row


def _read_value(value: Any, kind: str) -> Any:
    """Return a value as Python has it: SQLite has no booleans, and doubles for decimals."""
    if kind == JSON:
        return msgspec.json.decode(value)
    if kind == BOOLEAN:
        return bool(value)
    if digits := parse_decimal(kind):
        return decimal.Decimal(f"{value:.{digits[1]}f}")
    return str(value) if kind in (TIME, UUID) else value


def _compare_rows(declared: Declared, before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the columns that differ, with both values; of child lists the items that differ."""
    lists = [child.levels for child in declared.children]
    changed: dict[str, tuple[Any, Any]] = {}
    for column in declared.row:
        changed |= _compare(column, before[column], after[column], lists, ())
    return changed


def _compare(
    name: str, before: Any, after: Any, lists: Sequence[tuple[Level, ...]], above: tuple[Level, ...]
) -> dict[str, tuple[Any, Any]]:
    """Compare two values. `above` are the lists that hold them."""
    if before == after:
        return {}
    last = name.rpartition(".")[2]
    inner = next((levels for levels in lists if levels[:-1] == above and levels[-1].list_name == last), None)
    if not (inner and isinstance(before, list) and isinstance(after, list)):
        return {name: (before, after)}
    changed: dict[str, tuple[Any, Any]] = {}
    items = [_index_items(value, inner[-1]) for value in (before, after)]
    for key in dict.fromkeys(itertools.chain(*items)):
        old, new = (found.get(key) for found in items)
        item = f"{name}[{key}]"
        if old is None or new is None:
            changed[item] = (old, new)
            continue
        for column in new:
            changed |= _compare(f"{item}.{column}", old.get(column), new[column], lists, inner)
    return changed


def _index_items(items: Sequence[Any], level: Level) -> dict[str, Any]:
    """Return the items of a list by their keys, or by their positions."""
    if level.is_positional:
        return {str(number): item for number, item in enumerate(items)}
    return {", ".join(str(item[name]) for name in level.key): item for item in items}


def _list_facts(search: Search, date: dt.date, day: _Day, versions: Sequence[Version]) -> Iterator[Fact]:
    """Yield the facts of a day in the order of their times; what cannot be placed comes last."""
    try:
        lines, reason = list(_read_lines(search, date)), None
    except FolderError as error:
        lines, reason = [], str(error)
    rejected = [line for line in lines if isinstance(line.made, Reject)]
    rows = [line for line in lines if not isinstance(line.made, Reject)]
    for stored in sorted(day.facts, key=lambda fact: fact.at):
        found = [line for line in rows if len(day.facts) == 1 or _is_of(line, stored)]
        for line in found[:-1]:
            yield Fact(date=date, result="duplicate", at=stored.at, **line.place())
        rows = [line for line in rows if line not in found]
        place = found[-1].place() if found else {"reason": reason}
        yield Fact(date=date, result=_judge(date, day.mode, stored, versions), at=stored.at, **place)
    for line in rows:
        yield Fact(date=date, result="unchanged" if day.mode else "not loaded", **line.place())
    for line in rejected:
        assert isinstance(line.made, Reject)  # noqa: S101 - by the choice above
        yield Fact(date=date, result="rejected", **line.place() | {"reason": line.made.describe()})
    if not rejected:
        yield from (Fact(date=date, result="rejected", reason=why) for why in day.rejects)


def _read_lines(search: Search, date: dt.date) -> Iterator[_Line]:
    """Yield the lines of a day with the key. Raises FolderError."""
    if not search.workspace.folder("raw", date).exists():
        return
    day = DayFiles.read(search.workspace, date)
    parents = day.read_parents()
    for match in search.search_day(day):
        for number in sorted(match.numbers):
            made = match.clean.describe(number) if match.clean else None
            record = match.lines[number - 1].decode("utf-8", "backslashreplace")
            parent = parents[match.parents[number - 1]].values if match.parents else None
            yield _Line(f"{day.raw}/{match.part.name}", number, record, made, parent)


def _is_of(line: _Line, stored: _Stored) -> bool:
    """Tell whether a fact of the warehouse was made from a line."""
    if not isinstance(line.made, dict):
        return False
    is_deletion = bool(line.made.get("deleted"))
    return is_deletion if stored.row is None else not is_deletion and line.made["updated_at"] == stored.updated_at


def _judge(date: dt.date, mode: str | None, stored: _Stored, versions: Sequence[Version]) -> Result:
    """Return the result of a fact in the history."""
    if stored.state == UNKNOWN:
        return "unknown"
    times = {stored.at, stored.updated_at} if mode == SNAPSHOT else {stored.at}
    for version in versions:
        if version.date == date and version.valid_from in times and version.row == stored.row:
            if stored.row is not None:
                return "version"
            return "vanished" if mode == SNAPSHOT else "deletion"
    holding = (version for version in versions if version.valid_from <= stored.at < (version.valid_to or LAST))
    return "unchanged" if any(version.row == stored.row for version in holding) else "superseded"
