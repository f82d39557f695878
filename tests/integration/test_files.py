"""Test local files and folders: permissions, temporary files and locks."""

import datetime as dt
import errno
import fcntl
import multiprocessing
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from pipeline.users import USERS, ExtractUsers
from tests.support.project import luigi_run, run, run_here, run_stages
from wholeday.errors import FolderError, WarehouseError
from wholeday.load.database import find_database
from wholeday.storage.local import LocalStorage
from wholeday.tasks import failures

DAY = "2026-11-20"
PARTS = ("--pipeline-part-records", "10")  # small parts, so that worker processes start
FAILING = ("--users-url", "http://127.0.0.1:9/x", "--users-retries", "0")
PAGE = Path("data/report.html")


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Set the umask of most systems."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def list_modes(kind: str) -> dict[str, str]:
    """List the modes of all files, or of all folders, in `data`, including `data` itself."""
    paths = [Path("data"), *Path("data").rglob("*")]
    return {
        str(path): oct(stat.S_IMODE(path.stat().st_mode)) for path in paths if kind == ("d" if path.is_dir() else "f")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "file", "folder"),
    [(PARTS, "0o600", "0o700"), (("--pipeline-file-mode", "umask"), "0o644", "0o755")],
    ids=["private", "umask"],
)
def test_file_mode_sets_the_permissions_of_all_files(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], file: str, folder: str
) -> None:
    """By default only the owner may read them: days, the database, locks, failures, tombstones and the report."""
    assert luigi_run("LoadUsers", "--date", DAY, *flags).returncode == 0
    assert luigi_run("LoadUsers", "--date", "2026-11-21", *FAILING, *flags).returncode == 30
    for command in (["forget", "users", "42", "--yes", "--unknown"], ["report"]):
        assert run_here(capsys, *command, *flags)[2] == 0
    with closing(sqlite3.connect("data/warehouse.db", isolation_level=None)) as db:
        db.execute("begin immediate")
        db.execute("update loads set seconds = 1")
        files = list_modes("f")
    assert set(files.values()) == {file}
    assert set(list_modes("d").values()) == {folder}
    names = {Path(path).name for path in files}
    assert {"warehouse.db", "warehouse.db-wal", "warehouse.db-shm", ".lock", "users.jsonl", "report.html"} <= names


def write_page(letter: str, start: Barrier) -> None:
    """Wait for all processes, then write the report many times, filled with one letter."""
    storage = LocalStorage("data")
    start.wait(60)
    for _ in range(30):
        storage.replace(storage.root / "report.html", letter.encode() * 200_000)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork with threads: the children use none
def test_concurrent_writers_share_no_temporary_file() -> None:
    """A reader always sees a complete file from one writer, and no process fails."""
    LocalStorage("data").make_folder(Path("data"))
    context = multiprocessing.get_context("fork")
    together = context.Barrier(3)
    processes = [context.Process(target=write_page, args=(letter, together)) for letter in "abc"]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        if PAGE.exists():
            content = PAGE.read_bytes()
            assert content == content[:1] * 200_000
        time.sleep(0.001)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert list(Path("data").iterdir()) == [PAGE]


def test_old_temporary_files_are_deleted_after_a_day() -> None:
    """Recent ones stay, because a process may still be writing them."""
    storage = LocalStorage("data")
    storage.replace(storage.root / "report.html", b"x")
    old, young, other = (
        Path(f"data/{name}") for name in ("report.html.0123456789ab.new", "report.html.ba9876543210.new", "a.new")
    )
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    storage.replace(storage.root / "report.html", b"y")
    assert sorted(Path("data").iterdir()) == sorted([PAGE, young, other])


@pytest.mark.slow
def test_forget_deletes_temporary_files(capsys: pytest.CaptureFixture[str]) -> None:
    """Killed processes leave temporary files of failures, alerts and the report, which may quote a person."""
    failures.record_failure(USERS, dt.date(2026, 11, 21), "load", "Jane Hidden")
    run_stages(USERS, dt.date.fromisoformat(DAY))
    for name in ("report.html", "failures/users.jsonl", "failures/users.alerts.jsonl"):
        for temporary in (f"{name}.new", f"{name}.0123456789ab.new"):
            Path("data", temporary).write_text("Jane Hidden")
    assert run_here(capsys, "forget", "users", "42", "--yes", "--unknown")[2] == 0
    left = [str(path) for path in Path("data").rglob("*") if path.is_file() and b"Jane Hidden" in path.read_bytes()]
    assert left == []
    assert not list(Path("data").rglob("*.new"))


@pytest.mark.parametrize("code", ["ENOLCK", "ENOTSUP", "ENOSYS", "EACCES", "EIO"])
def test_refused_lock_fails_with_one_line(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """This applies to locks of a day and of a shared file."""
    storage = LocalStorage("data")
    storage.make_folder(storage.root / "raw")
    refuse_locks(monkeypatch, code)
    with pytest.raises(
        FolderError, match=r"data/\.lock: this file system cannot lock files .* move \[pipeline\] data_dir"
    ):
        storage.lock(storage.root / "raw", 1).__enter__()
    with pytest.raises(FolderError, match=r"data/raw/\.lock: this file system cannot lock files"):
        storage.hold(storage.root / "raw" / ".lock").__enter__()


@pytest.mark.parametrize(
    "command",
    [
        ["reprocess", DAY, "2026-11-21", "--all"],
        ["rebuild"],
        ["prune", "--older-than", "1", "--keep", "0", "--yes"],
        ["forget", "users", "42", "--yes", "--unknown"],
    ],
    ids=lambda words: words[0],
)
def test_commands_without_locks_name_the_key_to_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """The command fails with one line."""
    ExtractUsers(date=dt.date.fromisoformat(DAY)).run()
    refuse_locks(monkeypatch, "ENOLCK")
    _, error, exit_code = run_here(capsys, *command)
    assert exit_code == 1
    assert "move [pipeline] data_dir to one that can" in error
    assert error.count("cannot lock files") == len(error.splitlines()) == 1


def refuse_locks(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Make every request for a lock fail with this error."""

    def refuse(*_: object) -> None:
        number = getattr(errno, code)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)


NO_LOCKS = """
import errno, fcntl, os, sys
def refuse(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.lockf = fcntl.flock = refuse
from luigi.cmdline import luigi_run
luigi_run(["--module", "pipeline", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_load_without_locks_fails_with_one_line() -> None:
    """The failure cannot be recorded either, but that adds no second line."""
    result = run("python", "-c", NO_LOCKS, "LoadUsers", "--date", DAY)
    assert result.returncode == 30
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        f"ERROR: ExtractUsers(date={DAY}) failed: data/raw/users/.lock: this file system cannot lock"
    )


def test_database_without_locks_fails_with_one_line() -> None:
    """SQLite reports a refused lock as an I/O error."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_LOCK
    database = find_database("sqlite:///data/warehouse.db")
    with (
        pytest.raises(WarehouseError, match=r"the file system cannot lock files: move the database"),
        database.connect(create=True),
    ):
        raise error
