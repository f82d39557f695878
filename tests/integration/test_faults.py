"""Test common faults of sources and disks from end to end.

Every test runs the stages of a day against a server on loopback. A day fails with one line, and the warehouse does not
change until the day is complete. The tests of each module cover these and more faults in detail. test_storage.py covers
the faults of disks by other means: file systems that it mounts.
"""

import contextlib
import datetime as dt
import re
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.users import USERS
from tests.support.project import dump_warehouse, query, run, run_stages
from tests.support.reading import DAY
from tests.support.server import Answer, Server
from wholeday.config.pipeline import Pipeline
from wholeday.errors import SourceError
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.targets import LoadMarker

TOKEN = "t0k3n-of-the-source"


def make_users(first: int, last: int) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"User {number}", "email": f"{number}@example.com"} for number in range(first, last)]


@pytest.fixture(autouse=True)
def _loaded(server: Server, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Load users 1 to 4 for the day before. The source requires a token; the client makes at most three attempts."""
    monkeypatch.setenv("USERS_API_TOKEN", TOKEN)
    url = server.on("/users", Answer(make_users(1, 5)))
    configure("users", url=url, auth="bearer:USERS_API_TOKEN", retries=2)
    work(DAY - dt.timedelta(days=1))


def work(day: dt.date = DAY) -> None:
    """Run all stages of a day."""
    run_stages(USERS, day)


def list_users() -> list[int]:
    return [user for (user,) in query("select user_id from users order by 1")]


TROUBLES = {
    "connection reset": (Answer(reset=True), "failed after 3 attempts"),
    "truncated body": (Answer(make_users(1, 200), cut=500), "failed after 3 attempts"),
    "refused request": (Answer({"message": TOKEN}, status=401), "401 Unauthorized"),
    "an HTML page": (Answer("<!doctype html><title>Log in</title>"), "HTML"),
    "a missing page": (Answer(make_users(5, 7), headers={"Link": "</two>; rel=next"}), "/two: 404"),
    "too few records": (Answer(make_users(5, 7), headers={"X-Total-Count": "9"}), "9"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_fault_of_the_source_fails_the_day(server: Server, trouble: str) -> None:
    """The day has no raw files and no marker, and the warehouse does not change. Once the source recovers, it loads."""
    answer, words = TROUBLES[trouble]
    server.on("/users", answer)
    before = dump_warehouse()
    with pytest.raises(SourceError) as caught:
        work()
    line = str(caught.value)
    assert words in line
    assert str(DAY) in line
    assert "\n" not in line
    assert TOKEN not in line
    assert dump_warehouse() == before
    assert not LoadMarker(Pipeline().database, USERS.name, DAY).exists()
    assert not read_workspace(USERS).folder("raw", DAY).exists()
    server.on("/users", Answer(make_users(5, 7)))
    work()
    assert list_users() == list(range(1, 7))


# Python that runs before the command: limit the size of files, or drop the privileges of root.
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
NO_ROOT = "import ctypes; os.geteuid() or [ctypes.CDLL(None).prctl(24, cap) for cap in (1, 2)]"  # CAP_DAC_OVERRIDE


def fail_command(before: str) -> str:
    """Run some Python, then `luigi LoadUsers` in the same process. Return the one error line."""
    luigi, section = str(Path(sys.executable).with_name("luigi")), USERS.config()
    command = [luigi, "--module", "pipeline", "LoadUsers", "--date", str(DAY), "--users-url", section.url]
    result = run("python", "-c", f"import os; {before}; os.execv({luigi!r}, {command!r})")
    assert result.returncode in (30, 35), result.stderr
    assert "Traceback" not in result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("ERROR"))
    assert f"Users(date={DAY})" in line
    return line


def finish() -> None:
    """Run the day again without the fault. It must load the day."""
    work()
    assert list_users() == list(range(1, 300))


@pytest.mark.slow
def test_full_disk_fails_and_loses_nothing(server: Server) -> None:
    """No raw files and no rows are written until there is space again."""
    server.on("/users", Answer(make_users(5, 300)))
    before = dump_warehouse()
    with contextlib.closing(sqlite3.connect("data/warehouse.db")) as db:
        db.execute("select * from loads")  # keeps the shared-memory file, which could not be created under the limit
        line = fail_command(FULL)
    assert f"raw/users/date={DAY}/part-00000.jsonl.gz: File too large: check disk space" in line
    assert dump_warehouse() == before
    assert not read_workspace(USERS).folder("raw", DAY).exists()
    finish()


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["data/raw/users", "data/clean/users", "data"])
def test_read_only_folder_fails_and_loses_nothing(server: Server, folder: str) -> None:
    """The folder holds raw files, clean files or the warehouse."""
    server.on("/users", Answer(make_users(5, 300)))
    before = dump_warehouse()
    paths = [Path(folder), *Path(folder).glob("*.db*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    line = fail_command(NO_ROOT)
    assert re.search("Permission denied: .*permissions.* run again|the right to write.* and run again", line)
    for path in paths:
        path.chmod(0o755)
    assert dump_warehouse() == before
    finish()
