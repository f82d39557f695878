"""Full or read-only disks, and databases that are locked, damaged, incomplete or another program's.

Every case fails with one line and loses no data. Once the cause is fixed, a plain run completes the day. The disks are
file systems that a test mounts. Where mounting is not allowed the test is skipped. test_faults.py covers the same
faults by other means: a limit on file sizes, and folders without permissions.
"""

import contextlib
import datetime as dt
import os
import re
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.users import USERS, ExtractUsers, LoadUsers, TransformUsers
from tests.support import points
from tests.support.points import Points
from tests.support.project import dump_tree, dump_warehouse, execute
from wholeday.errors import WarehouseError
from wholeday.load import sqlite
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

BEFORE, DAY = dt.date(2026, 10, 30), dt.date(2026, 10, 31)
URL = "demo://users?updated_since={day_start}&updated_before={day_stop}&per_day=300"
DATABASE = Path("data/warehouse.db")

Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def whole(configure: Callable[..., None], copy_or_make: Callable[..., None]) -> Rows:
    """Load the day before. Return the tables as they should be once the next day is loaded."""
    configure("users", url=URL)
    configure("pipeline", engine_workers=1)
    copy_or_make("storage before", lambda: work(BEFORE))
    Path("aside").mkdir()
    with contextlib.chdir("aside"):
        copy_or_make("storage", lambda: [shutil.copytree("../data", "data"), work()])
        return dump_warehouse()


def work(day: dt.date = DAY) -> None:
    """Run the incomplete tasks of a day, as Luigi does."""
    for task in (ExtractUsers(date=day), TransformUsers(date=day), LoadUsers(date=day)):
        if not task.complete():
            task.run()


def fail() -> str:
    """Run the day and return its one line of error."""
    code, said = points.run(work, Points())
    assert (code, len(said)) == (1, 1), said
    return said[0]


def finish(before: Rows, whole: Rows) -> None:
    """Check that nothing was lost, and that a plain run completes the day."""
    assert dump_warehouse() == before
    work()
    assert dump_warehouse() == whole
    assert list_files("data") == {path.removeprefix("aside/") for path in list_files("aside/data")}


def list_files(folder: str) -> set[str]:
    """List the files below a folder, except records of failures."""
    return {path for path in dump_tree(folder) if "/failures/" not in path}


@contextlib.contextmanager
def mount(*options: str, folder: str) -> Iterator[None]:
    """Mount a file system over a folder for the duration of a `with`."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a file system")
    done = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def measure_room() -> int:
    """Return the free bytes on the disk of the data folder."""
    disk = os.statvfs("data")
    return disk.f_bavail * disk.f_frsize


def test_full_disk_is_one_line_and_loses_nothing(whole: Rows) -> None:
    """The disk has room for nothing, for the raw files, for the clean files, or for most of the rows.

    Without any room the warehouse fails first: Extract reads the source of the previous day from it.
    """
    before, told = dump_warehouse(), []
    Path("data").rename("kept")
    Path("data").mkdir()
    with mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", folder="data"):
        shutil.copytree("kept", "data", dirs_exist_ok=True)
        room = measure_room()
        work()
        needed = room - measure_room()
        for eighths in range(8):
            for path in Path("data").iterdir():
                path.unlink() if path.is_file() else shutil.rmtree(path)
            shutil.copytree("kept", "data", dirs_exist_ok=True)
            filler = Path("data/filler")
            filler.write_bytes(bytes(measure_room() - eighths * needed // 8))
            told.append(fail())
            filler.unlink()
            finish(before, whole)
    stages_told = [re.search(r"data/(raw|clean|warehouse)", line)[1] for line in told]
    assert stages_told[0] == stages_told[-1] == "warehouse"
    assert "clean" in stages_told, told
    reasons = r"No space left on device: check disk space|is full: free space|disk I/O error"
    assert all(re.search(reasons, line) for line in told)


@pytest.mark.parametrize("place", ["data", "data/raw/users", "data/clean/users", "data/warehouse.db"])
def test_readonly_disk_is_one_line_and_loses_nothing(whole: Rows, place: str) -> None:
    """Covers all data, the files of one stage, and the database alone."""
    before = dump_warehouse()
    with mount("-o", "bind,ro", place, folder=place):
        line = fail()
    assert re.search("Read-only file system: check disk space|readonly database: give this user the right", line)
    finish(before, whole)


def make_files() -> None:
    """Create the raw and clean files of the day, without loading it."""
    ExtractUsers(date=DAY).run()
    TransformUsers(date=DAY).run()


@contextlib.contextmanager
def lock() -> Iterator[sqlite3.Connection]:
    """Hold an exclusive lock, as another program would, on a database without a write-ahead log."""
    with contextlib.closing(sqlite3.connect(DATABASE, isolation_level=None, check_same_thread=False)) as other:
        other.execute("pragma journal_mode = delete")
        other.execute("begin exclusive")
        yield other


def test_locked_database_is_one_line_and_loses_nothing(whole: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exclusive lock blocks reads as well. The files of the day stay."""
    before = dump_warehouse()
    monkeypatch.setattr(sqlite.connection, "BUSY_SECONDS", 0.2)
    make_files()
    with lock(), pytest.raises(WarehouseError, match=r"locked: another program is writing to it: wait .* run again$"):
        stages.load(read_workspace(USERS), DAY)
    finish(before, whole)


