"""Verify the numbered guarantees of the pipeline.

Each runs on the databases and with the files, in a folder or in a bucket, that can make a difference; with
PIPELINE_DATABASES=all on all of them. Tests of single modules are not repeated here.
"""

import datetime as dt
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import fs

from pipeline.users import USERS
from tests.support.bucket import Bucket
from tests.support.databases import DATABASES, ON_REQUEST
from tests.support.project import (
    dump_tree,
    dump_warehouse,
    execute,
    has_table,
    luigi_run,
    query,
    remove_warehouse,
    start,
)
from tests.support.server import Answer, Server
from wholeday.storage.names import strip_run
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("files"),
    pytest.mark.xdist_group("bucket"),  # one process imports moto
]

DAYS = [dt.date(2026, 10, 1) + dt.timedelta(days=n) for n in range(4)]
KILLS = int(os.environ.get("PIPELINE_KILLS", "3"))
URL = "demo://users?updated_since={day_start}&updated_before={day_stop}&per_day="


class Folder:
    """The files of days in a local folder."""

    def dump(self) -> dict[str, bytes]:
        """Every file, by path."""
        return {path.removeprefix("data/"): content for path, content in dump_tree("data").items() if is_of_a_day(path)}

    def remove(self, *stages: str) -> None:
        for stage in stages:
            shutil.rmtree(f"data/{stage}")


