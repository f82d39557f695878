"""Rebuild loads all raw days into new tables, leaves other datasets alone, and is invisible until its commit."""

import contextlib
import datetime as dt
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.users import USERS, User
from tests.support import databases
from tests.support.orders import ORDERS
from tests.support.project import dump_warehouse, execute, fork, query, run_here, run_stages, start
from tests.support.server import Answer
from wholeday.commands import rebuild as rebuild_module
from wholeday.commands import reprocess
from wholeday.commands.forget import forget
from wholeday.commands.forget.lookup import look_up
from wholeday.commands.plan import plan
from wholeday.commands.prune import prune
from wholeday.commands.rebuild import rebuild
from wholeday.commands.status import read_status
from wholeday.commands.verify import verify
from wholeday.config.pipeline import Pipeline
from wholeday.errors import FolderError, QualityError, WarehouseError
from wholeday.load.warehouse import open_warehouse
from wholeday.schema.dataset import Dataset
from wholeday.schema.record import Field, Json
from wholeday.storage.day_folder import DayFolder
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

DAYS = [dt.date(2026, 10, 1) + dt.timedelta(days=n) for n in range(5)]
URL = "demo://users?updated_since={day_start}&updated_before={day_stop}&per_day="
HISTORY = "select * from users_history order by user_id, valid_from"
KILLS = int(os.environ.get("PIPELINE_KILLS", "5"))


@pytest.fixture
def files(configure, copy_or_make) -> list[dt.date]:
    """Create raw and clean folders of five days on which many users change repeatedly. Nothing is loaded."""

    def make() -> None:
        for day in DAYS:
            stages.extract(read_workspace(USERS), day)
            stages.transform(read_workspace(USERS), day)

    configure("users", url=f"{URL}200")
    copy_or_make("rebuild", make)
    configure("users", url="http://127.0.0.1:9/nobody-listens")
    return DAYS


@pytest.fixture
def loaded(files) -> None:
    """Load the days of `files` out of order."""
    for day in files[::2] + files[1::2]:
        stages.load(read_workspace(USERS), day)


def dump() -> tuple[object, ...]:
    return dump_warehouse(), query(HISTORY)


THEN = "1999-01-01T00:00:00.000000Z"
MANGLED = {
    "rows": [
        "update users set name = 'x'",
        "delete from users where user_id % 2 = 1",
        "delete from _users_events where _state = 1",
    ],
    "the past": ["delete from _users_past", f"update users set valid_from = '{THEN}'"],
    "the store": ["delete from _users_events where user_id % 3 = 0", f"update _users_days set extracted_at = '{THEN}'"],
    "a table that is gone": ["drop view users_history", "drop table _users_events"],
    "the present that is gone": ["drop view users_history", "drop table users"],
    "a column too many": ["alter table users add column age integer"],
    "the history": ["drop view users_history", "create view users_history as select * from users"],
    "markers and rejects": ["delete from loads", "delete from rejects"],
    "all that says what was loaded": ["delete from loads", "delete from _users_days"],
    "nothing": [],
}


@pytest.mark.usefixtures("database_on_request", "loaded")
@pytest.mark.parametrize("mangled", MANGLED)
def test_rebuild_restores_damaged_tables(mangled):
    """The source is unreachable."""
    straight = dump()
    execute(*MANGLED[mangled])
    outcomes = rebuild(read_workspace(USERS))
    assert [(outcome.date, outcome.what) for outcome in outcomes] == [(day, "done") for day in DAYS]
    assert dump() == straight
    assert list(verify(read_workspace(USERS))) == []


@pytest.mark.usefixtures("database", "loaded")
def test_rebuild_needs_only_raw_files(configure):
    """The database and the clean folders are missing. The days are loaded in the order of their extraction."""
    configure("users", url=f"{URL}200")
    read_workspace(USERS).folder("raw", DAYS[0]).clear()
    stages.extract(read_workspace(USERS), DAYS[0])
    straight = dump()
    shutil.rmtree("data/clean")
    databases.remove(Pipeline().database)
    rebuild(read_workspace(USERS))
    assert dump() == straight
    assert query("select date from loads order by loaded_at") == [(str(day),) for day in (*DAYS[1:], DAYS[0])]


