"""Record failures from every process. A loaded day has no open failure."""

import datetime as dt
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from pipeline.users import USERS
from tests.support import ROOT
from tests.support.days import make_marker
from tests.support.project import luigi_run, run, run_here
from wholeday.errors import FolderError
from wholeday.tasks import failures
from wholeday.tasks.failures import Failure, read_failures, select_open

pytestmark = pytest.mark.slow

DAY = dt.date(2026, 11, 20)
FILE = Path("data/failures/users.jsonl")
NOBODY = ("--users-url", "http://127.0.0.1:9/x", "--users-retries", "0")


def find_users() -> list[tuple[str, str]]:
    """Return day and stage of every failure of the users, oldest first."""
    return [(str(failure.date), failure.stage) for failure in read_failures("data", "users")]


def test_failure_is_recorded_with_its_log_line():
    before = dt.datetime.now(dt.UTC)
    result = luigi_run("LoadUsers", "--date", str(DAY), *NOBODY)
    assert result.returncode == 30
    (failure,) = read_failures("data", "users")
    assert before <= failure.at <= dt.datetime.now(dt.UTC)
    assert (failure.date, failure.stage) == (DAY, "extract")
    assert f"ERROR: ExtractUsers(date={DAY}) failed: {failure.line}\n" in result.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_each_stage_and_process_records_failures(workers):
    """Transform fails on too many rejects, and extract on an unreachable source. Each is recorded once."""
    luigi_run("ExtractUsers", "--date", "2026-11-19")
    result = luigi_run(
        *("BackfillUsers", "--start", "2026-11-18", "--stop", "2026-11-20", "--workers", workers),
        *(*NOBODY, "--users-max-reject-ratio", "0"),
    )
    assert result.returncode == 30
    assert sorted(find_users()) == [("2026-11-18", "extract"), ("2026-11-19", "transform")]


@pytest.mark.parametrize(
    "task", [("LoadUsers", "--date", str(DAY)), ("BackfillUsers", "--start", "2026-11-18", "--stop", "2026-11-21")]
)
def test_unreadable_warehouse_is_recorded(task):
    """Luigi cannot find complete days, so no task runs. In a range, the newest day fails."""
    Path("data").mkdir()
    Path("data/warehouse.db").write_text("no database, and long enough to be seen as none" * 100)
    assert luigi_run(*task).returncode == 35
    assert set(find_users()) == {(str(DAY), "load")}


def test_day_that_is_not_over_is_no_failure():
    """The command fails, but nothing is recorded."""
    assert luigi_run("LoadUsers", "--date", "2999-01-01").returncode == 30
    assert not FILE.exists()