def test_load_waits_for_an_exclusive_lock(whole: Rows) -> None:
    make_files()
    with lock() as other:
        ending = threading.Event()

        def release() -> None:
            ending.set()
            other.rollback()

        threading.Timer(0.3, release).start()
        stages.load(read_workspace(USERS), DAY)
        assert ending.is_set()
    assert dump_warehouse() == whole


def write_text() -> None:
    DATABASE.write_text("truck;tons\n" * 1000)


def damage() -> None:
    content = DATABASE.read_bytes()
    DATABASE.write_bytes(content[:4096] + b"\xff" * 16384 + content[20480:])


def cut() -> None:
    os.truncate(DATABASE, 3 * 4096)


def replace_by_folder() -> None:
    DATABASE.unlink()
    DATABASE.mkdir()


def lead_nowhere() -> None:
    DATABASE.unlink()
    DATABASE.symlink_to("nowhere/else.db")


def replace_by(statement: str) -> Callable[[], None]:
    """Return a function that replaces the database by another program's."""

    def replace() -> None:
        DATABASE.unlink()
        execute(statement)

    return replace


def drop(table: str) -> Callable[[], None]:
    """Return a function that drops a table of a loaded day, but keeps the marker."""
    return lambda: execute("drop view users_history", f"drop table {table}")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        pytest.param(write_text, "not a SQLite database: choose another file$", id="a text file"),
        pytest.param(damage, "malformed: the file is damaged: restore it", id="damaged"),
        pytest.param(cut, "malformed: the file is damaged: restore it", id="cut"),
        pytest.param(replace_by_folder, "unable to open database file: it must be a file", id="a folder"),
        pytest.param(lead_nowhere, "unable to open database file: it must be a file", id="a link to nowhere"),
        pytest.param(
            replace_by("create table loads (truck text)"),
            "the table loads has no column dataset, .* a column truck too many, .* or choose another database",
            id="another's loads",
        ),
        pytest.param(
            replace_by("create table rejects (id text)"), "table rejects has no column", id="another's rejects"
        ),
        pytest.param(
            replace_by("create table users (name text)"),
            "there is no table _users_past, .*: if they are another program's, choose another database",
            id="another's users",
        ),
        pytest.param(
            replace_by("create view users as select 1 as user_id"),
            "there is no table _users_past, .*: if they are another program's, choose another database",
            id="another's view",
        ),
        *(
            pytest.param(drop(table), f"there is no table {table}, but .* restore it, or drop", id=f"no {table}")
            for table in (
                "_users_past",
                "_users_days",
                "_users_events",
                "_users_changes",
                "_users_forgotten",
                "rejects",
            )
        ),
    ],
)
def test_unusable_database_is_one_line_and_not_changed(whole: Rows, trouble: Callable[[], None], words: str) -> None:
    """After the original database is restored, the day is loaded."""
    before = dump_warehouse()
    shutil.copy(DATABASE, "kept.db")
    trouble()
    found = DATABASE.read_bytes() if DATABASE.is_file() else b""
    assert re.search(words, fail())
    assert (DATABASE.read_bytes() if DATABASE.is_file() else b"") == found
    for path in Path("data").glob("warehouse.db*"):
        path.rmdir() if path.is_dir() else path.unlink()
    shutil.copy("kept.db", DATABASE)
    finish(before, whole)
