"""Verify reports each difference between files and tables, reports nothing else, and changes nothing."""

import contextlib
import datetime as dt
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.users import USERS, User
from tests.support import orders
from tests.support.project import dump_tree, execute, has_table, query, run_here
from tests.support.verified import (
    DAYS,
    EVENT,
    RECORDS,
    SNAPSHOT,
    USER,
    adopt,
    check,
    flip_byte,
    path,
    tell,
)
from wholeday.commands import verify as verify_module
from wholeday.commands.forget import forget, tables
from wholeday.commands.verify import verify
from wholeday.config.pipeline import Pipeline
from wholeday.errors import WarehouseError
from wholeday.load import day as load_stage
from wholeday.load.audit import EXAMPLES, Audit, Finding
from wholeday.schema.dataset import Dataset
from wholeday.storage.workspace import Workspace
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow


WITH_ROWS = ("users", "_users_past", "_users_events", "_users_changes")  # tables with the columns of a user


@pytest.mark.usefixtures("database", "verified")
def test_loaded_days_have_no_differences():
    """Verify changes no file. SQLite may leave its own log files while it reads."""
    before = dump_tree("data")
    assert list(verify(read_workspace(USERS))) == []
    after = dump_tree("data")
    assert {name: data for name, data in after.items() if name in before} == before
    assert after.keys() - before.keys() <= {"data/warehouse.db-shm", "data/warehouse.db-wal"}


@pytest.mark.usefixtures("database", "verified")
def test_verify_never_commits(monkeypatch):
    """SQLite is opened read-only. PostgreSQL needs temporary tables, but its transaction is never committed."""

    def change(audit: Audit) -> Iterator[Finding]:
        audit.db.run("delete from loads")
        return iter(())

    monkeypatch.setattr(Audit, "check_days", change)
    with contextlib.suppress(WarehouseError):
        list(verify(read_workspace(USERS)))
    assert query("select count(*) from loads") == [(len(DAYS),)]


WRONG = "rejected = rejected + 1, forgotten = forgotten + 1, duplicate = duplicate + 1, inserted = inserted - 3"


@pytest.mark.usefixtures("verified")
def test_counts_are_compared_after_an_erasure():
    """An erasure may remove the newest record of a day. The watermark may then be later than the remaining records."""
    ((other,),) = query(
        f"select max(user_id) from _users_events where load_date = '{DAYS[1]}' and user_id not in "
        f"(select user_id from _users_events where load_date = '{RECORDS}')"
    )
    erased = forget(read_workspace(USERS), [str(other)]).days
    assert set() < erased.keys() < {*DAYS}
    assert tell(verify(read_workspace(USERS))) == []
    execute(f"update loads set {WRONG}, watermark = '2099-01-01T00:00:00.000000Z'")
    counts = [rf"loads: {name} is \d+, should be \d+" for name in ("rejected", "forgotten", "duplicate")]
    late, early = ([*counts, f"loads: watermark is {year}-.*, should be 2017-10-0.*"] for year in (2099, 1999))
    check(
        tell(verify(read_workspace(USERS))),
        [f"{day} {what}" for day in DAYS for what in (counts if day in erased else late)],
    )
    execute("update loads set watermark = '1999-01-01T00:00:00.000000Z'")
    check(tell(verify(read_workspace(USERS))), [f"{day} {what}" for day in DAYS for what in early])


@pytest.mark.usefixtures("database_on_request", "verified")
def test_many_differences_are_counted_after_examples():
    """A table with many differences does not fill the screen."""
    (number,) = execute("update users set name = 'x'")
    found = tell(verify(read_workspace(USERS)))
    assert len(found) == EXAMPLES + 1
    assert found[-1] == f"None users: and {number - EXAMPLES:,} more rows"


@pytest.mark.usefixtures("verified")
def test_only_requested_days_are_compared():
    """The range excludes its stop. The users table belongs to no day, so it is always compared."""
    for day in DAYS:
        flip_byte(path("raw", str(day)))
    execute(f"delete from users {USER}")
    assert [(date, thing) for date, thing, *_ in verify(read_workspace(USERS), DAYS[1], DAYS[2])] == [
        (DAYS[1], "raw"),
        (None, "users"),
    ]


