"""Verify reports each difference between files and tables, reports nothing else, and changes nothing."""

import contextlib
import datetime as dt
import gzip
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from pipeline.users import USERS, User
from tests.support import orders
from tests.support.project import dump_tree, execute, has_table, query, run_here, run_stages
from wholeday import clock
from wholeday.commands import verify as verify_module
from wholeday.commands.forget import forget, tables
from wholeday.commands.verify import verify
from wholeday.config.pipeline import Pipeline
from wholeday.errors import WarehouseError
from wholeday.load import day as load_stage
from wholeday.load.audit import EXAMPLES, Audit, Finding
from wholeday.load.warehouse import open_warehouse
from wholeday.schema.dataset import Dataset
from wholeday.storage.manifest import CleanManifest
from wholeday.storage.workspace import Workspace
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.targets import LoadMarker

pytestmark = pytest.mark.slow

DAYS = [dt.date(2026, 10, 1) + dt.timedelta(days=n) for n in range(4)]
SNAPSHOT, RECORDS = map(str, DAYS[2:])  # the last of each mode
MODES = {"snapshot": "", "incremental": "&updated_since={day_start}&updated_before={day_stop}"}


@pytest.fixture
def loaded(configure, monkeypatch, tmp_path_factory) -> None:
    """Load four days, each extracted an hour after its end. Snapshot and incremental days alternate."""
    configure("pipeline", part_records=3000)
    kept = tmp_path_factory.getbasetemp() / "verify" if Pipeline().database.startswith("sqlite") else None
    if kept and kept.exists():
        shutil.copytree(kept, "data")
    for n, day in enumerate(DAYS):
        now = dt.datetime.combine(day, dt.time(1), dt.UTC) + dt.timedelta(days=1)
        monkeypatch.setattr(clock, "utc_now", lambda now=now: now)
        mode, window = list(MODES.items())[n % 2]
        configure("users", mode=mode, url=f"demo://users?per_day=10{window}")
        if not LoadMarker(Pipeline().database, USERS.name, day).exists():
            run_stages(USERS, day)
    if kept and not kept.exists():
        shutil.copytree("data", kept)


def tell(findings: Iterator[Finding], remark: bool = False) -> list[str]:
    return [f"{date} {thing}: {what}" for date, thing, what, remarked in findings if remarked == remark]


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


def path(stage: str, day: str, name: str = "part-00000.*") -> Path:
    (found,) = Path(f"data/{stage}/users/date={day}").glob(name)
    return found


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert re.search(old, text)
    file.write_text(re.sub(old, new, text, count=1))


def flip_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def edit_rows(day: str) -> None:
    """Overwrite the city of every row in a clean part, as a manual edit would."""
    table = pq.read_table(path("clean", day))
    column = table.schema.get_field_index("city")
    pq.write_table(table.set_column(column, "city", table["name"]), path("clean", day))


def edit_rejects(day: str) -> None:
    """Change the reasons of a day's rejects, as a manual edit would."""
    file = path("clean", day, "rejects-00000.*")
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(b'"reason":"', b'"reason":"not ')))


def leave_out_rejects(day: str) -> None:
    """Remove a day's rejects, and their entries in the manifest."""
    folder = read_workspace(USERS).folder("clean", dt.date.fromisoformat(day))
    manifest = folder.read_manifest(CleanManifest)
    folder.replace_manifest(msgspec.structs.replace(manifest, rejected=0, rejects=[]))
    folder.remove_unnamed([part.name for part in manifest.parts])


def replace_view(kind: str) -> None:
    execute("drop view users_history", f"create {kind} users_history as select * from users")


def adopt(day: str, name: str = "part-00000.*") -> None:
    """Write the current size and hash of a clean part into its manifest."""
    folder, file = read_workspace(USERS).folder("clean", dt.date.fromisoformat(day)), path("clean", day, name)
    manifest = folder.read_manifest(CleanManifest)
    (part,) = (part for part in (*manifest.parts, *manifest.rejects) if part.name == file.name)
    new = folder.write(part.name, [(part.records, file.read_bytes())])
    edit(path("clean", day, "manifest.json"), part.sha256, new.sha256)
    edit(path("clean", day, "manifest.json"), f'"bytes": {part.bytes}', f'"bytes": {new.bytes}')


