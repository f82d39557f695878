"""The cost of a load in SQLite, counted in virtual-machine steps and statements instead of seconds."""

import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.model import ReadDay, Record
from tests.support.store import Store, describe, incremental, snapshot, user
from wholeday.load.clean_day import CleanDay

STEPS = 10  # of SQLite's virtual machine, between two calls of the progress handler


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> "Counter[str]":
    """Count the steps and statements of all new connections."""
    spent: Counter[str] = Counter()
    connect = sqlite3.connect

    def watch(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **options)
        connection.set_progress_handler(lambda: spent.update(steps=STEPS), STEPS)
        connection.set_trace_callback(lambda _: spent.update(statements=1))
        return connection

    monkeypatch.setattr(sqlite3, "connect", watch)
    return spent


def make_users(number: int, changed: str = "") -> list[Record]:
    """Return `number` users, one percent of them with the name `changed`."""
    return [user(key, changed if changed and key % 100 == 0 else "a", 5) for key in range(number)]


def make_days(case: str, number: int) -> list[ReadDay]:
    """Return the days of a case. The last one is measured."""
    first = snapshot(1, 30, *make_users(number))
    return {
        "first snapshot": [first],
        "unchanged snapshot": [first, snapshot(2, 60, *make_users(number))],
        "snapshot with a reject": [
            first,
            snapshot(2, 60, *make_users(number - 1), Record(number - 1, None, None, rejected=True)),
        ],
        "changed snapshot": [first, snapshot(2, 60, *make_users(number, "b"))],
        "late snapshot": [first, snapshot(3, 90, *make_users(number, "c")), snapshot(2, 60, *make_users(number, "b"))],
        "first incremental": [incremental(1, *make_users(number))],
        "small incremental": [first, incremental(2, *(user(key, "b", 40) for key in range(0, number, 100)))],
    }[case]