class Elsewhere:
    """The files of days in a bucket, without the names of runs."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket, self.place = bucket, bucket.make_place()

    def dump(self) -> dict[str, bytes]:
        """Every file, by path."""
        found = {key: content for key, content in self.bucket.dump(self.place).items() if is_of_a_day(key)}
        return {
            strip_run(key): strip_run(content.decode()).encode() if key.endswith("manifest.json") else content
            for key, content in found.items()
        }

    def remove(self, *stages: str) -> None:
        system, prefix = fs.FileSystem.from_uri(self.place)
        for stage in stages:
            system.delete_dir_contents(f"{prefix}/{stage}", missing_dir_ok=True)


def is_of_a_day(path: str) -> bool:
    return "/date=" in path


FOLDER, SERVER, BUCKET = ("sqlite", "folder"), ("postgresql", "folder"), ("sqlite", "bucket")


def on(*setups: tuple[str, str]) -> pytest.MarkDecorator:
    """Run a test with these kinds of databases and files, or with all of them on request."""
    everywhere = [FOLDER, SERVER, BUCKET, ("postgresql", "bucket")] if ON_REQUEST == DATABASES else setups
    return pytest.mark.parametrize("files", everywhere, indirect=True, ids=" ".join)


@pytest.fixture
def files(request: pytest.FixtureRequest, home: Path, configure: Callable[..., None]) -> Folder | Elsewhere:
    """Configure a database and a kind of data_dir. luigi.cfg names the same data_dir."""
    database, place = request.param
    if database == "postgresql":
        request.getfixturevalue("postgresql")
    if place == "folder":
        return Folder()
    there = Elsewhere(request.getfixturevalue("running"))
    text = (home / "luigi.cfg").read_text()
    (home / "luigi.cfg").write_text(text.replace("data_dir = data\n", f"data_dir = {there.place}\n"))
    configure("pipeline", data_dir=there.place)
    return there


@pytest.fixture
def transformed(configure, copy_or_make, files) -> None:  # noqa: ARG001 - it names the database
    """Extract and transform days of a demo source with many users that change more than once."""
    configure("users", url=URL + "100")

    def make() -> None:
        for day in DAYS:
            stages.extract(read_workspace(USERS), day)
            stages.transform(read_workspace(USERS), day)

    copy_or_make("promised", make)


@on(FOLDER, SERVER, BUCKET)
@pytest.mark.sweep
@pytest.mark.timeout(60 + 20 * KILLS)
def test_g1_marker_exists_exactly_with_all_rows(files):
    """Repeated SIGKILLs leave no partial day. A plain run completes the day."""
    day, flags = "2026-10-01", ("--users-url", URL + "2000", "--pipeline-part-records", "500")
    began = time.monotonic()
    assert luigi_run("LoadUsers", "--date", day, *flags).returncode == 0
    length = time.monotonic() - began
    whole, names = dump_warehouse(), set(files.dump())
    assert names
    throw_away(files)
    chance = random.Random(KILLS)
    for _ in range(KILLS if isinstance(files, Folder) else KILLS // 2):
        command = start("luigi", "--module", "pipeline", "LoadUsers", "--date", day, *flags)
        time.sleep(chance.uniform(0.2 * length, length))
        command.send_signal(signal.SIGKILL)
        command.communicate()
        # In one query, because a server may still commit for a killed client.
        counts = "select (select count(*) from loads), (select count(*) from users)"
        markers, rows = query(counts)[0] if has_table("loads") else (0, 0)
        assert rows == markers * len(whole["users"])
        if markers:
            throw_away(files)
    assert luigi_run("LoadUsers", "--date", day, *flags).returncode == 0
    assert dump_warehouse() == whole
    assert set(files.dump()) == names


def throw_away(files: Folder | Elsewhere) -> None:
    """Remove the files and the warehouse."""
    files.remove("raw", "clean")
    remove_warehouse()


@on(FOLDER, SERVER)
@pytest.mark.usefixtures("transformed")
def test_g2_load_order_and_repetition_do_not_matter():
    """The shuffled runs also load days again whose markers were deleted."""
    for day in DAYS:
        stages.load(read_workspace(USERS), day)
    straight, view = dump_warehouse(), query("select * from users_history order by 1, 2, 3, 4, 5, 6, 7")
    chance = random.Random(0)
    for _ in range(2):
        remove_warehouse()
        for day in chance.sample([*DAYS, *DAYS[:2]], len(DAYS) + 2):
            if has_table("loads"):
                execute(f"delete from loads where date = '{day}'")
            stages.load(read_workspace(USERS), day)
        assert dump_warehouse() == straight
        assert query("select * from users_history order by 1, 2, 3, 4, 5, 6, 7") == view


@on(FOLDER, SERVER)
@pytest.mark.usefixtures("transformed")
def test_g3_older_facts_never_overwrite_newer_ones():
    """The newest day is loaded first."""
    newest: dict[int, str] = {}
    for day in reversed(DAYS):
        stages.load(read_workspace(USERS), day)
        for user, updated_at in query("select user_id, updated_at from users"):
            assert updated_at >= newest.get(user, "")
            newest[user] = updated_at
    assert query("select count(*) from loads where superseded > 0")[0][0] > 0


@on(FOLDER, SERVER)
@pytest.mark.usefixtures("transformed")
def test_g4_each_extracted_record_has_one_count():
    """The counts add up in every marker, in any load order."""
    for day in [*DAYS[::2], *DAYS[1::2]]:
        stages.load(read_workspace(USERS), day)
    assert query(
        "select count(*) from loads where extracted = "
        "rejected + forgotten + duplicate + superseded + unchanged + inserted + updated + deleted"
    ) == [(len(DAYS),)]
    assert query("select sum(rejected) from loads") == query("select count(*) from rejects")
    assert query("select sum(rejected) > 0, sum(updated) > 0 from loads") == [(1, 1)]


@on(FOLDER)
def test_g5_incomplete_run_names_the_day_and_fails():
    """The other days are loaded. The next run requests the missing day only."""
    with Server() as server:
        bad = {"2026-11-02"}
        answer = {True: Answer(status=404), False: Answer([{"id": 1}])}
        url = server.on("/users", lambda request: answer[request.query["on"] in bad]) + "?on={date}"
        span = ("BackfillUsers", "--start", "2026-11-01", "--stop", "2026-11-04", "--users-url", url)
        result = luigi_run(*span)
        assert result.returncode == 30
        assert "ERROR: ExtractUsers(date=2026-11-02) failed: users 2026-11-02: " in result.stderr
        assert query("select date from loads order by 1") == [("2026-11-01",), ("2026-11-03",)]
        bad.clear()
        server.requests.clear()
        assert luigi_run(*span).returncode == 0
        assert [request.query["on"] for request in server.requests] == ["2026-11-02"]


@on(FOLDER, BUCKET)
def test_g6_raw_files_suffice_and_never_change(files):
    """A run restores the same clean files and tables from raw files alone."""
    span = ("BackfillUsers", "--start", "2026-10-01", "--stop", "2026-10-03", "--pipeline-part-records", "40")
    assert luigi_run(*span).returncode == 0
    before, rows = files.dump(), dump_warehouse()
    assert len([path for path in before if "/part-" in path]) == 2 * len(rows["loads"]) * 3
    files.remove("clean")
    remove_warehouse()
    assert luigi_run(*span, "--users-url", "http://127.0.0.1:9/nobody-listens").returncode == 0
    assert (files.dump(), dump_warehouse()) == (before, rows)


@pytest.mark.parametrize(
    ("files", "auth"),
    [(FOLDER, "bearer:USERS_API_TOKEN"), (BUCKET, "header:X-Api-Key:USERS_API_TOKEN")],
    indirect=["files"],
    ids=["bearer", "header"],
)
def test_g8_secrets_are_never_stored_or_logged(auth, files):
    """A failed and a successful run at level DEBUG send the token only to the source."""
    token = "s3cr3t-t0k3n-of-the-api"
    with Server() as server:
        echo = {"error": f"{token} is not welcome"}
        url = server.on("/users", Answer(echo, status=401), Answer([{"id": 1, "name": "x"}]))
        flags = ("--users-url", url, "--users-auth", auth, "--log-level", "DEBUG")
        results = [luigi_run("LoadUsers", "--date", "2026-10-01", *flags, USERS_API_TOKEN=token) for _ in range(2)]
        assert [result.returncode for result in results] == [30, 0]
        assert all(any(token in value for value in request.headers.values()) for request in server.requests)
    for result in results:
        assert token not in result.stdout + result.stderr
    for path, content in (dump_tree(".") | files.dump()).items():
        assert token.encode() not in content, path
    assert "is not welcome" not in results[0].stderr