SHA = "'[0-9a-f]{64}'"
USER = "where user_id = (select max(user_id) from users)"
WITH_ROWS = ("users", "_users_events", "_users_changes")  # tables with the columns of a user
EVENT = f"where load_date = '{RECORDS}' and user_id = (select max(user_id) from _users_events)"
REJECT = f"where load_date = '{SNAPSHOT}' and record = (select min(record) from rejects where load_date = '{SNAPSHOT}')"
FILES = {
    "a byte of a raw part": (
        lambda: flip_byte(path("raw", SNAPSHOT)),
        [f"{SNAPSHOT} raw: data/raw/.*/part-00000.jsonl.gz: the file does not match its manifest .*"],
    ),
    "a raw part that is gone": (
        lambda: path("raw", SNAPSHOT, "part-00001.*").unlink(),
        [f"{SNAPSHOT} raw: .*/part-00001.jsonl.gz: the file is missing. Restore it from a copy, or .*"],
    ),
    "a raw part too many": (
        lambda: shutil.copy(path("raw", RECORDS), path("raw", RECORDS).with_name("part-00009.jsonl.gz")),
        [f"{RECORDS} raw: part-00009.jsonl.gz: not in the manifest"],
    ),
    "a raw manifest that is gone": (
        lambda: path("raw", RECORDS, "manifest.json").unlink(),
        [f"{RECORDS} raw: data/raw/.* has files, but no manifest.json: the day is incomplete"],
    ),
    "a raw manifest that is cut": (
        lambda: path("raw", RECORDS, "manifest.json").write_text("{"),
        [f"{RECORDS} raw: .*manifest.json is not a manifest .*"],
    ),
    "the count of a raw part": (
        lambda: edit(
            path("raw", RECORDS, "manifest.json"), r'("name": "part-00000.jsonl.gz",\s+"records": )10', r"\g<1>9"
        ),
        [
            f"{RECORDS} raw: part-00000.jsonl.gz: 10 records, the manifest says 9",
            f"{RECORDS} raw: records is 10, the parts have 9",
        ],
    ),
    "the time of a reading": (
        lambda: edit(
            path("raw", SNAPSHOT, "manifest.json"), '"as_of": "2026-10-04T00:45', '"as_of": "2026-10-04T00:44'
        ),
        [f"{SNAPSHOT} loads: as_of is 2026-10-04 00:45:00.*, should be 2026-10-04 00:44:00.*"],
    ),
    "a raw day read anew": (
        lambda: edit(path("raw", RECORDS, "manifest.json"), '"sha256": "....', '"sha256": "0000'),
        [
            f"{RECORDS} raw: .*the file does not match its manifest .*",
            f"{RECORDS} clean: does not belong to the raw files: reprocess the day",
            f"{RECORDS} loads: raw_sha256 is {SHA}, should be {SHA}",
        ],
    ),
    "a clean part edited by hand": (
        lambda: edit_rows(SNAPSHOT),
        [f"{SNAPSHOT} clean: data/clean/.*/part-00000.parquet: the file does not match its manifest .*"],
    ),
    "a clean part and its manifest edited by hand": (
        lambda: [edit_rows(RECORDS), adopt(RECORDS)],
        [
            f"{RECORDS} clean: part-00000.parquet has other rows than a new transform of the raw files",
            f"{RECORDS} loads: clean_sha256 is {SHA}, should be {SHA}",
        ],
    ),
    "a byte of the rejects": (
        lambda: flip_byte(path("clean", SNAPSHOT, "rejects-00000.*")),
        [f"{SNAPSHOT} clean: .*/rejects-00000.jsonl.gz: the file does not match its manifest .*"],
    ),
    "the rejects and their manifest edited by hand": (
        lambda: [edit_rejects(SNAPSHOT), adopt(SNAPSHOT, "rejects-00000.*")],
        [
            f"{SNAPSHOT} clean: rejects-00000.jsonl.gz has other rows than a new transform of the raw files",
            f"{SNAPSHOT} loads: clean_sha256 is {SHA}, should be {SHA}",
        ],
    ),
    "rejects that are gone, and left out of the manifest": (
        lambda: leave_out_rejects(SNAPSHOT),
        [
            f"{SNAPSHOT} clean: records is \\d+, should be \\d+",
            *(f"{SNAPSHOT} clean: rejects-0000{n}.jsonl.gz is missing from the manifest: .*" for n in range(3)),
            f"{SNAPSHOT} loads: clean_sha256 is {SHA}, should be {SHA}",
        ],
    ),
    "the count of a clean day": (
        lambda: edit(path("clean", RECORDS, "manifest.json"), '"rows": 10', '"rows": 9'),
        [f"{RECORDS} clean: rows is 9, the parts have 10", f"{RECORDS} clean: records is 9, should be 10"],
    ),
    "the date of a raw manifest": (
        lambda: edit(path("raw", RECORDS, "manifest.json"), f'"date": "{RECORDS}"', f'"date": "{SNAPSHOT}"'),
        [f"{RECORDS} raw: date is {SNAPSHOT}, should be {RECORDS}"],
    ),
    "the date of a clean manifest": (
        lambda: edit(path("clean", RECORDS, "manifest.json"), f'"date": "{RECORDS}"', f'"date": "{SNAPSHOT}"'),
        [f"{RECORDS} clean: date is {SNAPSHOT}, should be {RECORDS}"],
    ),
    "clean files that are gone": (
        lambda: shutil.rmtree(path("clean", RECORDS).parent),
        [f"{RECORDS} clean: the files are missing: reprocess the day"],
    ),
    "all files of a day": (
        lambda: [shutil.rmtree(path(stage, RECORDS).parent) for stage in ("raw", "clean")],
        [f"{RECORDS} raw: the files are missing: restore them from a copy"],
    ),
    "a file in the place of a day": (
        lambda: replace_by_file(path("raw", RECORDS).parent),
        [f"{RECORDS} raw: the files are missing: restore them from a copy"],
    ),
    "raw files that are gone, while the clean ones are edited by hand": (
        lambda: [shutil.rmtree(path("raw", RECORDS).parent), edit_rows(RECORDS), adopt(RECORDS)],
        [
            f"{RECORDS} raw: the files are missing: restore them from a copy",
            f"{RECORDS} loads: clean_sha256 is {SHA}, should be {SHA}",
        ],
    ),
}
VIEW = "None users_history: the view is missing or changed: .*, creates it again"  # comparing rows would take long
NO_TRACE = "_users_days: the day has neither a marker in loads nor files: .*"  # other commands cannot see such a day
ONE_DAY = "insert into _users_days values ('2026-09-01', 'incremental', null, '2026-09-02T00:00:00Z')"
TABLES_OF_USERS = {
    "a user changed": (
        [f"update users set name = 'Zed' {USER}"],
        [r"None users: user_id \d+: name is 'Zed', should be '[^;]+'"],
    ),
    "a user removed": ([f"delete from users {USER}"], [r"None users: user_id \d+: the row is missing"]),
    "a user added": (
        ["insert into users values (0, 'a', 'b', null, null, '2026-10-01T00:00:00.000000Z', '2026-10-01')"],
        ["None users: user_id 0: there should be no such row"],
    ),
    "the day of a user": (
        [f"update users set load_date = '2026-10-01', ingested_at = '1999-01-01T00:00:00.000000Z' {USER}"],
        [
            r"None users: user_id \d+: ingested_at is '?1999-01-01.*, should be '?2026-.*; "
            r"load_date is .*, should be '?2026-10-0.'?"
        ],
    ),
    "an event changed": (
        [f"update _users_events set city = null {EVENT}"],
        [
            f"{RECORDS} _users_events: user_id \\d+, at '?2026.*: city is null, should be '.+'",
            r"None users: user_id \d+: city is '.+', should be null",
        ],
    ),
    "an event removed": (
        [f"delete from _users_events {EVENT}"],
        [
            f"{RECORDS} _users_events: user_id .*: the row is missing",
            r"None users: user_id \d+: (name|email|city|updated_at|there should) .*",
        ],
    ),
    "an event of a day that was never loaded": (
        [
            f"insert into _users_events select '2026-09-01', user_id, at, _state, name, email, city, updated_at "
            f"from _users_events {EVENT}"
        ],
        ["None _users_events: has rows of 2026-09-01, which is not in _users_days"],
    ),
    "what a snapshot says": (
        [
            "update _users_changes set email = 'x@y' where as_of = (select max(as_of) from _users_changes) "
            "and user_id = (select max(user_id) from _users_changes "
            "where user_id not in (select user_id from _users_events))"
        ],
        [
            f"{SNAPSHOT} _users_changes: user_id \\d+: email is 'x@y', should be .*",
            r"None users: user_id \d+: email is .*, should be 'x@y'",
        ],
    ),
    "a change that is none": (
        [
            "insert into _users_changes select user_id, (select max(as_of) from _users_days), _state, name, email, "
            "city, updated_at from _users_changes where user_id = 1"
        ],
        [
            r"None _users_changes: user_id 1, as_of '?2026-10-04.*: not a change: .*",
            "None users: user_id 1: ingested_at .*",
        ],
    ),
    "the absence of a user who was never there": (
        ["insert into _users_changes select 0, max(as_of), 1, null, null, null, null from _users_days"],
        [r"None _users_changes: user_id 0, as_of '?2026-10-04.*: not a change: .*"],
    ),
    "what a snapshot says of a user who is gone": (
        ["insert into _users_changes select 0, max(as_of), 1, 'Zed', null, null, null from _users_days"],
        [r"None _users_changes: user_id 0, as_of '?2026-10-04.*: it has values, .*"],
    ),
    "what a snapshot says of a user whom it did not understand": (
        [
            "update _users_changes set city = 'Ur' where _state = 2 and user_id = "
            "(select max(user_id) from _users_changes where _state = 2)"
        ],
        [
            *(rf"{day} _users_changes: user_id \d+: city is 'Ur', should be null" for day in (DAYS[0], SNAPSHOT)),
            r"None _users_changes: user_id \d+, as_of .*: it has values, .*",
        ],
    ),
    "a reject removed": (
        [f"delete from rejects {REJECT}"],
        [f"{SNAPSHOT} rejects: dataset 'users', load_date '?{SNAPSHOT}'?, part 0, line \\d+: the row is missing"],
    ),
    "rejects added, of which one is of another dataset": (
        [
            f"insert into rejects select {columns}, part, line, reason, field, key, record from rejects {REJECT}"
            for columns in (
                f"dataset, '{RECORDS}'",
                "dataset, '2026-09-01'",
                "'other', '2026-09-02'",
                f"'other', '{SNAPSHOT}'",
            )
        ],
        [
            f"{RECORDS} rejects: dataset 'users', .*: there should be no such row",
            "None rejects: has rows of 2026-09-01, which is not in _users_days",
        ],
    ),
    "a reject changed": (
        [f"update rejects set reason = 'why not' {REJECT}"],
        [f"{SNAPSHOT} rejects: .*, line \\d+: reason is 'why not', should be .*"],
    ),
    "the counts of a marker": (
        [f"update loads set inserted = inserted + 1 where date = '{RECORDS}'"],
        [f"{RECORDS} loads: extracted is 10, the counts add up to 11"],
    ),
    "the other way round": (
        [f"update loads set extracted = extracted + 1 where date = '{RECORDS}'"],
        [
            f"{RECORDS} loads: extracted is 11, should be 10",
            f"{RECORDS} loads: extracted is 11, the counts add up to 10",
        ],
    ),
    "what of a marker belongs to the day": (
        [
            f"update loads set rejected = rejected + 1, forgotten = 1, duplicate = 1, unchanged = unchanged - 3, "
            f"watermark = '1999-01-01T00:00:00.000000Z' where date = '{SNAPSHOT}'"
        ],
        [
            rf"{SNAPSHOT} loads: rejected is \d+, should be \d+",
            f"{SNAPSHOT} loads: forgotten is 1, should be 0",
            f"{SNAPSHOT} loads: duplicate is 1, should be 0",
            f"{SNAPSHOT} loads: watermark is 1999-01-01 .*, should be 2026-10-.*",
        ],
    ),
    "the pages of a marker": (
        [f"update loads set pages = 7 where date = '{RECORDS}'"],
        [f"{RECORDS} loads: pages is 7, should be 1"],
    ),
    "the table of days": (
        [f"update _users_days set extracted_at = '1999-01-01T00:00:00.000000Z' where load_date = '{RECORDS}'"],
        [
            f"{RECORDS} _users_days: extracted_at is '?1999-01-01.*, should be '?2026-10-05.*",
            *[r"None users: .*"] * 10,
        ],
    ),
    "a day that is gone from that table": (
        [f"delete from _users_days where load_date = '{RECORDS}'"],
        [
            f"{RECORDS} _users_days: the day is missing",
            f"None _users_events: has rows of {RECORDS}, which is not in _users_days",
            *[r"None users: .*"] * 10,
        ],
    ),
    "a day of another mode": (
        [f"update _users_days set mode = 'incremental', as_of = null where load_date = '{SNAPSHOT}'"],
        [
            f"{SNAPSHOT} _users_days: mode is 'incremental', should be 'snapshot'",
            f"{SNAPSHOT} _users_days: as_of is null, should be '?2026-10-04.*",
            "None _users_changes: has rows of 2026-10-04.*, which is not in _users_days",
            *[r"None users: .*"] * 11,
        ],
    ),
    "a day that was never loaded": ([ONE_DAY], [f"2026-09-01 {NO_TRACE}"]),
    "a day whose marker and files are gone": (
        lambda: [
            execute(f"delete from loads where date = '{RECORDS}'"),
            *(shutil.rmtree(path(stage, RECORDS).parent) for stage in ("raw", "clean")),
        ],
        [f"{RECORDS} {NO_TRACE}"],
    ),
    "a view that is gone": (lambda: execute("drop view users_history"), [VIEW]),
    "another view": (lambda: replace_view("view"), [VIEW]),
    "a table in its place": (lambda: replace_view("table"), [VIEW]),
    # A day with a null in its marker cannot be compared. Other days and the users table still are.
    **{
        f"a null in {column}": (
            [f"update loads set {column} = null where date = '{RECORDS}'", f"delete from users {USER}"],
            [f"{RECORDS} loads: {column} is null", "None users: .*: the row is missing"],
        )
        for column in ("extracted", "inserted", "reverted", "extracted_at", "clean_sha256")
    },
}
UNREADABLE = {
    "a count that is none": ("extracted = 'ten'", "extracted is 'ten', not of type integer"),
    "a time that is none": ("window_start = 'noon'", "window_start is 'noon', not of type timestamp"),
    "a time without a zone": ("as_of = '2026-10-04T00:45:00'", "as_of is '2026-10-04T00:45:00', not of type timestamp"),
    "a time that is a number": ("pruned_at = 7", "pruned_at is 7, not of type timestamp"),
    "a watermark that is none": ("watermark = 'late'", "watermark is 'late', not of type timestamp"),
    "details that are no JSON": ("details = 'much'", "details is 'much', not a JSON object of counts"),
    "details of another form": ("details = '7'", "details is '7', not a JSON object of counts"),
}


