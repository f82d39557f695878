"""Show the state of each day with `status`, for people, programs and monitors."""

import datetime as dt
import json
import re
import shutil
from pathlib import Path, PurePath

import pytest

from pipeline.users import USERS
from tests.support import ROOT
from tests.support.days import edit_warehouse, make_days, write_failures
from tests.support.project import luigi_run, run, run_here
from tests.support.terminal import look_at, run_on_terminal
from wholeday import clock
from wholeday.commands.status import Status, format_span, read_status
from wholeday.storage.local import LocalStorage
from wholeday.tasks.failures import Failure
from wholeday.tasks.stages import read_workspace

NOW = dt.datetime(2026, 11, 25, 3, 30, tzinfo=dt.UTC)  # Wednesday
FIRST, LAST = dt.date(2026, 11, 5), dt.date(2026, 11, 24)
NOTHING = "ERROR: users: no day is loaded, and --max-age allows 1 day: see wholeday status"


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "utc_now", lambda: NOW)


def make_every_state() -> None:
    """Make days of each state: pruned 9th, outdated 11th, loaded late 17th, missing 18th, failed 20th and 24th."""
    make_days(FIRST, 19)
    shutil.rmtree(read_workspace(USERS).folder("raw", dt.date(2026, 11, 9)).path)
    edit_warehouse("update loads set pruned_at = loaded_at where date = '2026-11-09'")
    edit_warehouse("update loads set transform_version = 'older' where date = '2026-11-11'")
    for day in ("2026-11-18", "2026-11-20"):
        edit_warehouse("delete from loads where date = ?", day)
        shutil.rmtree(read_workspace(USERS).folder("raw", dt.date.fromisoformat(day)).path)
    at = dt.datetime(2026, 11, 18, 0, 5, tzinfo=dt.UTC)
    write_failures(
        Failure(at, dt.date(2026, 11, 17), "extract", "503 for 5 tries"),
        Failure(at + dt.timedelta(days=3), dt.date(2026, 11, 20), "extract", "a first cause"),
        Failure(at + dt.timedelta(days=3, hours=1), dt.date(2026, 11, 20), "transform", "too many [rejects]"),
        Failure(at + dt.timedelta(days=7), LAST, "load", "disk is full"),
    )


def test_every_day_has_a_state():
    """The gravest state wins. A failed day is also missing; an outdated or pruned day is loaded."""
    make_every_state()
    status = read_status(read_workspace(USERS))
    days = {FIRST + dt.timedelta(days=number) for number in range(20)}
    states = status.get_states()
    assert states.keys() == days
    other = {date.day: state for date, state in states.items() if state != "loaded"}
    assert other == {9: "pruned", 11: "outdated", 18: "missing", 20: "failed", 24: "failed"}
    assert [day.day for day in status.missing] == [18, 20, 24]
    assert [day.day for day in status.failed] == [20, 24]
    assert [day.day for day in status.pruned] == [9]
    assert status.outdated == {dt.date(2026, 11, 11): "transformed by another version"}
    assert [(failure.date.day, failure.line) for failure in status.failures] == [
        (24, "disk is full"),
        (20, "too many [rejects]"),
        (17, "503 for 5 tries"),
    ]
    assert (status.days, status.first, status.newest, status.last_closed) == (17, FIRST, dt.date(2026, 11, 23), LAST)


def test_screen_shows_calendar_and_problems(capsys):
    """The calendar has a row for each week and a letter for each day. The newest loads follow."""
    make_every_state()
    out, err, code = run_here(capsys, "status", "--days", "2")
    assert (err, code) == ("", 0)
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[:10] == [
        "users in sqlite:///data/warehouse.db: 17 days, 2026-11-05 to 2026-11-23; "
        "3 days missing up to the last closed day, 2026-11-24",
        "all changes before 2026-11-18T00:00:00Z are loaded (7 days 3 hours ago)",
        "source: demo://users",
        "",
        "week of      Mon   Tue   Wed   Thu   Fri   Sat   Sun",
        "2026-11-02                     5 .   6 .   7 .   8 .",
        "2026-11-09   9 p  10 .  11 O  12 .  13 .  14 .  15 .",
        "2026-11-16  16 .  17 .  18 M  19 .  20 F  21 .  22 .",
        "2026-11-23  23 .  24 F  25 -  26 -  27 -  28 -  29 -",
        ". loaded   p loaded, files pruned   O outdated   F failed   M missing   - not over yet",
    ]
    assert [line.split()[0] for line in lines[12:14]] == ["2026-11-22", "2026-11-23"]
    rest = lines[14:]
    assert rest[:6] == [
        "missing: 2026-11-18, 2026-11-20, 2026-11-24: wholeday backfill 2026-11-18 2026-11-25",
        "failed at 2026-11-25T00:05:00Z: 2026-11-24, load: disk is full",
        "failed at 2026-11-21T01:05:00Z: 2026-11-20, transform: too many [rejects]",
        "failed at 2026-11-18T00:05:00Z, loaded now: 2026-11-17, extract: 503 for 5 tries",
        "what to do: https://wholeday.github.io/wholeday/how-to/failed-day.html",
        "outdated, transformed by another version: 2026-11-11",
    ]
    assert re.fullmatch(r"rejected, \d+ records of \d+ days: email: has no @", rest[6])