def test_killed_process_is_recorded_by_its_parent():
    """The log has the same line."""
    Path("dying.py").write_text(
        "import os, signal\n"
        "from pipeline import users; from wholeday.tasks import day_tasks as tasks\n"
        "class ExtractDying(tasks.Extract, dataset=users.USERS):\n"
        "    def run(self): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    task = ("luigi", "--module", "dying", "ExtractDying", "--date", str(DAY))
    result = run(*task, "--workers", "2", PYTHONPATH=f".:{ROOT}")
    assert result.returncode == 30
    (failure,) = read_failures("data", "users")
    assert (failure.date, failure.stage) == (DAY, "extract")
    assert failure.line == "its process died unexpectedly with exit code -9"
    assert f"ERROR: ExtractDying(date={DAY}) failed: {failure.line}\n" in result.stderr


def test_bug_is_recorded_by_its_error():
    """Its traceback is in the log."""
    code = (
        "from luigi.cmdline import luigi_run; from wholeday.tasks import stages\n"
        "def broken(*_): raise ZeroDivisionError('a bug\\nof two lines')\n"
        "stages.extract = broken\n"
        f"luigi_run(['--module', 'pipeline', 'LoadUsers', '--date', '{DAY}'])"
    )
    assert run("python", "-c", code).returncode == 30
    (failure,) = read_failures("data", "users")
    assert failure.line == "ZeroDivisionError: a bug of two lines"


def test_secrets_of_the_section_are_masked(configure, monkeypatch):
    monkeypatch.setenv("A_TOKEN", "s3cr3t/token")
    configure("users", auth="bearer:A_TOKEN", url="http://me:p4ssword@host/x", headers='{"X-Key": "k3y-of-mine"}')
    failures.record_failure(USERS, DAY, "extract", "KeyError: s3cr3t%2Ftoken, p4ssword or k3y-of-mine")
    (failure,) = read_failures("data", "users")
    assert failure.line == "KeyError: ***, *** or ***"


def test_loaded_day_has_no_open_failure():
    """A failure after the load does not count. Every other day shows its newest failure."""
    at = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    hours = [at + dt.timedelta(hours=n) for n in range(4)]
    days = [DAY - dt.timedelta(days=n) for n in range(3)]
    noted = [Failure(hour, day, "extract", f"{hour} {day}") for day in days for hour in hours[:2]]
    markers = [make_marker(date=days[0], loaded_at=hours[3]), make_marker(date=days[1], loaded_at=hours[0])]
    assert select_open(noted, markers) == {days[2]: noted[5]}
    assert select_open(noted, []) == {days[2]: noted[5], days[1]: noted[3], days[0]: noted[1]}
    back = Failure(at - dt.timedelta(days=365), days[2], "extract", "what fails since the clock was set right")
    assert select_open([*noted, back], markers) == {days[2]: back}


def test_unusable_flag_fails_run_not_loaded_day(capsys):
    """The next run has nothing to do."""
    for flags, code in (((), 0), (("--users-timeout", "abc"), 40), ((), 0)):
        assert luigi_run("LoadUsers", "--date", str(DAY), *flags).returncode == code
    (failure,) = read_failures("data", "users")
    assert "timeout = 'abc'" in failure.line
    status, _, _ = run_here(capsys, "status", "--json")
    (users,) = json.loads(status)["datasets"]
    assert users["failed"] == []


def note_some(number: int) -> None:
    for n in range(20):
        failures.record_failure(USERS, DAY, "load", f"{number} {n} " + "x" * 300)


def test_concurrent_writers_lose_no_line():
    """Each writer waits for the lock."""
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(note_some, range(4))
    lines = {failure.line.rstrip("x") for failure in read_failures("data", "users")}
    assert lines == {f"{number} {n} " for number in range(4) for n in range(20)}


def test_size_of_the_file_is_bounded(monkeypatch):
    """A full file drops the older half of its lines. Long lines are truncated."""
    monkeypatch.setattr(failures, "MAX_BYTES", 20_000)
    for n in range(400):
        failures.record_failure(USERS, DAY, "load", f"{n} " + "x" * 10_000 * (n == 399))
        assert FILE.stat().st_size <= 20_000
    kept = [int(failure.line.split()[0]) for failure in read_failures("data", "users")]
    assert kept == list(range(kept[0], 400))
    assert len(kept) > 50 < kept[0]
    assert len(read_failures("data", "users")[-1].line) == failures.LONGEST


def test_last_line_cut_by_a_crash_is_dropped():
    """The other lines stay, and the next one is complete."""
    failures.record_failure(USERS, DAY, "load", "first")
    failures.record_failure(USERS, DAY, "load", "second")
    os.truncate(FILE, FILE.stat().st_size - 5)
    assert [failure.line for failure in read_failures("data", "users")] == ["first"]
    failures.record_failure(USERS, DAY, "load", "third")
    assert [failure.line for failure in read_failures("data", "users")] == ["first", "third"]


@pytest.mark.parametrize("content", [b"no JSON\n", b'{"line": "\xff"}\n'])
def test_damaged_file_is_an_error(content):
    """The next failure is recorded anyway."""
    FILE.parent.mkdir(parents=True)
    FILE.write_bytes(content)
    with pytest.raises(FolderError, match=r"cannot read the failures in data/failures/users.jsonl .*\. Move the file"):
        read_failures("data", "users")
    failures.record_failure(USERS, DAY, "load", "next")
    assert FILE.read_bytes().count(b"\n") == 2


def test_unwritable_folder_does_not_hide_the_failure():
    """The failure keeps its line and exit code. A warning says that it was not recorded."""
    Path("data").mkdir()
    Path("data/failures").write_text("a file where the folder should be")
    result = luigi_run("LoadUsers", "--date", str(DAY), *NOBODY)
    assert result.returncode == 30
    assert f"ERROR: ExtractUsers(date={DAY}) failed: users {DAY}: " in result.stderr
    assert f"WARNING: users {DAY}: cannot record the failure: " in result.stderr
    assert "Traceback" not in result.stderr
