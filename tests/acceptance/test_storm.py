"""Run a storm of concurrent commands and compare the result with a serial run.

PIPELINE_STORM is the number of commands of all storms together. A small number is for two storms, a large one for four.
"""

import collections
import datetime as dt
import os
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from luigi.configuration import get_config

from pipeline.users import USERS, ExtractUsers, LoadUsers, TransformUsers
from tests.support import storm
from tests.support.databases import DATABASES
from tests.support.forgetting import MARK, find_mark
from tests.support.project import dump_tree, query, remove_warehouse
from tests.support.reading import make_user
from tests.support.server import Answer, Request, Server
from wholeday import clock
from wholeday.commands import prune
from wholeday.commands.forget import forget
from wholeday.commands.reprocess import reprocess
from wholeday.commands.verify import verify
from wholeday.config.days import INCREMENTAL, SNAPSHOT
from wholeday.storage.day_folder import DayFolder
from wholeday.tasks.stages import read_workspace

SIZE = int(os.environ.get("PIPELINE_STORM", "24"))
EVERY = [(mode, database) for mode in (INCREMENTAL, SNAPSHOT) for database in DATABASES]
STORMS = EVERY if SIZE >= 100 else EVERY[::3]
EXPECTED = {0, 1, 30, -9}
PAGE, PART = 5, 4
KEPT = 3  # days that prune keeps
PERSONS = range(101, 105)  # forgotten during the storm
TABLES = ("users", "_users_past", "users_history", "_users_days", "_users_events", "_users_changes", "_users_forgotten")
OF_A_DAY = "date, mode, source, started_at, extracted_at, as_of, pages, extracted, watermark, accepted"
OF_ITS_FILES = "date, rejected, forgotten, duplicate, transform_version"

pytestmark = [pytest.mark.sweep, pytest.mark.usefixtures("memory")]


def list_users(day: dt.date, mode: str) -> list[dict[str, Any]]:
    """Return the same users for a day every time: changes, deletions, duplicates and rejects."""
    chance, users = random.Random(f"{day} {mode}"), []
    known = range(1, 21) if mode == SNAPSHOT else chance.choices(range(1, 21), k=9)
    for number in known:
        if mode == INCREMENTAL or chance.random() < 0.9:  # the others vanished
            time = f"{day - dt.timedelta(days=chance.randrange(3))}T{chance.randrange(22):02}:00:00Z"
            users.append(make_user(number, time, city=chance.choice("ab"), deleted=chance.random() < 0.1))
    for number in chance.sample(PERSONS, 3):
        name = {"name": f"{MARK} {day}", "email": chance.choice([f"{MARK}@example.com", MARK])}
        users.append(make_user(number, f"{day}T12:00:00Z", **name))
    chance.shuffle(users)
    return [*users, make_user(30, email="no address"), make_user(31, f"{day}T23:00:00Z", city=str(day))]


def make_source(server: Server, mode: str) -> Callable[[Request], Answer]:
    """Return a paged API with constant answers for each day."""

    def respond(request: Request) -> Answer:
        users, on = list_users(dt.date.fromisoformat(request.query["on"]), mode), request.query["on"]
        page = int(request.query.get("page", "1"))
        link = f'<{server.url}/users?on={on}&page={page + 1}>; rel="next"'
        headers = {"Link": link} if page * PAGE < len(users) else {}
        return Answer(users[(page - 1) * PAGE : page * PAGE], headers=headers)

    return respond


def find_lost(
    operations: list[storm.Operation], unloaded: list[storm.Unloaded]
) -> list[tuple[storm.Unloaded, storm.Operation]]:
    """Return unloaded days that a command had loaded from the current files, with that command."""
    return [
        (day, done)
        for day in unloaded
        for done in operations
        if day.extracted_at < done.began < day.at and has_loaded(done, day.date)
    ]


def has_loaded(done: storm.Operation, day: dt.date) -> bool:
    command, *words = done.words
    return done.code == 0 and (
        (command == "load" and words[0] == str(day)) or (command == "backfill" and words[0] <= str(day) < words[1])
    )


def load(day: dt.date) -> None:
    """Run the incomplete tasks of a day, as Luigi does."""
    if not LoadUsers(date=day).complete():
        for task in (ExtractUsers(date=day), TransformUsers(date=day), LoadUsers(date=day)):
            if not task.complete():
                task.run()