class UserWithJson(User):
    city: Json | None = Field("address.city")


@pytest.mark.usefixtures("database", "loaded")
def test_rebuild_applies_a_changed_column_type():
    """A load refuses a changed type. Erased users stay erased."""
    rows = query("select user_id, city from users where city is not null order by 1")
    forgotten = rows[-1][0]
    execute(f"insert into _users_forgotten values ({forgotten})")
    other = read_workspace(Dataset("users", UserWithJson))
    execute(f"delete from loads where date = '{DAYS[0]}'")
    stages.transform(other, DAYS[0])
    with pytest.raises(WarehouseError, match=r"(?i)the table users has city as text, not json"):
        stages.load(other, DAYS[0])
    shutil.rmtree("data/clean")
    rebuild(other)
    cities = {user: json.loads(city) for user, city in query("select user_id, cast(city as text) from users") if city}
    assert {user: city.strip() for user, city in cities.items()} == dict(rows[:-1])
    assert query("select user_id from _users_forgotten") == [(forgotten,)]
    assert query("select sum(forgotten) > 0 from loads") == [(1,)]


@pytest.mark.usefixtures("database", "loaded")
def test_reader_always_sees_all_users():
    """A reader sees the old tables until the commit, and the new ones afterwards."""
    whole = query("select count(*) from users"), query("select count(*) from loads")
    execute("update users set name = 'old'")
    seen, done = set(), threading.Event()

    def poll() -> None:
        with databases.connect(Pipeline().database) as reader:
            for end in iter(done.is_set, None):
                seen.add(reader.execute("select count(*), count(nullif(name = 'old', false)) from users").fetchone())
                if end:
                    return

    reader = threading.Thread(target=poll)
    reader.start()
    while not seen:
        time.sleep(0.01)
    rebuild(read_workspace(USERS))
    done.set()
    reader.join()
    ((number,),), _ = whole
    assert seen == {(number, number), (number, 0)}


@pytest.mark.usefixtures("database", "loaded")
def test_killed_rebuild_leaves_old_or_new_warehouse():
    """SIGKILL at any time. The next rebuild completes."""
    straight, began = dump(), time.monotonic()
    rebuild(read_workspace(USERS))
    seconds = time.monotonic() - began
    assert dump() == straight
    execute("update users set name = 'old'")
    old, chance = dump(), random.Random(4)
    for _ in range(KILLS):
        process = fork(rebuild, read_workspace(USERS))
        time.sleep(chance.uniform(0, seconds))
        process.kill()
        process.join()
        assert dump() in (old, straight)
    rebuild(read_workspace(USERS))
    assert dump() == straight


@pytest.fixture
def orders(server, configure) -> None:
    """Load a day of another dataset: a row and a reject."""
    rows = [{"number": "A", "line": 1, "amount": 1.5}, {"number": "B", "line": 1, "amount": -1}]
    configure("orders", url=server.on("/orders", Answer(rows)), max_reject_ratio=0.5)
    run_stages(ORDERS, DAYS[0])


@pytest.mark.usefixtures("database", "loaded", "orders")
def test_other_datasets_are_not_changed():
    """Their tables, markers and rejects stay the same."""
    tables = [f"{name} where dataset = 'orders'" for name in ("loads", "rejects")]
    tables += ["orders", "_orders_days", "_orders_events"]
    before = [query(f"select * from {name}") for name in tables]
    assert all(before)
    rebuild(read_workspace(USERS))
    assert [query(f"select * from {name}") for name in tables] == before
    rebuild(read_workspace(ORDERS))
    assert list(verify(read_workspace(ORDERS))) == []
    assert list(verify(read_workspace(USERS))) == []


