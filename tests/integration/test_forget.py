"""Test `forget`: it erases a user from every file and table, for good, and changes nothing else."""

import contextlib
import datetime as dt
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.users import USERS
from tests.support import forgetting, orders
from tests.support.forgetting import DAYS, MARK, Records, check_markers, find_mark, load_days, serve_days
from tests.support.project import dump_tree, execute, query, remove_warehouse, run, run_here, run_stages
from tests.support.server import Answer, Server
from tests.support.terminal import run_on_terminal
from wholeday import clock
from wholeday.commands.forget import files, forget, lookup
from wholeday.errors import ConfigError, DatasetError, SourceError
from wholeday.schema.dataset import Dataset
from wholeday.schema.raw_fields import FieldReader
from wholeday.schema.record import Field
from wholeday.storage.manifest import CleanManifest, RawManifest, digest
from wholeday.storage.tombstones import Done, Finder, Tombstone, Tombstones
from wholeday.storage.workspace import Workspace
from wholeday.tasks import alerts, failures, stages
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One source for all tests, so that most of them copy its days."""
    with Server() as running:
        yield running


@pytest.fixture(params=["incremental", "snapshot"])
def loaded(request, server, configure, copy_or_make) -> Records:
    """Load five days of users."""
    return load_days(server, configure, request.param, copy_or_make)


@pytest.fixture
def incremental(server, configure, copy_or_make) -> Records:
    """Load five days of users in the one mode, for what does not depend on it."""
    return load_days(server, configure, "incremental", copy_or_make)


@pytest.mark.usefixtures("loaded")
def test_no_byte_of_an_erased_user_is_left():
    """The test searches raw and clean files after decompression, and free pages of the database file."""
    with contextlib.closing(sqlite3.connect("data/warehouse.db")) as db:
        db.execute("pragma secure_delete = off")  # the default of most builds of SQLite
        db.execute("create table copy as select * from _users_events union all select null, * from _users_changes")
        db.execute("drop table copy")
    assert len([path for path in find_mark() if "date=" in path]) == 10
    assert "data/warehouse.db" in find_mark()
    held = [
        query(f"select * from {table} where user_id = 42")
        for table in ("users", "_users_past", "_users_events", "_users_changes")
    ]
    held.append(query("select * from rejects where record like ?", f"%{MARK}%"))
    result = forget(read_workspace(USERS), ["42"])
    assert find_mark() == []
    assert (result.problems, result.unknown) == ([], [])
    assert result.days == {DAYS[0]: 1, DAYS[1]: 2, DAYS[2]: 1, DAYS[3]: 1}
    assert result.rows == sum(map(len, held)) > 0
    assert query("select * from users where user_id = 42") == query("select * from users_history where user_id = 42")


@pytest.mark.usefixtures("database")
def test_other_users_do_not_change(loaded):
    """Their lines keep bytes and order; their rows and history stay the same."""
    before = forgetting.dump_tables()
    forget(read_workspace(USERS), ["42"])
    for day in DAYS:
        others = [record for record in loaded[day] if str(record.get("id")) != "42"]
        assert forgetting.read_raw(USERS, day) == [json.dumps(record).encode() for record in others]
    after = forgetting.dump_tables()
    for table in ("users", "_users_events", "_users_changes", "users_history"):
        assert after[table] == [row for row in before[table] if 42 not in row]
    assert len(after["users_history"]) == len(before["users_history"]) - 2
    assert [row[4:] for row in after["rejects"]] == [row[4:] for row in before["rejects"] if MARK not in row[7]]


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_reprocessing_after_erasure_changes_nothing():
    """G2, G4: after the erasure, new clean files and a new warehouse are equal to the byte."""
    forget(read_workspace(USERS), ["42"])
    check_markers()
    tables, clean = forgetting.dump_tables(), {day: forgetting.read_clean(USERS, day) for day in DAYS}
    remove_warehouse()
    for day in DAYS:
        stages.load(read_workspace(USERS), day)
    assert forgetting.dump_tables() == tables
    for day in DAYS:
        stages.transform(read_workspace(USERS), day)
        assert forgetting.read_clean(USERS, day) == clean[day]


@pytest.mark.usefixtures("database_on_request")
def test_manifests_record_the_erasure(incremental):
    """They keep the number of erased lines, the old hash of the day, the replaced parts and the original counts."""
    before = {day: read_workspace(USERS).folder("raw", day).read_manifest(RawManifest) for day in DAYS}
    forget(read_workspace(USERS), ["42"])
    for day in DAYS:
        after = read_workspace(USERS).folder("raw", day).read_manifest(RawManifest)
        taken = sum(str(record.get("id")) == "42" for record in incremental[day])
        assert (after.records, after.keys) == (before[day].records, before[day].keys)
        assert after.forgotten == taken == after.records - sum(part.records for part in after.parts)
        if not taken:
            assert after == before[day]
            continue
        (erasure,) = after.erasures
        assert (erasure.lines, erasure.sha256) == (taken, digest(before[day].parts))
        assert {part.name for part in before[day].parts} - {part.name for part in after.parts} == {
            part.name for part in erasure.parts
        }
        assert all(part in before[day].parts for part in erasure.parts)
    second = read_workspace(USERS).folder("raw", DAYS[1]).read_manifest(RawManifest)
    assert [part.name for part in second.parts][:2] == ["part-00000-r1.jsonl.gz", "part-00001-r1.jsonl.gz"]


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_erased_user_does_not_come_back():
    """Reprocessing does not restore the user. If the source sends the user again, the load skips the record, and the
    next `forget` erases it from the files."""
    forget(read_workspace(USERS), ["42"])
    for day in DAYS:
        stages.transform(read_workspace(USERS), day)
        stages.load(read_workspace(USERS), day)
    assert find_mark() == []
    read_workspace(USERS).folder("raw", DAYS[0]).clear()
    run_stages(USERS, DAYS[0])
    assert not [path for path in find_mark() if "warehouse" in path]
    assert query("select forgotten from loads where date = ?", str(DAYS[0])) == [(1,)]
    check_markers()
    assert forget(read_workspace(USERS), []).days == {DAYS[0]: 1}
    assert find_mark() == []
    assert query("select forgotten from loads where date = ?", str(DAYS[0])) == [(1,)]
    check_markers()


@pytest.mark.usefixtures("database_on_request", "incremental")
def test_tombstones_in_files_apply_to_a_new_warehouse():
    """The first load into a new warehouse reads the tombstones from data_dir."""
    Tombstones("data", "users").add([Tombstone((42,), clock.utc_now())])
    remove_warehouse()
    for day in DAYS:
        stages.load(read_workspace(USERS), day)
    assert query("select count(*) from users where user_id = 42") == [(0,)]
    assert query("select user_id from _users_forgotten") == [(42,)]


@pytest.mark.usefixtures("database_on_request", "incremental")
def test_tombstones_in_the_warehouse_apply_to_new_files():
    """With a new data_dir, the next run writes the tombstones there."""
    forget(read_workspace(USERS), ["42"])
    Path("data/forgotten/users.jsonl").unlink()
    forget(read_workspace(USERS), ["4711"])
    assert Tombstones("data", "users").keys() == [(42,), (4711,)]


@pytest.mark.usefixtures("database_on_request")
def test_second_erasure_replaces_parts_again(incremental):
    """Parts get a new revision, and the markers follow."""
    forget(read_workspace(USERS), ["42"])
    result = forget(read_workspace(USERS), ["1", "9", "2"])
    assert result.days == {day: sum(r.get("id") in (1, 2, 9) for r in incremental[day]) for day in DAYS}
    check_markers()
    assert query("select distinct user_id from users_history order by 1") == [(n,) for n in range(3, 8)]
    names = [part.name for part in read_workspace(USERS).folder("raw", DAYS[1]).read_manifest(RawManifest).parts]
    assert names[0] == "part-00000-r2.jsonl.gz"


@pytest.mark.usefixtures("database_on_request", "incremental")
def test_unknown_user_gets_a_tombstone():
    """No file of a day changes. The tombstone keeps the user out of later loads."""
    before, folders = forgetting.dump_tables(), forgetting.dump_days()
    result = forget(read_workspace(USERS), ["4711"])
    assert (result.days, result.rows, result.unknown, result.problems) == ({}, 0, ["4711"], [])
    assert forgetting.dump_days() == folders
    assert forgetting.dump_tables() == before | {"_users_forgotten": [(4711,)]}


@pytest.mark.usefixtures("database_on_request", "incremental")
def test_every_completed_run_is_recorded_without_keys():
    """An entry has the time, the number of keys and the erased lines by day. Afterwards no key is pending."""
    for keys in (["42", "4711"], ["1"], []):
        forget(read_workspace(USERS), keys)
    tombstones = Tombstones("data", "users")
    first, second, third = (line for line in tombstones.read() if isinstance(line, Done))
    assert (first.tombstones, second.tombstones, tombstones.count_pending()) == (2, 3, 0)
    assert first.days == {DAYS[0]: 1, DAYS[1]: 2, DAYS[2]: 1, DAYS[3]: 1}
    assert second.days == {DAYS[0]: 2, DAYS[1]: 3, DAYS[2]: 2, DAYS[3]: 2, DAYS[4]: 1}
    assert (third.tombstones, third.days) == (second.tombstones, second.days)
    assert tombstones.keys() == [(42,), (4711,), (1,)]
    tombstones.add([Tombstone((7,), clock.utc_now())])
    assert tombstones.count_pending() == 1


@pytest.mark.usefixtures("database_on_request", "incremental")
def test_outdated_rows_of_other_users_stay(monkeypatch):
    """No day is transformed again: the version, other rows and other rejects match the warehouse."""
    tables = forgetting.dump_tables()
    before = {day: read_workspace(USERS).folder("clean", day).read_manifest(CleanManifest) for day in DAYS}
    monkeypatch.setattr(Workspace, "version", "of tomorrow")
    forget(read_workspace(USERS), ["42"])
    after = {day: read_workspace(USERS).folder("clean", day).read_manifest(CleanManifest) for day in DAYS}
    assert {made.transform_version for made in after.values()} == {before[DAYS[0]].transform_version}
    assert after[DAYS[4]] == before[DAYS[4]]
    assert after[DAYS[2]].reasons == {"email: does not match the pattern @": 1}
    assert forgetting.dump_tables()["users"] == [row for row in tables["users"] if 42 not in row]


@pytest.mark.usefixtures("database")
def test_key_of_two_columns_is_an_array(server, configure):
    """`forget` erases one line of an order with its rejects, and keeps the other line."""
    days: Records = {
        day: [
            {"number": "A-1", "line": 1, "amount": 1.5, "changed": f"{day}T08:00:00Z"},
            {"number": "A-1", "line": 2, "amount": 2.5, "changed": f"{day}T08:00:00Z"},
            {"number": "A-1", "line": 2, "amount": -1, "changed": f"{day}T09:00:00Z"},
        ]
        for day in DAYS[:2]
    }
    serve_days(server, configure, days, orders.ORDERS, mode="incremental")
    run_stages(orders.ORDERS, *DAYS[:2])
    result = forget(read_workspace(orders.ORDERS), ['["A-1", 2]'])
    assert result.days == {DAYS[0]: 2, DAYS[1]: 2}
    assert query("select number, line from orders") == [("A-1", 1)]
    assert query("select count(*) from rejects") == [(0,)]
    assert query("select distinct number, line from _orders_events") == [("A-1", 1)]
    assert [len(forgetting.read_raw(orders.ORDERS, day)) for day in DAYS[:2]] == [1, 1]
    check_markers(orders.ORDERS)


@pytest.mark.usefixtures("database_on_request")
def test_other_dataset_in_the_warehouse_does_not_change(server, configure):
    """The other dataset has rejects at the same positions and a field with the same name."""
    serve_days(server, configure, forgetting.make_records(), mode="incremental")
    run_stages(USERS, DAYS[3])
    days: Records = {DAYS[3]: [{"number": "A-1", "line": line, "amount": -1, "id": 42} for line in range(1, 6)]}
    serve_days(server, configure, days, orders.ORDERS, mode="incremental")
    run_stages(orders.ORDERS, DAYS[3])
    tables = [f"select * from {name} where dataset = 'orders' order by 1, 2, 3, 4" for name in ("loads", "rejects")]
    before = [query(sql) for sql in tables]
    assert [len(rows) for rows in before] == [1, 5]
    assert forget(read_workspace(USERS), ["42"]).rows == 1
    assert [query(sql) for sql in tables] == before
    check_markers()


class LoweredOrder(orders.Order):
    number: str = Field(primary_key=True, strip_whitespace=True, to_lower=True)


def make_lowered(server: Server, configure: Callable[..., None], clean: Callable[[Any], Any] | None = None) -> Dataset:
    """Load a day of orders whose numbers are stripped and made lower case. a-3 has a row and a reject."""
    dataset = Dataset("orders", LoweredOrder, clean)
    days: Records = {DAYS[0]: [{"number": f" A-{n}", "line": 1, "changed": "2026-11-01T08:00:00Z"} for n in range(5)]}
    days[DAYS[0]].insert(0, {"number": "A-3", "line": 1, "amount": -1})
    serve_days(server, configure, days, dataset, mode="incremental")
    run_stages(dataset, DAYS[0])
    return dataset


def read_numbers(dataset: Dataset) -> list[str]:
    return [json.loads(line)["number"] for line in forgetting.read_raw(dataset, DAYS[0])]


@pytest.mark.usefixtures("database_on_request")
def test_key_changed_by_transform_is_found_by_row(server, configure):
    """The table has a-3 where raw has ` A-3`. `forget` erases the line that became the row."""
    dataset = make_lowered(server, configure)
    assert forget(read_workspace(dataset), ['["a-3", 1]']).days == {DAYS[0]: 2}
    assert read_numbers(dataset) == [" A-0", " A-1", " A-2", " A-4"]
    check_markers(dataset)


@pytest.mark.usefixtures("database_on_request")
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")], ids=["lost", "damaged"])
def test_key_changed_by_transform_without_clean_files(server, configure, damage):
    """`forget` transforms the lines to find their keys. Reprocessing the day does not restore the user."""
    dataset = make_lowered(server, configure)
    damage(read_workspace(dataset).folder("clean", DAYS[0]).path / "manifest.json")
    result = forget(read_workspace(dataset), ['["a-3", 1]'])
    assert (result.days, result.problems) == ({DAYS[0]: 2}, [])
    assert read_numbers(dataset) == [" A-0", " A-1", " A-2", " A-4"]
    stages.transform(read_workspace(dataset), DAYS[0])
    stages.load(read_workspace(dataset), DAYS[0])
    check_markers(dataset)


@pytest.mark.usefixtures("database_on_request")
@pytest.mark.parametrize("error", [DatasetError("clean: no email"), ValueError(MARK)], ids=["a record class", "a bug"])
def test_failing_transform_leaves_the_erasure_pending(server, configure, error):
    """The day may hold the user, so the erasure stays pending until `clean` is fixed."""
    broken: list[Exception] = []

    def clean(rows: Any) -> Any:
        for each in broken:
            raise each
        return rows

    dataset = make_lowered(server, configure, clean)
    read_workspace(dataset).folder("clean", DAYS[0]).clear()
    broken.append(error)
    (problem,) = forget(read_workspace(dataset), ['["a-3", 1]']).problems
    raw = read_workspace(dataset).folder("raw", DAYS[0])
    assert f"orders {DAYS[0]}: {raw} has no clean files, and its lines cannot be" in problem
    assert MARK not in problem
    assert Tombstones("data", "orders").count_pending() == 1
    assert len(read_numbers(dataset)) == 6
    broken.clear()
    assert forget(read_workspace(dataset), []).days == {DAYS[0]: 2}
    assert Tombstones("data", "orders").count_pending() == 0


def test_key_is_found_in_every_notation():
    """A key may be an integer, a float or text. A number too long for Python matches no key."""
    finder = Finder([FieldReader("id")], [(42,)])
    assert finder.find_lines([b'{"id": 42}', b'{"id": 42.0}', b'{"id": "42"}', b'{"id": 420}', b"{}"]) == {1, 2, 3}
    assert finder.find_rejects(["[42]", None, f"[{'9' * 5000}]"]) == {0}


@pytest.mark.parametrize("text", ["", "x", "4.5", "[42, 1]", '"42"', "042", str(2**63), "true", "null"])
def test_invalid_key_is_refused(text):
    """The error describes a valid key, and nothing is written."""
    with pytest.raises(ConfigError, match=r"is not a key of users: give user_id \(integer\) as the table shows it"):
        forget(read_workspace(USERS), ["42", text])
    assert not Path("data").exists()


@pytest.mark.parametrize("text", ["A-1", '["A-1"]', '["A-1", "2"]', '[1, "A-1"]', r'["\ud800", 1]', r'["\u0000", 1]'])
def test_invalid_array_as_key_is_refused(configure, text):
    """The values must have the types of the key columns, in the same order."""
    configure("orders", url="http://127.0.0.1:1/orders")
    with pytest.raises(ConfigError, match=r"give number \(text\), line \(integer\) as a JSON array"):
        forget(read_workspace(orders.ORDERS), [text])


@pytest.mark.usefixtures("incremental")
def test_quotes_in_failures_are_erased(server, configure, monkeypatch, capsys):
    """A failure keeps its time, day and stage. Its text, the saved alerts and the report are deleted."""
    at, day = clock.utc_now(), DAYS[4] + dt.timedelta(days=1)
    quoted = json.dumps({"error": MARK})
    monkeypatch.setenv("HOOK", server.on("/hook", lambda _: Answer(b"ok")))
    configure("pipeline", webhook="HOOK")
    configure("users", url=server.on("/days", lambda _: Answer(quoted.encode(), status=400)))
    with pytest.raises(SourceError) as caught:
        stages.extract(read_workspace(USERS), day)
    alerts.send_alert(USERS, failures.record_failure(USERS, day, "extract", str(caught.value)))
    run_here(capsys, "report")
    path = Path("data/failures/users.jsonl")
    with path.open("a") as file:
        file.write(f"cut, with {MARK}")
    quoting = {"data/report.html", str(path), "data/failures/users.alerts.jsonl"}
    assert quoting <= set(find_mark())
    assert forget(read_workspace(USERS), ["42"]).problems == []
    assert find_mark() == []
    (failure,) = failures.read_failures("data", "users")
    assert (failure.date, failure.stage, failure.line) == (day, "extract", failures.ERASED)
    assert failure.at >= at
    path.write_text(f"damaged, with {MARK}\n")
    assert forget(read_workspace(USERS), []).problems == []
    assert not path.exists()


@pytest.mark.usefixtures("incremental")
def test_erasure_waits_for_failures_to_be_erased():
    """The erasure stays pending until the failures are erased."""
    failures.record_failure(USERS, DAYS[4], "load", MARK)
    Path("data/failures/users.jsonl.new").mkdir()
    (problem,) = forget(read_workspace(USERS), ["42"]).problems
    assert problem.startswith("users: data/failures/users.jsonl.new: Is a directory")
    assert Tombstones("data", "users").count_pending() == 1


@pytest.mark.usefixtures("database_on_request")
def test_missing_key_without_earlier_erasure_is_an_error():
    """`forget` without a key repeats earlier erasures, so there must be one."""
    with pytest.raises(ConfigError, match="no key was erased before"):
        forget(read_workspace(USERS), [])


@pytest.mark.usefixtures("database_on_request")
def test_record_without_key_belongs_to_no_user(server, configure):
    """Erasing the key "null" does not erase records whose key is null or missing."""
    days: Records = {DAYS[0]: [{"number": None, "line": 1}, {"line": 1}, {"number": "null", "line": 1}]}
    serve_days(server, configure, days, orders.ORDERS, mode="incremental")
    run_stages(orders.ORDERS, DAYS[0])
    assert forget(read_workspace(orders.ORDERS), ['["null", 1]']).days == {DAYS[0]: 1}
    assert query("select count(*) from rejects") == [(2,)]


@pytest.mark.usefixtures("database_on_request", "incremental")
def test_command_reports_progress_without_personal_data():
    """It prints lines by day and unknown keys, and exits with 1 after a problem. `status` counts pending erasures."""
    command = ("python", "-m", "wholeday", "forget", "users")
    raw = read_workspace(USERS).folder("raw", DAYS[2])
    path = raw.path / raw.read_manifest(RawManifest).parts[0].name
    content = path.read_bytes()
    path.write_bytes(b"")
    result = run(*command, "42", "4711", "--pipeline-data-dir", "data", "--yes", "--unknown")
    assert result.returncode == 1
    assert "users: erased 4 lines of the files and " in result.stdout
    assert f"\n  {DAYS[1]}: 2 lines\n" in result.stdout
    assert re.search(r"^42: \d rows of the warehouse, \d days?$", result.stdout, re.MULTILINE)
    assert "4711: not found on any day" in result.stdout
    assert result.stderr.startswith(f"ERROR: users {DAYS[2]}: {path}: the file does not match")
    assert "2 keys not fully erased" in run("python", "-m", "wholeday", "status").stdout
    path.write_bytes(content)
    again = run(*command)
    assert (again.returncode, again.stderr) == (0, "")
    assert "users: erased 1 line of the files and 0 rows of the warehouse" in again.stdout
    assert "not fully" not in run("python", "-m", "wholeday", "status").stdout
    assert MARK not in result.stdout + result.stderr + again.stdout


@pytest.mark.usefixtures("database", "incremental")
def test_key_is_known_from_any_place():
    """The key may be in a table, in a reject, or in the files of a day that is not loaded."""
    for keys in (["42", "9"], ["42"]):
        found = lookup.look_up(read_workspace(USERS), [*keys, "4711"])
        assert [each.is_known for each in found] == [True] * len(keys) + [False]
        execute(
            *(
                f"delete from {table}"
                for table in ("users", "_users_past", "_users_events", "_users_changes", "rejects")
            )
        )


def dump_kept() -> dict[str, bytes]:
    """Read the files below `data`, without the files that SQLite creates for readers."""
    return {path: data for path, data in dump_tree("data").items() if not path.endswith(("-shm", "-wal"))}


@pytest.mark.usefixtures("incremental")
def test_unknown_key_is_refused():
    """A mistyped key would be blocked for good, so the command erases none of the keys."""
    before = dump_kept()
    result = run("python", "-m", "wholeday", "forget", "users", "42", "4711", "--yes")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "ERROR: users: no file and no table has the key 4711: check the spelling, or keep it out for good with "
        "--unknown. Nothing is erased\n"
    )
    assert dump_kept() == before


@pytest.mark.usefixtures("incremental")
def test_forget_without_terminal_needs_yes():
    before = dump_kept()
    result = run("python", "-m", "wholeday", "forget", "users", "42")
    assert result.returncode == 1
    assert (
        result.stderr == "ERROR: forget cannot be undone. To confirm it without a terminal, run it again with --yes\n"
    )
    assert dump_kept() == before


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, False), ("", 1, True)])
@pytest.mark.usefixtures("incremental")
def test_forget_asks_for_confirmation_on_a_terminal(answer, code, left):
    """It shows the key with its rows and days. Any answer but yes changes nothing."""
    exit_code, written = run_on_terminal("python", "-m", "wholeday", "forget", "users", "42", says=f"{answer}\n")
    assert exit_code == code
    assert re.search(r"^42: \d rows of the warehouse, \d days?\r$", written, re.MULTILINE)
    assert "Erase 1 key from every file and table of users, for good? [y/N]" in written
    assert bool(find_mark()) is left


@pytest.mark.usefixtures("incremental")
def test_interrupted_forget_resumes_without_confirmation(monkeypatch):
    """The key is already confirmed, so `forget` asks neither with the key nor without one."""
    monkeypatch.setattr(files, "erase_day", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        forget(read_workspace(USERS), ["42"])
    for keys in (["42"], []):
        result = run("python", "-m", "wholeday", "forget", "users", *keys)
        assert (result.returncode, result.stderr) == (0, "")
    assert find_mark() == []