@pytest.mark.usefixtures("verified")
def test_unloaded_pruned_and_outdated_days_are_remarks(monkeypatch):
    execute(f"update loads set transform_version = 'older', pruned_at = loaded_at where date = '{DAYS[0]}'")
    other_code = "loads: the day was transformed by another version: reprocess it"
    found = list(verify(read_workspace(USERS)))
    assert (tell(found), tell(found, remark=True)) == ([], [f"{DAYS[0]} {other_code}"])
    shutil.rmtree(path("raw", RECORDS).parent)
    execute(f"update loads set pruned_at = loaded_at where date = '{RECORDS}'")
    execute(f"delete from loads where date = '{SNAPSHOT}'")
    path("clean", SNAPSHOT, "manifest.json").unlink()
    monkeypatch.setattr(Workspace, "version", "another")
    found = list(verify(read_workspace(USERS)))
    assert tell(found) == []
    assert tell(found, remark=True) == [
        f"2017-10-01 {other_code}",
        f"2017-10-02 {other_code}",
        "2017-10-03 clean: data/clean/users/date=2017-10-03 has files, but no manifest.json: the day is incomplete",
        "2017-10-03 loads: the day is not loaded",
        "2017-10-04 loads: the day was transformed by another version: its raw files are pruned",
    ]
    execute(f"update _users_events set city = null {EVENT}")
    assert (
        len(tell(verify(read_workspace(USERS)))) == 2
    )  # without raw files the tables are still compared with the clean files
    shutil.rmtree(path("raw", str(DAYS[1])).parent)  # lost, not pruned
    assert tell(verify(read_workspace(USERS), DAYS[1], DAYS[2]), remark=True) == [f"2017-10-02 {other_code}"]


@pytest.mark.usefixtures("verified")
def test_same_rows_in_other_bytes_are_a_remark():
    """A new version of a library may encode the same rows differently."""
    pq.write_table(pq.read_table(path("clean", RECORDS)), path("clean", RECORDS), compression="gzip")
    adopt(RECORDS)
    stages.load(read_workspace(USERS), dt.date.fromisoformat(RECORDS))
    found = list(verify(read_workspace(USERS)))
    assert tell(found) == []
    assert tell(found, remark=True) == [
        f"{RECORDS} clean: part-00000.parquet has other bytes, but the same rows as a new transform of the raw files"
    ]


STORED = [table.name for table in USERS.declared.stored]
SHAPES = {
    "a column too many": (
        ["alter table users add column age integer"],
        "the table users has a column age too many: .*",
    ),
    "a table that is gone": (
        ["drop view users_history", "drop table users"],
        "the table users is missing: rebuild creates it",
    ),
    "all that are gone": (
        ["drop view users_history", *(f"drop table {name}" for name in STORED)],
        f"the table {', '.join(STORED)} is missing: rebuild creates it",
    ),
}


@pytest.mark.usefixtures("database", "verified")
@pytest.mark.parametrize("shape", SHAPES)
def test_files_are_compared_despite_wrong_table_columns(shape):
    """Verify cannot read the rows of such tables, and does not change them."""
    statements, what = SHAPES[shape]
    execute(*statements)
    flip_byte(path("raw", RECORDS))
    found = list(verify(read_workspace(USERS)))
    check(tell(found), [f"None users: .*: {what}", f"{RECORDS} raw: .*"])
    assert tell(found, remark=True) == []


NAMES = "None users: user_id .*: name is 'x', should be .*"
GONE = "None users: user_id .*: the row is missing"
OTHER = "where user_id = (select min(user_id) from users)"
LOST = {
    "all markers": (["delete from loads"], []),
    "the table of markers": (["drop table loads"], ["None users: .*: the table loads is missing: rebuild creates it"]),
    "the rejects": (["drop table rejects"], ["None users: .*: the table rejects is missing: rebuild creates it"]),
}