def load(days: list[ReadDay], path: Path, spent: "Counter[str]") -> "Counter[str]":
    """Load the days into a new warehouse, and return the cost of the last one."""
    for day in days:
        spent.clear()
        Store(path).load(day)
    return spent.copy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "most"),
    [
        ("first snapshot", 60),
        ("unchanged snapshot", 45),
        ("snapshot with a reject", 45),
        ("changed snapshot", 50),
        ("late snapshot", 65),
        ("first incremental", 70),
        ("small incremental", 12),
    ],
)
def test_steps_per_user_are_bounded(spent: "Counter[str]", tmp_path: Path, case: str, most: int) -> None:
    """Another pass over a day or a table costs about ten steps per user. The total grows linearly."""
    steps = {n: load(make_days(case, n), tmp_path / f"{n}.db", spent)["steps"] / n for n in (1000, 4000)}
    print(steps)
    assert max(steps.values()) <= most
    assert steps[4000] <= 1.1 * steps[1000]


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["", "and valid_from <= :at and (valid_to is null or valid_to > :at)"])
def test_history_query_does_not_depend_on_user_count(spent: "Counter[str]", tmp_path: Path, condition: str) -> None:
    """The same holds for the state of one user at a given time."""
    steps = {}
    for number in (1000, 4000):
        store = Store(tmp_path / f"{number}.db")
        later = [user(key, "c", 70) for key in range(number // 5)]
        for day in [*make_days("changed snapshot", number), incremental(3, *later)]:
            store.load(day)
        with closing(sqlite3.connect(tmp_path / f"{number}.db")) as db:
            spent.clear()
            sql = f"select name from users_history where user_id = 100 {condition} order by valid_from"
            rows = db.execute(sql, {"at": "2026-11-03T14:00:00.000000Z"}).fetchall()
            steps[number] = spent["steps"]
        assert rows == ([("b",)] if condition else [("a",), ("b",), ("c",)])
    print(steps)
    assert 0 < steps[4000] <= 1.1 * steps[1000]


@pytest.mark.slow
def test_incremental_load_does_not_depend_on_earlier_days(spent: "Counter[str]", tmp_path: Path) -> None:
    """A load looks up only the users of its day."""
    steps = {}
    for number in (5, 25):
        users = [user(key, "a", 5) for key in range(100 * number)]
        days = [incremental(day + 1, *users[100 * day : 100 * (day + 1)]) for day in range(number)]
        steps[number] = load(days, tmp_path / f"{number}.db", spent)["steps"]
    print(steps)
    assert 0 < steps[25] <= 1.2 * steps[5]


@pytest.mark.slow
def test_snapshot_load_does_not_depend_on_earlier_days(spent: "Counter[str]", tmp_path: Path) -> None:
    """Only records since the last snapshot can override it."""
    steps = {}
    for number in (5, 25):
        days = [
            incremental(day + 1, *(user(key, f"{day}", 24 * day + 5) for key in range(100))) for day in range(number)
        ]
        last = [user(key, f"{number - 1}", 24 * number - 19) for key in range(100)]
        snapshots = [snapshot(number + later, 24 * (number + later), *last) for later in (1, 2)]
        steps[number] = load([*days, *snapshots], tmp_path / f"{number}.db", spent)["steps"]
    print(steps)
    assert 0 < steps[25] <= 1.2 * steps[5]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="what is written is counted by /proc")
@pytest.mark.parametrize("mode", ["snapshot", "incremental"])
def test_shuffled_users_write_as_many_bytes_as_sorted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    """Rows are sorted before they are inserted. Otherwise each page would be read and written for every few rows."""
    connect = sqlite3.connect

    class Small(sqlite3.Connection):
        """A connection with a small cache, so that few users exceed it as many do in production."""

        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("cache_size = -32000", "cache_size = -200"), *values)

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=Small))
    users = make_users(20_000)
    shuffled = random.Random(1).sample(users, len(users))
    make = (lambda date, *some: snapshot(date, 30 * date, *some)) if mode == "snapshot" else incremental
    written = {}
    for name, some in (("sorted", users), ("shuffled", shuffled)):
        store = Store(tmp_path / f"{name}.db")
        for date in (1, 2):
            before = count_bytes("wchar")
            store.load(make(date, *some))
            written[name, date] = count_bytes("wchar") - before
    print(written)
    assert all(written["shuffled", date] < 1.8 * written["sorted", date] for date in (1, 2))
    # The first day is written once, without a write-ahead log.
    assert written["sorted", 1] < 1.1 * (tmp_path / "sorted.db").stat().st_size


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="what is read is counted by /proc")
def test_small_load_reads_only_its_own_pages(tmp_path: Path) -> None:
    """The load does not even count all users."""
    read = {}
    few = [user(key, "b", 40) for key in range(10)]
    for number in (5_000, 20_000):
        store = Store(tmp_path / f"{number}.db")
        for day in (snapshot(1, 30, *make_users(number)), incremental(2, *few)):
            before = count_bytes("rchar")
            described = describe(day, extracted=len(day.records), raw_sha256="", clean_sha256="")
            store.warehouse.load(CleanDay(described, store.batches(day), []))
            read[number] = count_bytes("rchar") - before
    print(read)
    assert 0 < read[20_000] <= 1.1 * read[5_000]


def count_bytes(kind: str) -> int:
    """Return the bytes that this process has read (rchar) or written (wchar) so far."""
    return int(Path("/proc/self/io").read_text().partition(f"{kind}: ")[2].split()[0])


@pytest.mark.slow
def test_insert_statements_hold_over_a_hundred_rows(spent: "Counter[str]", tmp_path: Path) -> None:
    """With one statement per row, running statements would cost as much as writing rows."""
    few, many = (load(make_days("first snapshot", n), tmp_path / f"{n}.db", spent)["statements"] for n in (1000, 4000))
    assert 0 < many - few <= 30