@pytest.mark.slow
def test_80_columns_show_complete_numbers():
    """Columns of zeros become one line. If the rest is still too wide, the headers wrap."""
    make_days(dt.datetime.now(dt.UTC).date() - dt.timedelta(days=12), 12)
    zeros = "deleted = 0, superseded = 0, duplicate = 0, forgotten = 0"
    edit_warehouse(f"update loads set {zeros}, inserted = 1234567, rejected = 1")
    code, written = run_on_terminal("python", "-m", "wholeday", "status", "--days", "3", columns=80)
    assert code == 0, written
    lines = [line.rstrip() for line in look_at(written)]
    (at,) = (number for number, line in enumerate(lines) if line.startswith("date "))
    assert lines[at].split() == ["date", "extracted", "inserted", "updated", "unchanged", "rejected", "seconds"]
    assert [line.split()[2] for line in lines[at + 1 : at + 4]] == ["1,234,567"] * 3
    assert lines[at + 4] == "0 on all these days: deleted, vanished, reverted, superseded, duplicate, forgotten"
    legend = lines[at - 3 : at - 1]
    assert re.split(" {3,}", "   ".join(legend)) == [
        ". loaded", "p loaded, files pruned", "O outdated", "F failed", "M missing", "- not over yet",
    ]  # fmt: skip
    edit_warehouse(
        "update loads set deleted = 1, superseded = 98765, duplicate = 4321, forgotten = 1, inserted = 7654321"
    )
    _, written = run_on_terminal("python", "-m", "wholeday", "status", "--days", "3", columns=80)
    rows = re.findall(r"^[\d-]{10} +\d+ +7,654,321 .* 98,765 +4,321 .*\r$", written, re.MULTILINE)
    assert (len(rows), max(map(len, rows))) == (3, 81)


@pytest.mark.slow
def test_calendar_has_at_most_six_weeks(capsys):
    """It starts with the first known day and leaves unknown days blank."""
    assert "Mon" not in run_here(capsys, "status")[0]
    write_failures(
        Failure(NOW, LAST, "extract", "no route to host"), Failure(NOW, dt.date(2026, 11, 18), "extract", "no")
    )
    out, _, _ = run_here(capsys, "status")
    assert re.findall(r"^(2026\S+) +(.*?) *$", out, re.MULTILINE) == [
        ("2026-11-16", "18 F"),
        ("2026-11-23", "24 F  25 -  26 -  27 -  28 -  29 -"),
    ]
    assert "no route to host" in out
    shutil.rmtree("data")
    make_days(LAST - dt.timedelta(days=99), 100)
    out, _, _ = run_here(capsys, "status", "--days", "1")
    assert re.findall(r"^(2026\S+) +\d+ \.", out, re.MULTILINE) == [
        "2026-10-19", "2026-10-26", "2026-11-02", "2026-11-09", "2026-11-16", "2026-11-23",
    ]  # fmt: skip