def finish() -> None:
    """Forget and prune, then verify the warehouse and the files."""
    assert forget(read_workspace(USERS), [str(person) for person in PERSONS]).problems == []
    assert {outcome.what for outcome in prune.prune(read_workspace(USERS), KEPT, KEPT, dry_run=False)} <= {"pruned"}
    assert list(verify(read_workspace(USERS))) == []
    assert find_mark() == []


def dump_tables() -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows without values that depend on timing, or for pruned days on `forget`."""
    tables = {name: sorted(query(f"select * from {name}"), key=repr) for name in TABLES}
    rejects = "select load_date, reason, field, key, record from rejects order by 1, 5"
    with_files = "from loads where pruned_at is null order by 1"
    return tables | {
        "loads": query(f"select {OF_A_DAY}, pruned_at is null from loads order by 1"),
        "loads with files": query(f"select {OF_ITS_FILES} {with_files}"),
        "rejects": query(rejects),
    }


def dump_files() -> dict[str, Any]:
    """Return the content of day files and the names of other files, without erasure counters.

    Failures are left out: only a storm has them, for example when `forget` erases a day that another process
    uses.
    """
    files: dict[str, Any] = {}
    for path, content in dump_tree("data").items():
        if path.startswith("data/failures/"):
            continue
        name = strip_erasures(path)
        assert name not in files
        if "/date=" not in path:
            files[name] = None
        elif path.endswith("manifest.json"):
            manifest = msgspec.json.decode(strip_erasures(content.decode()))
            files[name] = {key: value for key, value in manifest.items() if key not in ("erasures", "fields")}
        else:
            files[name] = content
    return files


def strip_erasures(text: str) -> str:
    return re.sub(r"(-\d{5})-r\d+\.", r"\1.", text)


def report(operations: list[storm.Operation], seconds: float) -> None:
    """Print the size of the storm."""
    killed = sum(done.code < 0 for done in operations)
    print(f"{len(operations)} commands in {seconds:.0f} s, {killed} killed")
    for (name, code), number in sorted(collections.Counter((done.words[0], done.code) for done in operations).items()):
        print(f"{number:5} {name} {code}")


@pytest.mark.timeout(120 + SIZE)
@pytest.mark.parametrize(("mode", "database"), STORMS, indirect=["database"])
def test_storm_gives_the_warehouse_of_a_serial_run(
    mode: str, database: str, server: Server, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes run commands, and many commands are killed."""
    respond = make_source(server, mode)
    configure("pipeline", part_records=PART, engine_workers=1)
    gates = {"max_reject_ratio": 1, "max_delete_ratio": 1, "max_drop_ratio": 1}
    configure("users", url=server.on("/users", respond) + "?on={date}", mode=mode, deleted_when="deleted", **gates)
    with Path("luigi.cfg").open("w") as file:
        get_config().write(file)
    last = USERS.config().last_closed_day(clock.utc_now())
    days = [last - dt.timedelta(days=number) for number in reversed(range(6))]
    plan = storm.Plan(
        seed=f"{SIZE} {mode} {database}",
        size=SIZE // len(STORMS),
        days=[str(day) for day in [*days, last + dt.timedelta(days=1)]],
        keys=[str(person) for person in PERSONS],
        prune=["prune", "--older-than", str(KEPT), "--keep", str(KEPT), "--yes"],
    )
    began = time.monotonic()
    operations, unloaded = storm.run_storm(plan)
    report(operations, time.monotonic() - began)
    assert len(operations) == plan.size
    assert [done for done in operations if done.code not in EXPECTED or "Traceback" in done.output] == []
    assert find_lost(operations, unloaded) == []
    monkeypatch.setattr(DayFolder, "publish", storm.publish_and_keep)
    for day in days:
        load(day)
    remade = reprocess(read_workspace(USERS), days[0], last + dt.timedelta(days=1))
    assert {outcome.what for outcome in remade} <= {"current", "pruned", "done"}
    finish()
    tables, files = dump_tables(), dump_files()
    readings = query("select date, extracted_at from loads")
    shutil.move("data", "after the storm")
    remove_warehouse()
    for date, extracted_at in readings:
        day = dt.date.fromisoformat(date)
        copy = storm.find_reading(date, dt.datetime.fromisoformat(extracted_at))
        shutil.copytree(copy, read_workspace(USERS).folder("raw", day).path)
        load(day)
    finish()
    assert dump_tables() == tables
    assert dump_files() == files