@pytest.mark.usefixtures("database", "loaded")
def test_loaded_days_have_no_differences():
    """Verify changes no file. SQLite may leave its own log files while it reads."""
    before = dump_tree("data")
    assert list(verify(read_workspace(USERS))) == []
    after = dump_tree("data")
    assert {name: data for name, data in after.items() if name in before} == before
    assert after.keys() - before.keys() <= {"data/warehouse.db-shm", "data/warehouse.db-wal"}


@pytest.mark.usefixtures("database", "loaded")
def test_verify_never_commits(monkeypatch):
    """SQLite is opened read-only. PostgreSQL needs temporary tables, but its transaction is never committed."""

    def change(audit: Audit) -> Iterator[Finding]:
        audit.db.run("delete from loads")
        return iter(())

    monkeypatch.setattr(Audit, "check_days", change)
    with contextlib.suppress(WarehouseError):
        list(verify(read_workspace(USERS)))
    assert query("select count(*) from loads") == [(len(DAYS),)]


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("damage", FILES)
def test_damaged_file_is_reported(damage):
    """The finding names the day, the file and the difference."""
    break_it, expected = FILES[damage]
    break_it()
    check(tell(verify(read_workspace(USERS))), expected)


@pytest.mark.usefixtures("database_on_request", "loaded")
@pytest.mark.parametrize("damage", TABLES_OF_USERS)
def test_changed_row_is_reported(damage):
    """The finding names the table, the key, the column, and the actual and expected values."""
    change, expected = TABLES_OF_USERS[damage]
    if callable(change):
        change()
    else:
        assert min(execute(*change)) > 0
    check(tell(verify(read_workspace(USERS))), expected)


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("damage", UNREADABLE)
def test_unreadable_marker_value_is_reported(damage, capsys):
    """SQLite stores any text as a time. Other commands fail with one line that names the row and the remedy."""
    change, what = UNREADABLE[damage]
    execute(f"update loads set {change} where date = '{SNAPSHOT}'", f"delete from users {USER}")
    check(tell(verify(read_workspace(USERS))), [f"{SNAPSHOT} loads: {what}", "None users: .*: the row is missing"])
    advice = "correct the value, or delete the row and run the day again"
    error = f"ERROR: data/warehouse.db: loads, users {SNAPSHOT}: {what}: {advice}"
    assert run_here(capsys, "status")[1:] == (error, 1)