@pytest.mark.usefixtures("database_on_request", "verified")
@pytest.mark.parametrize("lost", LOST)
def test_tables_and_files_are_compared_without_markers(lost):
    """The users table is compared with the facts, and the facts of each day with its files, in both directions."""
    statements, lines = LOST[lost]
    execute(*statements)
    check(tell(verify(read_workspace(USERS))), lines)
    execute(
        f"update _users_events set name = 'x' {EVENT}",
        f"delete from users {USER}",
        f"update users set name = 'x' {OTHER}",
    )
    found = tell(verify(read_workspace(USERS)))
    event = rf"{RECORDS} _users_events: .*: name is 'x', should be .*"
    for pattern in (*lines, event, NAMES, GONE):
        assert any(re.fullmatch(pattern, line) for line in found), (pattern, found)


@pytest.mark.usefixtures("database_on_request", "verified")
def test_day_loaded_during_verify_is_a_remark(monkeypatch):
    """Its files are newer than the marker that verify has read."""
    day, real = dt.date.fromisoformat(RECORDS), verify_module.verify_files

    def look(workspace, date, marker):
        if date == day:
            execute(f"update loads set raw_sha256 = 'x', clean_sha256 = 'x' where date = '{date}'")
            marker = marker.replace(raw_sha256="older")
        return (yield from real(workspace, date, marker))

    monkeypatch.setattr(verify_module, "verify_files", look)
    assert [finding for finding in verify(read_workspace(USERS)) if finding.date == day] == [
        Finding(day, "loads", "the day was loaded meanwhile: run verify again", remark=True)
    ]


@pytest.mark.usefixtures("verified")
@pytest.mark.parametrize("stage", ["raw", "clean"])
def test_day_in_another_process_is_a_remark(stage):
    """The part that a running process writes is no difference. Once the process is dead, its part is reported."""
    day = dt.date.fromisoformat(RECORDS)
    folder = read_workspace(USERS).folder(stage, day)
    (folder.path / "part-00007.new.gz").write_bytes(b"")
    code = "import fcntl, sys; file = open(sys.argv[1], 'ab'); "
    code += "fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2])); print('held', flush=True); sys.stdin.read()"
    where = [str(folder.path.parent / ".lock"), str(day.toordinal())]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, *where], text=True, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        busy = "another process is working on the day: run verify again"
        assert list(verify(read_workspace(USERS))) == [Finding(day, stage, busy, remark=True)]
        other.stdin.close()
    assert list(verify(read_workspace(USERS))) == [Finding(day, stage, "part-00007.new.gz: not in the manifest")]


@pytest.mark.usefixtures("verified")
def test_days_pruned_during_verify_are_a_remark(monkeypatch):
    """Prune may remove the files after verify has read the manifest. Verify continues with the other days."""
    day, read_clean = dt.date.fromisoformat(RECORDS), load_stage.read_clean

    def vanish(workspace, date):
        if date == day:
            for stage in ("clean", "raw"):
                workspace.folder(stage, date).remove()
            execute(f"update loads set pruned_at = loaded_at where date = '{date}'")
        return read_clean(workspace, date)

    monkeypatch.setattr(load_stage, "read_clean", vanish)
    assert list(verify(read_workspace(USERS))) == [
        Finding(day, "loads", "the day was loaded meanwhile: run verify again", remark=True)
    ]


@pytest.mark.usefixtures("verified")
def test_interrupted_forget_is_reported_with_its_command(monkeypatch):
    """The tables still have rows whose lines are erased from the files. The next forget completes the erasure."""
    ((key,),) = query("select min(user_id) from _users_events where load_date = ?", RECORDS)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "erase_rows", interrupt)
        with pytest.raises(KeyboardInterrupt):
            forget(read_workspace(USERS), [str(key)])
    what = "forget erased lines of the files, but not of the tables yet: run wholeday forget users"
    assert Finding(dt.date.fromisoformat(RECORDS), "loads", what) in list(verify(read_workspace(USERS)))
    assert {finding.what for finding in verify(read_workspace(USERS))} == {what}
    forget(read_workspace(USERS), [])
    assert list(verify(read_workspace(USERS))) == []


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class UserWithAge(User):
    age: int | None


WITH_AGE = Dataset("users", UserWithAge)


@pytest.fixture
def same_version(verified, monkeypatch) -> None:  # noqa: ARG001 - the days are loaded first
    """Let other code have the version of the loaded days, as after a library changed."""
    monkeypatch.setattr(Workspace, "version", read_workspace(USERS).version)


