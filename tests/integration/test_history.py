"""The cost of the stored history. Reading is counted in steps of SQLite's virtual machine instead of seconds."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.store import Store, incremental, snapshot, user

DAYS = 10
AS_OF = "2026-11-06T00:00:00.000000Z"
EVERYBODY = f"select * from users_history where valid_from <= '{AS_OF}' and (valid_to is null or valid_to > '{AS_OF}')"


@pytest.fixture
def count_steps(tmp_path: Path) -> Callable[[int, str], int]:
    """Return a function that counts the steps of a query, of so many users with ten days of 1 % changes."""

    def count(users: int, sql: str) -> int:
        path = tmp_path / f"{users}.db"
        if not path.exists():
            store = Store(path)
            store.load(snapshot(1, 24, *(user(key, "a", 5) for key in range(users))))
            for day in range(2, DAYS + 2):
                store.load(incremental(day, *(user(key, "b", 24 * day - 1) for key in range(day, users, 100))))
        steps = 0

        def watch() -> None:
            nonlocal steps
            steps += 1

        with closing(sqlite3.connect(path)) as connection:
            connection.set_progress_handler(watch, 1)
            connection.execute(sql).fetchall()
        return steps

    return count


def test_everybody_as_of_a_time_costs_three_scans_at_most(count_steps: Callable[[int, str], int]) -> None:
    assert count_steps(2000, EVERYBODY) <= 3 * count_steps(2000, "select * from users")


def test_history_of_one_user_does_not_depend_on_the_others(count_steps: Callable[[int, str], int]) -> None:
    few, many = (count_steps(users, "select * from users_history where user_id = 42") for users in (200, 2000))
    assert many <= few + 10


def test_late_day_writes_the_versions_of_its_users_only(tmp_path: Path) -> None:
    """The versions of other users, which are damaged here, are not computed again."""
    store = Store(tmp_path / "late.db")
    keys = range(50)
    store.load(incremental(1, *(user(key, "a", 5) for key in keys)))
    store.load(incremental(3, *(user(key, "c", 60) for key in keys)))
    store.execute("update _users_past set name = 'x'")
    late = random.Random(1).sample(keys, 5)
    store.load(incremental(2, *(user(key, "b", 30) for key in late)))
    found = {key for (key,) in store.query("select user_id from _users_past where name <> 'x'")}
    assert found == {*late}