def replace_by_view(name: str) -> list[str]:
    """Return statements that replace a table by a view."""
    return [
        "drop view users_history",
        f"alter table {name} rename to moved_away",
        f"create view {name} as select * from moved_away",
    ]


MISFITS = {
    "text in loads.extracted": [f"update loads set extracted = 'many' where date = '{SNAPSHOT}'"],
    "text in loads.seconds": [f"update loads set seconds = 'long' where date = '{SNAPSHOT}'"],
    "a null in loads.pages": [f"update loads set pages = null where date = '{SNAPSHOT}'"],
    "a blob in rejects.record": [f"update rejects set record = x'ff00' {REJECT}"],
    "a number in rejects.key": [f"update rejects set key = 1.5 {REJECT}"],
    "bytes that are no text in rejects": [f"update rejects set reason = cast(x'ff' as text) {REJECT}"],
    **{f"a view {name}": replace_by_view(name) for name in ("loads", "rejects", "users", "_users_days")},
    "a table users_history": ["drop view users_history", "create table users_history (user_id integer)"],
}
EVERY_COMMAND = [
    *(["status"], ["report"], ["plan", "2026-10-01", "2026-10-05"], ["reprocess", "2026-10-01", "2026-10-05", "--all"]),
    *(["rebuild"], ["prune", "--older-than", "1", "--keep", "0"], ["forget", "users", "5"]),
]


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("misfit", MISFITS)
def test_misfit_value_or_table_causes_no_traceback(misfit, capsys):
    """SQLite stores any value, and tables can be changed by hand. Each command reports what it needs in one line."""
    execute(*MISFITS[misfit])
    assert tell(verify(read_workspace(USERS))) != []
    shutil.copytree("data", "kept")
    for command in EVERY_COMMAND:
        _, error, code = run_here(capsys, *command)  # raises what would be a traceback
        assert code == int(bool(error)), command
        assert all(line.startswith(("ERROR: ", "WARNING: ")) for line in error.splitlines()), command
        shutil.rmtree("data")
        shutil.copytree("kept", "data")