def test_json_keys_are_documented(capsys):
    """Times and dates are text. The document has the newest loads only."""
    make_every_state()
    out, err, code = run_here(capsys, "status", "--json", "--days", "3")
    assert (err, code) == ("", 0)
    (users,) = json.loads(out)["datasets"]
    assert list(users) == list(Status.__struct_fields__)
    assert (users["known_until"], users["age_seconds"]) == ("2026-11-18T00:00:00Z", 171.5 * 3600)
    assert users["missing"] == ["2026-11-18", "2026-11-20", "2026-11-24"]
    assert users["outdated"] == {"2026-11-11": "transformed by another version"}
    assert users["failures"][0] == {
        "at": "2026-11-25T00:05:00Z", "date": "2026-11-24", "stage": "load", "line": "disk is full",
    }  # fmt: skip
    assert users["rejects"][0].keys() == {"reason", "records", "days"}
    assert [(load["date"], load["inserted"] > 0) for load in users["loads"]] == [
        ("2026-11-21", True), ("2026-11-22", True), ("2026-11-23", True),
    ]  # fmt: skip
    page = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
    for key in users:
        assert f"`{key}`" in page, key


def test_max_age_fails_if_data_is_too_old(capsys):
    """The limit is exact to the second. One line gives the cause, even if no day is loaded."""
    out, err, code = run_here(capsys, "status", "--max-age", "1 day")
    assert (err.strip(), code) == (NOTHING, 1)
    assert "no day is loaded" in out
    make_days(FIRST, 19)
    assert run_here(capsys, "status", "--max-age", "27 hours 30 minutes")[1:] == ("", 0)
    ends = "ERROR: users: the known changes end at 2026-11-24T00:00:00Z, 1 day 3 hours ago"
    line, next_ = (
        f"{ends}, and --max-age allows 1 day 3 hours",
        "1 day missing: wholeday backfill 2026-11-24 2026-11-25",
    )
    out, err, code = run_here(capsys, "status", "--json", "--max-age", "27 hours 29 minutes 59 seconds")
    assert (err.strip(), code) == (f"{line}: {next_}", 1)
    assert json.loads(out)["datasets"][0]["days"] == 19
    write_failures(Failure(NOW, LAST, "extract", "503 for 5 tries"))
    _, err, code = run_here(capsys, "status", "--max-age", "1 day 3 hours")
    assert (err.strip(), code) == (f"{line}: 2026-11-24 failed, extract: 503 for 5 tries", 1)


@pytest.mark.slow
def test_failed_day_before_the_first_loaded_day_is_missing(capsys):
    """A backfill of the past failed at its first day. Days before it were never asked for."""
    make_days(FIRST, 20)
    early = FIRST - dt.timedelta(days=3)
    write_failures(Failure(NOW, early, "extract", "503"))
    out = run_here(capsys, "status")[0]
    assert "no day is missing" not in out
    assert f"missing: {early}: wholeday backfill {early} {early + dt.timedelta(days=1)}" in " ".join(out.split())


@pytest.mark.slow
def test_missing_day_limits_known_changes(capsys):
    """Later loaded days must not hide a missing day from a monitor."""
    make_days(FIRST, 20)
    assert run_here(capsys, "status", "--max-age", "1 day 4 hours")[1:] == ("", 0)
    edit_warehouse("delete from loads where date in ('2026-11-12', '2026-11-20')")
    status = read_status(read_workspace(USERS))
    assert (status.newest, status.known_until) == (LAST, dt.datetime(2026, 11, 12, tzinfo=dt.UTC))
    ends = "ERROR: users: the known changes end at 2026-11-12T00:00:00Z, 13 days 3 hours ago"
    _, err, code = run_here(capsys, "status", "--max-age", "1 day 4 hours")
    next_ = "2 days missing: wholeday backfill 2026-11-12 2026-11-21"
    assert (err.strip(), code) == (f"{ends}, and --max-age allows 1 day 4 hours: {next_}", 1)
    later, oldest = (dt.date(2026, 11, day) for day in (20, 12))
    write_failures(Failure(NOW, later, "extract", "503"))
    assert next_ in run_here(capsys, "status", "--max-age", "1 day")[1]
    shutil.rmtree("data/failures")
    write_failures(Failure(NOW, later, "extract", "503"), Failure(NOW, oldest, "extract", "404 Not Found"))
    _, err, _ = run_here(capsys, "status", "--max-age", "1 day")
    assert err.strip().endswith("allows 1 day: 2 days missing, 2026-11-12 failed, extract: 404 Not Found")


