"""What the pipeline promises, each promise by its number; what a module's own tests show is not repeated here."""

import datetime as dt
import os
import random
import shutil
import signal
import time

import pytest

from conftest import dump_tree, dump_warehouse, execute, has_table, luigi_run, query, remove_warehouse, start
from pipeline import extraction, stages
from pipeline.users import USERS
from server import Answer, Server

pytestmark = pytest.mark.usefixtures("database")

DAYS = [dt.date(2026, 10, 1) + dt.timedelta(days=n) for n in range(6)]
KILLS = int(os.environ.get("PIPELINE_KILLS", "5"))
URL = "demo://users?updated_since={day_start}&updated_before={day_stop}&per_day="


def make_files(configure, days=DAYS, per_day=600) -> None:
    """Raw and clean folders of some days of a demo source in which many users change more than once."""
    configure("users", url=URL + str(per_day))
    for day in days:
        extraction.extract_day(USERS, day)
        stages.transform_day(USERS, day)


@pytest.mark.timeout(60 + 20 * KILLS)
def test_g1_a_marker_is_there_if_and_only_if_all_rows_are(database):
    """SIGKILL at any instant of a run, time and again: no half a day; then a plain run completes it."""
    day, flags = "2026-10-01", ("--users-url", URL + "20000", "--pipeline-part-records", "4000")
    began = time.monotonic()
    assert luigi_run("LoadUsers", "--date", day, *flags).returncode == 0
    length = time.monotonic() - began
    whole, files = dump_warehouse(), set(dump_tree("data/raw") | dump_tree("data/clean"))
    throw_away()
    chance = random.Random(KILLS)
    for _ in range(KILLS if database == "sqlite" else KILLS // 2):
        command = start("luigi", "--module", "pipeline", "LoadUsers", "--date", day, *flags)
        time.sleep(chance.uniform(0.2 * length, length))
        command.send_signal(signal.SIGKILL)
        command.communicate()
        # In one query: a server may be about to commit for a client that is gone.
        counts = "select (select count(*) from loads), (select count(*) from users)"
        markers, rows = query(counts)[0] if has_table("loads") else (0, 0)
        assert rows == markers * len(whole["users"])
        if markers:
            throw_away()
    assert luigi_run("LoadUsers", "--date", day, *flags).returncode == 0
    assert dump_warehouse() == whole
    assert set(dump_tree("data/raw") | dump_tree("data/clean")) == files


def throw_away() -> None:
    """Have neither files nor a warehouse."""
    shutil.rmtree("data")
    remove_warehouse()


@pytest.mark.parametrize("seed", range(3))
def test_g2_any_order_and_repetition_of_days_gives_the_same_warehouse(configure, seed):
    """The same files, loaded straight, and loaded shuffled with days again whose markers were deleted."""
    make_files(configure)
    for day in DAYS:
        stages.load_day(USERS, day)
    straight, view = dump_warehouse(), query("select * from users_history order by 1, 2, 3, 4, 5, 6, 7")
    remove_warehouse()
    chance = random.Random(seed)
    for day in chance.sample([*DAYS, *chance.sample(DAYS, 3)], len(DAYS) + 3):
        if has_table("loads"):
            execute(f"delete from loads where date = '{day}'")
        stages.load_day(USERS, day)
    assert dump_warehouse() == straight
    assert query("select * from users_history order by 1, 2, 3, 4, 5, 6, 7") == view


def test_g3_an_older_fact_never_overwrites_a_newer_one(configure):
    """The newest day first: no user goes back when the older days come."""
    make_files(configure)
    newest: dict[int, str] = {}
    for day in reversed(DAYS):
        stages.load_day(USERS, day)
        for user, updated_at in query("select user_id, updated_at from users"):
            assert updated_at >= newest.get(user, "")
            newest[user] = updated_at
    assert query("select count(*) from loads where stale > 0")[0][0] > 0


def test_g4_every_extracted_record_is_in_exactly_one_count(configure):
    """In every marker, whatever the order of loading."""
    make_files(configure)
    for day in [*DAYS[::2], *DAYS[1::2]]:
        stages.load_day(USERS, day)
    assert query(
        "select count(*) from loads where extracted = "
        "rejected + forgotten + duplicate + stale + unchanged + inserted + updated + deleted"
    ) == [(len(DAYS),)]
    assert query("select sum(rejected) from loads") == query("select count(*) from rejects")
    assert query("select sum(rejected) > 0, sum(updated) > 0 from loads") == [(1, 1)]


def test_g5_a_run_that_leaves_a_day_undone_says_which_and_exits_non_zero():
    """The days around it are loaded; the next run does the missing one only."""
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


def test_g6_raw_is_never_changed_and_is_enough():
    """Clean files and warehouse thrown away: made again from raw with the source out of reach, alike."""
    span = ("BackfillUsers", "--start", "2026-10-01", "--stop", "2026-10-04")
    assert luigi_run(*span).returncode == 0
    raw, clean, rows = dump_tree("data/raw"), dump_tree("data/clean"), dump_warehouse()
    shutil.rmtree("data/clean")
    remove_warehouse()
    assert luigi_run(*span, "--users-url", "http://127.0.0.1:9/nobody-listens").returncode == 0
    assert (dump_tree("data/raw"), dump_tree("data/clean"), dump_warehouse()) == (raw, clean, rows)


@pytest.mark.parametrize(
    "auth", ["bearer:USERS_API_TOKEN", "header:X-Api-Key:USERS_API_TOKEN"], ids=["bearer", "header"]
)
def test_g8_a_secret_is_in_no_log_file_table_or_error(auth):
    """A run that fails and one that succeeds, at log level DEBUG: the token goes to the source, and nowhere else."""
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
    for path, content in dump_tree(".").items():
        assert token.encode() not in content, path
    assert "*** is not welcome" in results[0].stderr