@pytest.mark.usefixtures("loaded")
def test_row_with_invalid_date_is_reported(capsys):
    """Other commands fail with one line, not with a traceback."""
    execute(
        f"update loads set date = 'some day' where date = '{RECORDS}'",
        "insert into _users_days values ('a day', 'incremental', null, '2026-09-02T00:00:00Z')",
    )
    found = list(verify(read_workspace(USERS)))
    lost = ["loads: date is 'some day', not of type date", "_users_days: load_date is 'a day', not of type date"]
    assert tell(found) == [f"None {what}" for what in lost]
    assert tell(found, remark=True) == [f"{RECORDS} loads: the day is not loaded"]
    output, error, code = run_here(capsys, "status")
    assert (output, code) == ("", 1)
    assert error.startswith("ERROR: data/warehouse.db: loads, users of no day: date is 'some day', not of type date: ")
    unread = "ERROR: users: a day in loads or _users_days is 'some day', not of type date"
    assert run_here(capsys, "rebuild")[1:] == (unread, 1)


@pytest.mark.usefixtures("loaded")
def test_unreadable_watermark_is_one_line():
    """An extraction reads the watermark without the rest of the marker."""
    execute(f"update loads set watermark = 'late' where date = '{SNAPSHOT}'")
    with pytest.raises(WarehouseError, match=r"^users: a watermark in loads is 'late', not of type timestamp$"):
        open_warehouse(read_workspace(USERS)).watermark_before(DAYS[3])