@pytest.mark.parametrize(
    ("settings", "snapshots", "known"),
    [
        ({"url": "http://127.0.0.1:9/?since={day_start}"}, "", 12),
        ({"url": "http://127.0.0.1:9/?since={watermark}"}, "", 23),
        ({"url": "http://127.0.0.1:9/?since={watermark}&day={date}"}, "", 12),
        ({"mode": "snapshot"}, "'2026-11-11' and '2026-11-23'", 23),
        ({"mode": "snapshot"}, "'2026-11-15' and '2026-11-18'", 20),
    ],
)
def test_later_day_may_cover_a_missing_day(configure, settings, snapshots, known):
    """A watermark covers the gap, and a snapshot is complete by itself. A window covers its own day only."""
    make_days(FIRST, 19)
    configure("users", **settings)
    edit_warehouse("delete from loads where date in ('2026-11-12', '2026-11-20')")
    if snapshots:
        edit_warehouse(f"update loads set mode = 'snapshot' where date between {snapshots}")
    status = read_status(read_workspace(USERS))
    assert status.known_until
    assert status.known_until.date() == dt.date(2026, 11, known + (known == 23))
    wanted = [date.day for date in status.wanted]
    assert wanted == ([12, 20, 24, 25] if snapshots else [12, 20, 24])  # the files of the first two days exist


@pytest.mark.parametrize(
    ("mode", "known"), [("incremental", "2026-11-23T23:00:00+00:00"), ("snapshot", "2026-11-24T00:05:00+00:00")]
)
def test_known_changes_end_with_window_or_snapshot(configure, mode, known):
    """A snapshot shows the state at its extraction, not at the end of its day."""
    make_days(FIRST, 19)
    configure("users", timezone="Europe/Berlin", mode=mode)
    edit_warehouse(
        "update loads set mode = ?, window_stop = '2026-11-23T23:00:00.000000Z' where date = '2026-11-23'", mode
    )
    edit_warehouse("delete from loads where date < '2026-11-23'")
    status = read_status(read_workspace(USERS))
    assert status.known_until == dt.datetime.fromisoformat(known)
    assert status.last_closed == dt.date(2026, 11, 25 if mode == "snapshot" else 24)


def test_status_reads_each_manifest_once(monkeypatch):
    """Ten years then take about a second."""
    make_days(LAST - dt.timedelta(days=99), 100)
    read, files = LocalStorage.read, list[PurePath]()
    monkeypatch.setattr(LocalStorage, "read", lambda storage, path: files.append(path) or read(storage, path))
    status = read_status(read_workspace(USERS))
    manifests = [path for path in files if path.name == "manifest.json"]
    assert len(manifests) == len(set(manifests)) == 200
    assert (status.days, status.missing, status.outdated, status.pruned) == (100, [], {}, [])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 seconds"),
        (0, "0 seconds"),
        (1, "1 second"),
        (119.6, "2 minutes"),
        (3661, "1 hour 1 minute"),
        (86400, "1 day"),
        (90061, "1 day 1 hour"),
        (3 * 86400 + 60, "3 days"),
    ],
)
def test_duration_shows_two_largest_units(seconds, words):
    assert format_span(dt.timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--max-age", "soon"], "wholeday status: --max-age=soon: write it as 15 minutes, 2 hours or 1 day"),
        (["--max-age", "36", "hours"], "unexpected argument 'hours'"),
    ],
)
def test_invalid_duration_is_refused(capsys, arguments, line):
    """The shell splits unquoted words; a bare number must not mean seconds."""
    _, err, code = run_here(capsys, "status", *arguments)
    assert code == 2
    assert line in err


def test_unreadable_failures_are_one_line(capsys):
    """The line has the error, the file and the next step."""
    Path("data/failures").mkdir(parents=True)
    Path("data/failures/users.jsonl").write_text("{}\n")
    _, err, code = run_here(capsys, "status")
    assert code == 1
    assert re.fullmatch(
        r"ERROR: cannot read the failures in data/failures/users.jsonl \(.*\)\. Move the file away, then run again", err
    )


@pytest.mark.slow
def test_status_of_a_real_load_is_clean():
    """Both commands run in their own processes with the real clock."""
    assert luigi_run("LoadUsers").returncode == 0
    result = run("python", "-m", "wholeday", "status", "--json", "--max-age", "2 days")
    assert result.returncode == 0, result.stderr
    (users,) = json.loads(result.stdout)["datasets"]
    assert users["days"] == 1
    assert [users[key] for key in ("missing", "failed", "outdated", "pruned")] == [[], [], {}, []]