@pytest.mark.usefixtures("database", "same_version")
def test_verify_continues_after_rows_that_do_not_fit():
    """On PostgreSQL an error in COPY used to abort the transaction. Later days and the users table are compared."""
    kind = "integer" if Pipeline().database.startswith("sqlite") else "bigint"
    execute(*(f"alter table {table} add column age {kind}" for table in WITH_ROWS))

    execute(f"delete from users {USER}")
    found = tell(verify(read_workspace(WITH_AGE)))
    for day in DAYS:
        assert any(re.match(rf"{day} users: .*: the rows have the columns ", line) for line in found)
    assert any(re.fullmatch(GONE, line) for line in found)


@pytest.mark.usefixtures("verified")
def test_day_of_another_record_class_is_a_remark():
    """Its files are not transformed again. The tables of the class have another column, so rows are not compared."""
    remarks = [f"{day} loads: the day was transformed by another version: reprocess it" for day in DAYS]
    found = list(verify(read_workspace(WITH_AGE)))
    assert (tell(found), tell(found, remark=True)) == ([], remarks)


@pytest.mark.usefixtures("same_version")
def test_failing_transform_is_reported():
    """A new version of a library may break a transform. Each day is still compared with the tables."""
    broken = Dataset("users", User, lambda users: users.head(1))
    execute(f"update loads set watermark = null where date = '{RECORDS}'")
    lines = [f"{day} clean: cannot transform the raw files again: .*" for day in DAYS]
    check(tell(verify(read_workspace(broken))), [*lines, f"{RECORDS} loads: watermark is null, should be .*"])


@pytest.mark.usefixtures("verified")
def test_dataset_without_loads_has_no_differences(configure):
    """Another dataset in the same warehouse is loaded."""
    configure("orders", url="demo://users")
    assert list(verify(read_workspace(orders.ORDERS))) == []


@pytest.mark.usefixtures("database")
def test_missing_warehouse_is_not_created():
    """Days that have files are reported as remarks."""
    assert list(verify(read_workspace(USERS))) == []
    stages.extract(read_workspace(USERS), DAYS[0])
    read_workspace(USERS).folder("clean", DAYS[1]).clear()
    remarks = [Finding(day, "loads", "the day is not loaded", remark=True) for day in DAYS[:2]]
    assert list(verify(read_workspace(USERS))) == remarks
    assert not has_table("loads")
    assert not Path("data/warehouse.db").exists()


@pytest.mark.usefixtures("verified")
def test_command_exits_with_1_on_differences(capsys):
    """The command prints the dataset, the day and the place of each difference. It does not count remarks."""
    execute(f"delete from loads where date = '{SNAPSHOT}'")
    remark = f"users {SNAPSHOT} loads: the day is not loaded\n"
    assert run_here(capsys, "verify") == (f"{remark}users: nothing differs\n", "", 0)
    execute(f"update loads set pages = 7 where date = '{RECORDS}'")
    differs = f"users {RECORDS} loads: pages is 7, should be 1\n"
    assert run_here(capsys, "verify") == (f"{remark}{differs}users: 1 difference\n", "", 1)
    assert run_here(capsys, "verify", SNAPSHOT, RECORDS) == (f"{remark}users: nothing differs\n", "", 0)
    wrong = f"ERROR: STOP {SNAPSHOT} is not after START {RECORDS}: STOP is the day after the last one"
    assert run_here(capsys, "verify", RECORDS, SNAPSHOT) == ("", wrong, 1)


@pytest.mark.usefixtures("verified")
def test_value_of_a_flag_is_not_a_day(capsys):
    """A key of luigi.cfg is a flag in any position, with or without an equals sign."""
    execute(f"update loads set pages = 7 where date = '{RECORDS}'")
    for other in (["--pipeline-database=sqlite:///other.db"], ["--pipeline-database", "sqlite:///other.db"]):
        assert run_here(capsys, "verify", *other)[1:] == ("", 0)
        assert run_here(capsys, "verify", SNAPSHOT, *other)[1:] == ("", 0)
    assert run_here(capsys, "verify", "--pipeline-database", "sqlite:///data/warehouse.db")[2] == 1