WRONG = "rejected = rejected + 1, forgotten = forgotten + 1, duplicate = duplicate + 1, inserted = inserted - 3"


@pytest.mark.usefixtures("loaded")
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
    late, early = ([*counts, f"loads: watermark is {year}-.*, should be 2026-10-0.*"] for year in (2099, 1999))
    check(
        tell(verify(read_workspace(USERS))),
        [f"{day} {what}" for day in DAYS for what in (counts if day in erased else late)],
    )
    execute("update loads set watermark = '1999-01-01T00:00:00.000000Z'")
    check(tell(verify(read_workspace(USERS))), [f"{day} {what}" for day in DAYS for what in early])


def check(found: list[str], expected: list[str]) -> None:
    assert len(found) == len(expected), found
    for line, pattern in zip(found, expected, strict=True):
        assert re.fullmatch(pattern, line), line


@pytest.mark.usefixtures("database", "loaded")
def test_many_differences_are_counted_after_examples():
    """A table with many differences does not fill the screen."""
    (number,) = execute("update users set name = 'x'")
    found = tell(verify(read_workspace(USERS)))
    assert len(found) == EXAMPLES + 1
    assert found[-1] == f"None users: and {number - EXAMPLES:,} more rows"


@pytest.mark.usefixtures("loaded")
def test_only_requested_days_are_compared():
    """The range excludes its stop. The users table belongs to no day, so it is always compared."""
    for day in DAYS:
        flip_byte(path("raw", str(day)))
    execute(f"delete from users {USER}")
    assert [(date, thing) for date, thing, *_ in verify(read_workspace(USERS), DAYS[1], DAYS[2])] == [
        (DAYS[1], "raw"),
        (None, "users"),
    ]


