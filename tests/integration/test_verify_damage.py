"""Verify reports each damage of a file or table in one line, and other commands raise no traceback."""

import datetime as dt
import gzip
import shutil
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from pipeline.users import USERS
from tests.support.project import execute, run_here
from tests.support.verified import (
    DAYS,
    EVENT,
    RECORDS,
    REJECT,
    SNAPSHOT,
    USER,
    adopt,
    check,
    edit,
    flip_byte,
    path,
    tell,
)
from wholeday.commands.verify import verify
from wholeday.errors import WarehouseError
from wholeday.load.warehouse import open_warehouse
from wholeday.storage.manifest import CleanManifest
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


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


SHA = "'[0-9a-f]{64}'"
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
            path("raw", SNAPSHOT, "manifest.json"), '"as_of": "2017-10-04T00:45', '"as_of": "2017-10-04T00:44'
        ),
        [f"{SNAPSHOT} loads: as_of is 2017-10-04 00:45:00.*, should be 2017-10-04 00:44:00.*"],
    ),
    "a raw day read again": (
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
            *(f"{SNAPSHOT} clean: rejects-0000{n}.jsonl.gz is missing from the manifest: .*" for n in range(2)),
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
ONE_DAY = "insert into _users_days values ('2017-09-01', 'incremental', null, '2017-09-02T00:00:00Z')"
TIME = "2017-10-01T00:00:00.000000Z"
TABLES_OF_USERS = {
    "a user changed": (
        [f"update users set name = 'Zed' {USER}"],
        [r"None users: user_id \d+: name is 'Zed', should be '[^;]+'"],
    ),
    "a user removed": ([f"delete from users {USER}"], [r"None users: user_id \d+: the row is missing"]),
    "a user added": (
        [f"insert into users values (0, 'a', 'b', null, null, '{TIME}', '{TIME}', '2017-10-01')"],
        ["None users: user_id 0: there should be no such row"],
    ),
    "the time since when a user is so": (
        [f"update users set valid_from = '{TIME}' {USER}"],
        [r"None users: user_id \d+: valid_from is '?2017-10-01.*, should be '?2017-.*"],
    ),
    "a past version that is gone": (
        ["delete from _users_past where valid_to = (select max(valid_to) from _users_past)"],
        [r"None _users_past: user_id \d+, valid_from '?2017-.*: the row is missing"],
    ),
    "a past version changed": (
        ["update _users_past set city = 'x' where valid_to = (select max(valid_to) from _users_past)"],
        [r"None _users_past: user_id \d+, valid_from '?2017-.*: city is 'x', should be .*"],
    ),
    "a past version added": (
        [f"insert into _users_past select user_id, 'a', 'b', null, null, '{TIME}', valid_from from users {USER}"],
        [r"None _users_past: user_id \d+, valid_from '?2017-10-01.*: there should be no such row"],
    ),
    "the day of a user": (
        [f"update users set load_date = '2017-10-01', ingested_at = '1999-01-01T00:00:00.000000Z' {USER}"],
        [
            r"None users: user_id \d+: ingested_at is '?1999-01-01.*, should be '?2017-.*; "
            r"load_date is .*, should be '?2017-10-0.'?"
        ],
    ),
    "an event changed": (
        [f"update _users_events set city = null {EVENT}"],
        [
            f"{RECORDS} _users_events: user_id \\d+, at '?2017.*: city is null, should be '.+'",
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
            f"insert into _users_events select '2017-09-01', user_id, at, _state, name, email, city, updated_at "
            f"from _users_events {EVENT}"
        ],
        ["None _users_events: has rows of 2017-09-01, which is not in _users_days"],
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
            r"None _users_changes: user_id 1, as_of '?2017-10-04.*: not a change: .*",
            "None users: user_id 1: ingested_at .*",
        ],
    ),
    "the absence of a user who was never there": (
        ["insert into _users_changes select 0, max(as_of), 1, null, null, null, null from _users_days"],
        [r"None _users_changes: user_id 0, as_of '?2017-10-04.*: not a change: .*"],
    ),
    "what a snapshot says of a user who is gone": (
        ["insert into _users_changes select 0, max(as_of), 1, 'Zed', null, null, null from _users_days"],
        [r"None _users_changes: user_id 0, as_of '?2017-10-04.*: it has values, .*"],
    ),
    "a value for a user whose record a snapshot rejected": (
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
        [f"{SNAPSHOT} rejects: dataset 'users', load_date '?{SNAPSHOT}'?, part \\d, line \\d+: the row is missing"],
    ),
    "rejects added, one of another dataset": (
        [
            f"insert into rejects select {columns}, part, line, reason, field, key, record from rejects {REJECT}"
            for columns in (
                f"dataset, '{RECORDS}'",
                "dataset, '2017-09-01'",
                "'other', '2017-09-02'",
                f"'other', '{SNAPSHOT}'",
            )
        ],
        [
            f"{RECORDS} rejects: dataset 'users', .*: there should be no such row",
            "None rejects: has rows of 2017-09-01, which is not in _users_days",
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
            f"{SNAPSHOT} loads: watermark is 1999-01-01 .*, should be 2017-10-.*",
        ],
    ),
    "the pages of a marker": (
        [f"update loads set pages = 7 where date = '{RECORDS}'"],
        [f"{RECORDS} loads: pages is 7, should be 1"],
    ),
    "the table of days": (
        [f"update _users_days set extracted_at = '1999-01-01T00:00:00.000000Z' where load_date = '{RECORDS}'"],
        [
            f"{RECORDS} _users_days: extracted_at is '?1999-01-01.*, should be '?2017-10-05.*",
            *[r"None users: .*"] * 9,
        ],
    ),
    "a day that is gone from that table": (
        [f"delete from _users_days where load_date = '{RECORDS}'"],
        [
            f"{RECORDS} _users_days: the day is missing",
            f"None _users_events: has rows of {RECORDS}, which is not in _users_days",
            *[r"None users: .*"] * 9,
            *[r"None _users_past: .*: there should be no such row"] * 8,
        ],
    ),
    "a day of another mode": (
        [f"update _users_days set mode = 'incremental', as_of = null where load_date = '{SNAPSHOT}'"],
        [
            f"{SNAPSHOT} _users_days: mode is 'incremental', should be 'snapshot'",
            f"{SNAPSHOT} _users_days: as_of is null, should be '?2017-10-04.*",
            "None _users_changes: has rows of 2017-10-04.*, which is not in _users_days",
            *[r"None users: .*"] * 11,
            *[r"None _users_past: .*: there should be no such row"] * 8,
        ],
    ),
    "a day that was never loaded": ([ONE_DAY], [f"2017-09-01 {NO_TRACE}"]),
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
    "a time without a zone": ("as_of = '2017-10-04T00:45:00'", "as_of is '2017-10-04T00:45:00', not of type timestamp"),
    "a time that is a number": ("pruned_at = 7", "pruned_at is 7, not of type timestamp"),
    "a watermark that is none": ("watermark = 'late'", "watermark is 'late', not of type timestamp"),
    "details that are no JSON": ("details = 'much'", "details is 'much', not a JSON object of counts"),
    "details of another form": ("details = '7'", "details is '7', not a JSON object of counts"),
}