def give_old_names(name: str) -> None:
    """Convert the tables of a dataset to the names, columns and indexes of version 0.1."""
    if "superseded" in databases.list_columns(Pipeline().database, "loads"):
        execute(
            "alter table loads rename column superseded to stale",
            "alter table loads drop column details",
            "alter table loads drop column source",
        )
    tables = {role: f"{name}_{role}" for role in ("days", "events", "changes", "forgotten")}
    execute(
        f"drop view {name}_history",
        f"drop table _{name}_past",
        f"alter table {name} drop column valid_from",
        *(f"drop index _{name}_{index}" for index in ("by_as_of", "by_key", "unknown")),
        *(f"alter table _{table} rename to {table}" for table in tables.values()),
        *(f"alter table {tables[role]} rename column _state to gone" for role in ("events", "changes")),
        f"create unique index {name}_by_as_of on {name}_days (as_of)",
        f"create view {name}_history as select * from {name}_events where gone = 0",
    )


@pytest.mark.usefixtures("database", "loaded", "orders")
def test_rebuild_renames_old_tables():
    """Every other command refuses old tables. Tombstones and the tables of other datasets stay."""
    straight, orders = dump(), query("select * from orders_history")
    execute("insert into _users_forgotten values (4711)")
    give_old_names("users")
    give_old_names("orders")
    commands = {
        "load": lambda: stages.load(read_workspace(USERS), DAYS[0]),
        "status": lambda: read_status(read_workspace(USERS)),
        "plan": lambda: plan(read_workspace(USERS), DAYS[0], DAYS[2]),
        "reprocess": lambda: [*reprocess.reprocess(read_workspace(USERS), DAYS[0], DAYS[2])],
        "prune": lambda: [*prune(read_workspace(USERS), 0, 0, dry_run=True)],
        "forget": lambda: forget(read_workspace(USERS), ["1"]),
        "look up": lambda: look_up(read_workspace(USERS), ["1"]),
    }
    for command in commands.values():
        with pytest.raises(WarehouseError, match=r"made the tables of users: wholeday rebuild makes them again"):
            command()
    (finding,) = verify(read_workspace(USERS))
    assert "made the tables of users: wholeday rebuild" in finding.what
    rebuild(read_workspace(USERS))
    assert dump() == straight
    assert [*verify(read_workspace(USERS))] == []
    assert query("select * from _users_forgotten") == [(4711,)]
    with pytest.raises(WarehouseError, match="made the tables of orders"):
        stages.load(read_workspace(ORDERS), DAYS[0])
    rebuild(read_workspace(ORDERS))
    assert query("select * from orders_history") == orders
    assert [*verify(read_workspace(ORDERS))] == []
    tables = databases.list_tables(Pipeline().database)
    assert not [table for table in tables if table.startswith(("users_", "orders_")) and "history" not in table]


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_old_tables_without_raw_files_survive():
    """The rebuild fails, because one day has no raw files. The renamed tables keep the day and its history."""
    straight, history = dump(), query(HISTORY)
    give_old_names("users")
    shutil.rmtree(read_workspace(USERS).folder("raw", DAYS[0]).path)
    with pytest.raises(WarehouseError, match="without raw files"):
        rebuild(read_workspace(USERS))
    assert query(HISTORY) == history
    stages.load(read_workspace(USERS), DAYS[1])
    assert dump() == straight


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_loaded_day_without_raw_files_stops_the_rebuild():
    """One line names the days. --drop-missing drops them. A deleted marker does not hide a loaded day."""
    for day in (DAYS[0], DAYS[1], DAYS[3]):
        shutil.rmtree(read_workspace(USERS).folder("raw", day).path)
    execute(f"delete from loads where date = '{DAYS[3]}'")
    shutil.rmtree(read_workspace(USERS).folder("clean", DAYS[4]).path)
    before = dump()
    with pytest.raises(WarehouseError, match=r"^users 2026-10-01\.\.2026-10-02, 2026-10-04: .* --drop-missing$"):
        rebuild(read_workspace(USERS))
    assert dump() == before
    assert not read_workspace(USERS).folder("clean", DAYS[4]).exists()  # the rebuild failed before it transformed a day
    rebuild(read_workspace(USERS), drop_missing=True)
    assert query("select date from loads order by 1") == [(str(DAYS[2]),), (str(DAYS[4]),)]
    assert list(verify(read_workspace(USERS), DAYS[2], DAYS[3])) == []