@pytest.mark.usefixtures("loaded")
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
        f"2026-10-01 {other_code}",
        f"2026-10-02 {other_code}",
        "2026-10-03 clean: data/clean/users/date=2026-10-03 has files, but no manifest.json: the day is incomplete",
        "2026-10-03 loads: the day is not loaded",
        "2026-10-04 loads: the day was transformed by another version: its raw files are pruned",
    ]
    execute(f"update _users_events set city = null {EVENT}")
    assert (
        len(tell(verify(read_workspace(USERS)))) == 2
    )  # without raw files the tables are still compared with the clean files
    shutil.rmtree(path("raw", str(DAYS[1])).parent)  # lost, not pruned
    assert tell(verify(read_workspace(USERS), DAYS[1], DAYS[2]), remark=True) == [f"2026-10-02 {other_code}"]


@pytest.mark.usefixtures("loaded")
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


STORED = [table.name for table in USERS.declared.stored()]
SHAPES = {
    "a column too many": (
        ["alter table users add column age integer"],
        "the table users has a column age too many: .*",
    ),
    "a table that is gone": (["drop table users"], "the table users is missing: rebuild creates it"),
    "all that are gone": (
        ["drop view users_history", *(f"drop table {name}" for name in STORED)],
        f"the table {', '.join(STORED)} is missing: rebuild creates it",
    ),
}


@pytest.mark.usefixtures("database", "loaded")
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


@pytest.mark.usefixtures("database", "loaded")
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


@pytest.mark.usefixtures("database", "loaded")
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


@pytest.mark.usefixtures("loaded")
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


@pytest.mark.usefixtures("loaded")
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


@pytest.mark.usefixtures("loaded")
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
def same_version(loaded, monkeypatch) -> None:  # noqa: ARG001 - the days are loaded first
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


@pytest.mark.usefixtures("loaded")
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


@pytest.mark.usefixtures("loaded")
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


@pytest.mark.usefixtures("loaded")
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


@pytest.mark.usefixtures("loaded")
def test_value_of_a_flag_is_not_a_day(capsys):
    """A key of luigi.cfg is a flag in any position, with or without an equals sign."""
    execute(f"update loads set pages = 7 where date = '{RECORDS}'")
    for other in (["--pipeline-database=sqlite:///other.db"], ["--pipeline-database", "sqlite:///other.db"]):
        assert run_here(capsys, "verify", *other)[1:] == ("", 0)
        assert run_here(capsys, "verify", SNAPSHOT, *other)[1:] == ("", 0)
    assert run_here(capsys, "verify", "--pipeline-database", "sqlite:///data/warehouse.db")[2] == 1