@pytest.mark.usefixtures("verified")
@pytest.mark.parametrize("damage", FILES)
def test_damaged_file_is_reported(damage):
    """The finding names the day, the file and the difference."""
    break_it, expected = FILES[damage]
    break_it()
    check(tell(verify(read_workspace(USERS))), expected)


@pytest.mark.usefixtures("database_on_request", "verified")
@pytest.mark.parametrize("damage", TABLES_OF_USERS)
def test_changed_row_is_reported(damage):
    """The finding names the table, the key, the column, and the actual and expected values."""
    change, expected = TABLES_OF_USERS[damage]
    if callable(change):
        change()
    else:
        assert min(execute(*change)) > 0
    check(tell(verify(read_workspace(USERS))), expected)


@pytest.mark.usefixtures("verified")
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
    "bytes that are not text in rejects": [f"update rejects set reason = cast(x'ff' as text) {REJECT}"],
    **{f"a view {name}": replace_by_view(name) for name in ("loads", "rejects", "users", "_users_days")},
    "a table users_history": ["drop view users_history", "create table users_history (user_id integer)"],
}
READING = [["status"], ["report"], ["plan", "2017-10-01", "2017-10-05"], ["prune", "--older-than", "1", "--keep", "0"]]
WRITING = [["reprocess", SNAPSHOT, RECORDS, "--all"], ["rebuild"], ["forget", "users", "5"]]


@pytest.mark.usefixtures("verified")
@pytest.mark.parametrize("misfit", MISFITS)
def test_misfit_value_or_table_causes_no_traceback(misfit, capsys):
    """SQLite stores any value, and tables can be changed by hand. Each command reports what it needs in one line."""
    execute(*MISFITS[misfit])
    assert tell(verify(read_workspace(USERS))) != []
    Path("data").rename("kept")
    for command in (*READING, *WRITING):
        if command in (READING[0], *WRITING):
            shutil.rmtree("data", ignore_errors=True)
            shutil.copytree("kept", "data")
        _, error, code = run_here(capsys, *command)  # raises what would be a traceback
        assert code == int(bool(error)), command
        assert all(line.startswith(("ERROR: ", "WARNING: ")) for line in error.splitlines()), command


@pytest.mark.usefixtures("verified")
def test_row_with_invalid_date_is_reported(capsys):
    """Other commands fail with one line, not with a traceback."""
    execute(
        f"update loads set date = 'some day' where date = '{RECORDS}'",
        "insert into _users_days values ('a day', 'incremental', null, '2017-09-02T00:00:00Z')",
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


@pytest.mark.usefixtures("verified")
def test_unreadable_watermark_is_one_line():
    """An extraction reads the watermark without the rest of the marker."""
    execute(f"update loads set watermark = 'late' where date = '{SNAPSHOT}'")
    with pytest.raises(WarehouseError, match=r"^users: a watermark in loads is 'late', not of type timestamp$"):
        open_warehouse(read_workspace(USERS)).watermark_before(DAYS[3])