@pytest.mark.usefixtures("database_on_request", "files")
def test_failed_transform_stops_rebuild_of_loaded_days(configure, capsys):
    """A day that was never loaded is reported, and the other days are rebuilt."""
    for day in DAYS[:-1]:
        stages.load(read_workspace(USERS), day)
    straight = dump()
    shutil.rmtree(read_workspace(USERS).folder("clean", DAYS[-1]).path)
    configure("users", max_reject_ratio=0)
    outcomes = rebuild(read_workspace(USERS))
    assert [outcome.what for outcome in outcomes] == ["done"] * 4 + ["failed"]
    assert "records are rejected, more than max_reject_ratio 0.0" in outcomes[-1].why
    assert dump() == straight
    made = f"users {DAYS[0]}..{DAYS[3]}: tables rebuilt from these days\n"
    assert run_here(capsys, "rebuild") == (made, f"ERROR: {outcomes[-1].why}\n", 1)
    assert dump() == straight
    shutil.rmtree(read_workspace(USERS).folder("clean", DAYS[0]).path)
    with pytest.raises(QualityError, match=r"users 2026-10-01: .* records are rejected"):
        rebuild(read_workspace(USERS))
    assert dump() == straight


LATE = DAYS[-1] + dt.timedelta(days=1)


def act_while_cleaning(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Call `act` once the rebuild has listed its days and starts with the first one."""
    acts, real = iter([act]), rebuild_module.transform_if_outdated

    def look(*args: Any) -> None:
        next(acts, lambda: None)()
        real(*args)

    monkeypatch.setattr(rebuild_module, "transform_if_outdated", look)


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_day_loaded_during_a_rebuild_is_kept(monkeypatch, configure):
    """Its load waits for the rebuild. --drop-missing drops only days without raw files."""
    configure("users", url=f"{URL}200")
    loading = []

    def load() -> None:
        flags = ("--date", str(LATE), "--users-url", f"{URL}200", "--pipeline-database", Pipeline().database)
        loading.append(start("luigi", "--module", "pipeline", "LoadUsers", *flags))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not read_workspace(USERS).folder("raw", LATE).exists():
            time.sleep(0.05)
        time.sleep(1)  # it would be loaded by now

    act_while_cleaning(monkeypatch, load)
    rebuild(read_workspace(USERS), drop_missing=True)
    (process,) = loading
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert query("select date from loads order by 1") == [(str(day),) for day in [*DAYS, LATE]]
    assert list(verify(read_workspace(USERS))) == []


@pytest.mark.usefixtures("database_on_request", "loaded")
@pytest.mark.parametrize("drop_missing", [False, True])
def test_concurrent_load_without_locks_is_rebuilt_too(monkeypatch, configure, drop_missing):
    """An object store has no locks, so the transaction compares the days again."""
    configure("users", url=f"{URL}200")
    monkeypatch.setattr(DayFolder, "lock_all", lambda _: contextlib.nullcontext())

    def load() -> None:
        run_stages(USERS, LATE)

    act_while_cleaning(monkeypatch, load)
    assert [outcome.date for outcome in rebuild(read_workspace(USERS), drop_missing)] == [*DAYS, LATE]
    assert query("select date from loads order by 1") == [(str(day),) for day in [*DAYS, LATE]]
    assert list(verify(read_workspace(USERS))) == []


@pytest.mark.usefixtures("database", "files")
def test_table_of_another_program_is_not_dropped():
    """If no day is loaded, an existing table `users` belongs to another program."""
    with open_warehouse(read_workspace(USERS)).database.connect(create=True):
        pass
    execute("create table users (id integer)", "insert into users values (7)")
    with pytest.raises(WarehouseError, match=r"there is no table _users_past, .*: if they are another program's"):
        rebuild(read_workspace(USERS))
    assert query("select * from users") == [(7,)]


@pytest.mark.usefixtures("database")
def test_rebuild_without_raw_days_fails():
    """The existing warehouse is not replaced by an empty one."""
    with pytest.raises(FolderError, match="data/raw/users: no day has raw files to rebuild from"):
        rebuild(read_workspace(USERS))
    assert databases.is_empty(Pipeline().database)
