"""The command people run: `luigi --module pipeline …`, in a process of its own, against real parts."""

import datetime as dt
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.project import (
    ask_scheduler,
    dump_tree,
    dump_warehouse,
    luigi_run,
    need,
    query,
    run,
    start,
    start_scheduler,
)
from tests.support.reading import make_user
from tests.support.server import Answer, Request, Server

pytestmark = pytest.mark.slow

DAY = "2026-11-20"
LOAD = ("LoadUsers", "--date", DAY)


def error_lines(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("ERROR")]


def test_a_day_is_loaded_and_the_second_run_does_nothing():
    """Raw, clean, rows and marker; then exit 0 at once, with no file touched and no row changed."""
    first = luigi_run(*LOAD)
    assert first.returncode == 0, first.stderr
    assert query("select dataset, date, mode, extracted from loads") == [("users", DAY, "incremental", 100)]
    files, rows = dump_tree("data/raw") | dump_tree("data/clean"), dump_warehouse()
    second = luigi_run(*LOAD)
    assert second.returncode == 0, second.stderr
    assert second.stdout == "INFO: nothing to do: all requested tasks are complete\n"
    assert (dump_tree("data/raw") | dump_tree("data/clean"), dump_warehouse()) == (files, rows)


def test_finding_that_nothing_is_to_be_done_imports_none_of_the_heavy_libraries():
    """No pandas, pyarrow or SQLAlchemy, and less than a second and a half of process time."""
    luigi_run(*LOAD)
    code = (
        "import sys, time, atexit; from luigi.cmdline import luigi_run\n"
        "heavy = {'pandas', 'pyarrow', 'sqlalchemy', 'numpy', 'rich'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), time.process_time()))\n"
        f"luigi_run(['--module', 'pipeline', 'LoadUsers', '--date', '{DAY}'])"
    )
    again = run("python", "-c", code)
    assert again.returncode == 0, again.stderr
    modules, seconds = again.stdout.splitlines()[-1].split("] ")
    assert modules == "["
    assert float(seconds) < 1.5


def test_a_deleted_marker_loads_again_from_the_clean_files():
    """The API is not asked, no file is written, and no row is inserted or updated."""
    luigi_run(*LOAD)
    files, rows = dump_tree("data/raw") | dump_tree("data/clean"), dump_warehouse()
    run(
        "python",
        "-c",
        "import sqlite3; db = sqlite3.connect('data/warehouse.db'); db.execute('delete from loads'); db.commit()",
    )
    again = luigi_run(*LOAD, "--users-url", "http://127.0.0.1:9/nobody-listens")
    assert again.returncode == 0, again.stderr
    assert query("select inserted, updated, deleted from loads") == [(0, 0, 0)]
    assert (dump_tree("data/raw") | dump_tree("data/clean"), dump_warehouse()) == (files, rows)


def test_a_clean_day_made_again_from_the_same_raw_day_is_the_same_to_the_byte():
    """Nothing in it comes from the clock, the machine or chance; the API is not asked."""
    day = "2026-11-19"  # it has a reject
    luigi_run("TransformUsers", "--date", day)
    before = dump_tree("data/clean")
    shutil.rmtree("data/clean")
    again = luigi_run("TransformUsers", "--date", day, "--users-url", "http://127.0.0.1:9/nobody-listens")
    assert again.returncode == 0, again.stderr
    assert dump_tree("data/clean") == before
    names = [Path(name).name for name in before]
    assert names == [".lock", "manifest.json", "part-00000.parquet", "rejects-00000.jsonl.gz"]


def test_without_a_date_the_last_closed_day_is_loaded():
    """What a cron line wants to say."""
    result = luigi_run("LoadUsers")
    assert result.returncode == 0, result.stderr
    now = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=15)
    assert query("select date from loads") == [(str(now.date() - dt.timedelta(days=1)),)]


def test_a_day_with_nothing_new_loads_no_row_and_is_marked_and_a_changed_user_is_updated_once():
    """Incremental: what is new is inserted, what is not there is not missed, what changed is changed once."""
    days = {
        "2026-11-18": [make_user(1, "2026-11-18T09:00:00Z"), make_user(2, "2026-11-18T10:00:00Z")],
        "2026-11-19": [],
        "2026-11-20": [make_user(2, "2026-11-20T08:00:00Z", name="Changed")],
    }
    with Server() as server:
        url = server.on("/users", lambda request: Answer(days[request.query["on"]])) + "?on={date}"
        for day in days:
            assert luigi_run("LoadUsers", "--date", day, "--users-url", url).returncode == 0
    assert query("select date, extracted, inserted, updated, unchanged, superseded from loads order by date") == [
        ("2026-11-18", 2, 2, 0, 0, 0),
        ("2026-11-19", 0, 0, 0, 0, 0),
        ("2026-11-20", 1, 0, 1, 0, 0),
    ]
    assert query("select user_id, name, email, load_date from users") == [
        (1, "User 1", "u1@example.com", "2026-11-18"),
        (2, "Changed", "u2@example.com", "2026-11-20"),
    ]


def test_the_window_of_the_day_is_asked_for_with_one_unit_to_spare_below():
    """A filter that excludes its lower bound loses nothing, and the end of a day is the start of the next."""
    with Server() as server:
        url = server.on("/users", Answer([])) + "?from={day_start}&to={day_stop}&epoch={day_start:epoch}"
        luigi_run(*LOAD, "--users-url", url, "--users-timezone", "Europe/Berlin")
        assert server.requests[0].query == {
            "from": "2026-11-19T22:59:59Z",
            "to": "2026-11-20T23:00:00Z",
            "epoch": "1795129199",
        }


def test_the_watermark_is_the_highest_update_loaded_before_less_one_unit():
    """The first day asks from 1970 on; a later one from what earlier days brought; an earlier one is not misled."""
    with Server() as server:
        days = {
            "2026-11-18": [make_user(1, "2026-11-18T09:00:00.750Z")],
            "2026-11-20": [make_user(1, "2026-11-20T11:00:00Z")],
        }
        server.on("/users", lambda request: Answer(days.get(request.query["on"], [])))
        url = server.url + "/users?on={date}&since={watermark}&ms={watermark:epoch_ms}"
        for day in ("2026-11-18", "2026-11-20", "2026-11-19"):
            assert luigi_run("LoadUsers", "--date", day, "--users-url", url).returncode == 0
        asked = {request.query["on"]: request.query for request in server.requests}
    assert asked["2026-11-18"]["since"] == "1970-01-01T00:00:00Z"
    assert asked["2026-11-20"]["since"] == "2026-11-18T08:59:59Z"
    assert asked["2026-11-20"]["ms"] == str(
        int(dt.datetime.fromisoformat("2026-11-18T09:00:00.749Z").timestamp() * 1000)
    )
    assert asked["2026-11-19"]["since"] == "2026-11-18T08:59:59Z"


def test_with_a_watermark_the_days_of_a_backfill_run_in_order_whatever_the_workers():
    """Each day starts from what the day before it brought."""
    with Server() as server:
        server.on("/users", lambda request: Answer([make_user(1, request.query["on"] + "T10:00:00Z")], wait=0.2))
        url = server.url + "/users?on={date}&since={watermark:date}"
        result = luigi_run(
            "BackfillUsers", "--start", "2026-11-10", "--stop", "2026-11-14", "--workers", "3", "--users-url", url
        )
        assert result.returncode == 0, result.stderr
        assert [(request.query["on"], request.query["since"]) for request in server.requests] == [
            ("2026-11-10", "1970-01-01"),
            ("2026-11-11", "2026-11-09"),
            ("2026-11-12", "2026-11-10"),
            ("2026-11-13", "2026-11-11"),
        ]


def test_a_server_that_fails_once_does_not_fail_the_day():
    """503, then the answer: one more request, and the run succeeds."""
    with Server() as server:
        url = server.on("/users", Answer(status=503), Answer([make_user(1)]))
        result = luigi_run(*LOAD, "--users-url", url)
        assert result.returncode == 0, result.stderr
        assert len(server.requests) == 2
    assert query("select count(*) from users") == [(1,)]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (Answer(status=500), "500 Internal Server Error"),
        (Answer(status=404), "404 Not Found"),
        (Answer("<html>sorry</html>"), "HTML"),
        (Answer({"ok": False}), "reports a failure"),
        (Answer(b""), "empty"),
        (Answer([make_user(n, id="x") for n in range(3)]), "3 of 3 records are rejected"),
    ],
    ids=["500", "404", "html", "not-ok", "empty", "all-rejected"],
)
def test_a_source_that_fails_or_sends_garbage_is_one_line_and_changes_nothing(server, answer, line):
    """Non-zero exit, one line that names task and cause, no day of files made of it, the warehouse as it was."""
    good = Answer([make_user(1, "2026-11-19T10:00:00Z")])
    url = server.on("/users", good)
    assert luigi_run("LoadUsers", "--date", "2026-11-19", "--users-url", url).returncode == 0
    before = dump_warehouse()
    server.on("/users", answer)
    result = luigi_run(*LOAD, "--users-url", url, "--users-retries", "1")
    assert result.returncode == 30
    (error,) = error_lines(result.stderr)
    assert re.match(rf"ERROR: (Extract|Transform)Users\(date={DAY}\) failed: users {DAY}: ", error)
    assert line in error
    assert "Traceback" not in result.stderr
    assert dump_warehouse() == before
    assert not Path(f"data/clean/users/date={DAY}/manifest.json").exists()
    server.on("/users", good)
    assert luigi_run(*LOAD, "--users-url", url).returncode == (30 if "rejected" in line else 0)


def test_a_snapshot_without_records_is_a_failure():
    """An empty answer to "everybody" is a broken source, unless one says otherwise."""
    with Server() as server:
        url = server.on("/users", Answer([]))
        flags = ("--users-url", url, "--users-mode", "snapshot")
        result = luigi_run(*LOAD, *flags)
        assert result.returncode == 30
        assert "0 records came; min_records is 1" in error_lines(result.stderr)[0]
        assert luigi_run(*LOAD, *flags, "--users-min-records", "0").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("LoadUsers", "--date", "2026-13-01"), 40, "'2026-13-01' is not a day: write it as 2026-11-21"),
        (("LoadUsers", "--date", "2999-01-01"), 30, "the newest day available is"),
        (("BackfillUsers", "--start", "2026-11-01", "--stop", "2999-01-01"), 35, "is past the last closed day"),
        (("BackfillUsers", "--start", "2026-11-03", "--stop", "2026-11-01"), 35, "Can't have start > stop"),
        ((*LOAD, "--users-mode", "all"), 40, "mode"),
        (("LoadUsers", "--date", ""), 40, "the flag --date is empty"),
        (("LoadUsers", "--date", "9999-12-31"), 40, "9999-12-31 is out of range"),
        ((*LOAD, "--users-url", ""), 40, "the flag --users-url is empty"),
        (("LoadUserz", "--date", DAY), 1, "No task LoadUserz. Did you mean: LoadUsers"),
        (("BackfillUsers", "--stop", "2026-11-01"), 35, "give --start, the first day"),
        (("BackfillUsers", "--start", "2999-01-01"), 35, "--start 2999-01-01 is past the last closed day"),
        (("BackfillUsers", "--start", "2026-11-01", "--task-limit", "2"), 35, "--task-limit would leave days undone"),
        (("BackfillUsers", "--start", "2026-11-01", "--reverse"), 35, "--reverse would leave days undone"),
        ((*LOAD, "--pipeline-part-records", "0"), 35, "[pipeline] part_records = '0' cannot be used"),
        ((*LOAD, "--users-max-reject-ratio", "nan"), 40, "[users] max_reject_ratio = 'nan' cannot be used"),
        ((*LOAD, "--users-headers", '{"Authorization": "hunter2"'), 40, "[users] headers cannot be used"),
        ((*LOAD, "--users-page-size", "x"), 40, "[users] page_size = 'x' cannot be used"),
        ((*LOAD, "--workers", "x"), 40, "[core] workers cannot be used: invalid literal for int() with base 10: 'x'"),
        ((*LOAD, "--log-level", "LOUD"), 40, "[core] log_level cannot be used: LOUD is not a valid choice"),
        ((*LOAD, "--users-auth", "bearer:NO_SUCH_TOKEN"), 30, "NO_SUCH_TOKEN"),
        ((*LOAD, "--users-url", "demo://users?updated_since={day_strat}"), 40, "{day_start}"),
        ((*LOAD, "--users-mode", "snapshot"), 40, "{day_start}"),
        ((*LOAD, "--pipeline-database", "oracle://me:hunter2@host/db"), 35, "oracle://"),
        ((*LOAD, "--pipeline-data-dir", "luigi.cfg"), 35, "data_dir = luigi.cfg: luigi.cfg is a file: name a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_and_a_non_zero_exit(arguments, code, line):
    """The thing, the value and the next step; no traceback; nothing made."""
    result = luigi_run(*arguments)
    assert result.returncode == code, result.stderr
    errors = error_lines(result.stderr)
    assert len(errors) == 1, result.stderr
    assert line in errors[0]
    assert "Traceback" not in result.stderr
    assert "hunter2" not in result.stderr
    assert not Path("data/warehouse.db").exists()


def test_a_misspelt_key_stops_the_run():
    """It would else be read as the default, with a warning that nobody sees at night."""
    text = Path("luigi.cfg").read_text().replace("\n[users]\n", "\n[users]\npaginater = page\n")
    Path("luigi.cfg").write_text(text)
    result = luigi_run(*LOAD)
    assert result.returncode != 0
    assert "has no key 'paginater': did you mean 'paginator'?" in error_lines(result.stderr)[0]


def test_a_failure_is_a_failure_without_a_luigi_cfg_too():
    """Luigi would exit 0 where nothing tells it otherwise, as from a cron line without its cd."""
    Path("luigi.cfg").unlink()
    result = luigi_run(*LOAD, "--local-scheduler", "--users-url", "http://127.0.0.1:9/x", "--users-retries", "0")
    assert result.returncode == 30


def test_a_bug_keeps_its_traceback():
    """What nobody expected must be found."""
    code = (
        "from luigi.cmdline import luigi_run; from wholeday.tasks import stages\n"
        "def broken(*_): raise ZeroDivisionError('a bug')\n"
        "stages.extract = broken\n"
        f"luigi_run(['--module', 'pipeline', 'LoadUsers', '--date', '{DAY}'])"
    )
    result = run("python", "-c", code)
    assert result.returncode == 30
    assert "Traceback" in result.stderr
    assert "ZeroDivisionError: a bug" in result.stderr


def test_two_processes_with_the_same_day_extract_and_load_it_once():
    """The second waits for the first and finds its work done; both exit 0."""
    with Server() as server:
        url = server.on("/users", Answer([make_user(1)], wait=1.0))
        both = [start("luigi", "--module", "pipeline", *LOAD, "--users-url", url) for _ in range(2)]
        results = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], results
        assert len(server.requests) == 1
    assert query("select date, inserted from loads") == [(DAY, 1)]


def test_two_processes_with_the_same_raw_day_clean_it_once():
    """The second finds the folder made, and leaves it alone."""
    day = ("TransformUsers", "--date", DAY, "--users-url", "demo://users?updated_before={day_stop}&per_day=20")
    luigi_run("ExtractUsers", *day[1:])
    both = [start("luigi", "--module", "pipeline", *day) for _ in range(2)]
    results = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert sum(f"users {DAY}: transformed" in stdout for stdout, _ in results) == 1


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_flags_of_the_command_reach_the_children_however_they_are_started(method):
    """Or a worker process would read its own default source into its own default warehouse, and exit 0."""
    with Server() as server:
        url = server.on("/mine", Answer([make_user(77)]))
        code = (
            f"import multiprocessing; multiprocessing.set_start_method('{method}')\n"
            "from luigi.cmdline import luigi_run\n"
            f"luigi_run(['--module', 'pipeline', 'BackfillUsers', '--start', '2026-11-10', '--stop', '2026-11-12',"
            f" '--workers', '2', '--users-url', '{url}', '--pipeline-database', 'sqlite:///elsewhere.db'])"
        )
        result = run("python", "-c", code, PYTHONWARNINGS="ignore")
        assert result.returncode == 0, result.stderr
        assert len(server.requests) == 2
    assert not Path("data/warehouse.db").exists()
    shutil.copy("elsewhere.db", "data/warehouse.db")
    assert query("select user_id from users") == [(77,)]
    assert query("select count(*) from loads") == [(2,)]


def test_a_killed_extract_is_retried_by_luigi_in_the_same_command():
    """SIGKILL in mid-extraction under luigid and two workers: the same command completes the day cleanly."""
    with start_scheduler() as environment, Server() as server:
        pages = {"1": Answer([make_user(1)], headers={"Link": f'<{server.url}/users?page=2>; rel="next"'})}
        slow = iter([Answer([make_user(2)], wait=30), Answer([make_user(2)])])

        def respond(request: Request) -> Answer:
            return pages.get(request.query.get("page", "1")) or next(slow)

        url = server.on("/users", respond)
        command = start("luigi", "--module", "pipeline", *LOAD, "--workers", "2", "--users-url", url, **environment)
        deadline = time.monotonic() + 30
        while len(server.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        (child,) = children_of(command.pid)
        os.kill(child, signal.SIGKILL)
        _, stderr = command.communicate(timeout=90)
        assert command.returncode == 0, stderr
        assert "died unexpectedly with exit code -9" in stderr
        assert [request.query.get("page", "1") for request in server.requests] == ["1", "2", "1", "2"]
    assert query("select user_id from users order by 1") == [(1,), (2,)]
    assert query("select date, extracted, inserted from loads") == [(DAY, 2, 2)]


def children_of(pid: int) -> list[int]:
    """The processes that `pid` started and that are still there."""
    return [int(child) for child in subprocess.check_output([need("pgrep"), "-P", str(pid)]).split()]


def test_a_backfill_by_either_name_fills_the_same_warehouse_oldest_day_first():
    """RangeDaily --of LoadUsers and BackfillUsers; the second one finds nothing to do."""
    span = ("--start", "2026-10-27", "--stop", "2026-11-03")
    first = luigi_run("RangeDaily", "--of", "LoadUsers", *span)
    assert first.returncode == 0, first.stderr
    days = [str(dt.date(2026, 10, 27) + dt.timedelta(days=n)) for n in range(7)]
    assert [date for (date,) in query("select date from loads order by loaded_at")] == days
    assert "Warning" not in first.stderr
    by_range = dump_warehouse()
    second = luigi_run("BackfillUsers", *span)
    assert second.returncode == 0
    assert second.stdout == "INFO: nothing to do: all requested tasks are complete\n"
    shutil.rmtree("data")
    assert luigi_run("BackfillUsers", *span, "--workers", "2").returncode == 0
    assert dump_warehouse() == by_range


def test_a_range_is_never_clipped():
    """Luigi's own would stop at a hundred days back and at fifty tasks, and exit 0."""
    result = luigi_run("BackfillUsers", "--start", "2016-01-01", "--stop", "2016-03-01")
    assert result.returncode == 0, result.stderr
    assert query("select count(*), min(date), max(date) from loads") == [(60, "2016-01-01", "2016-02-29")]


def test_a_day_filled_in_later_leaves_the_present_as_it_was():
    """Its files and marker deleted, then loaded again last: every user is as before."""
    span = ("--start", "2026-11-01", "--stop", "2026-11-08")
    luigi_run("BackfillUsers", *span)
    before = dump_warehouse()
    for stage in ("raw", "clean"):
        shutil.rmtree(f"data/{stage}/users/date=2026-11-04")
    run(
        "python",
        "-c",
        "import sqlite3; db = sqlite3.connect('data/warehouse.db');"
        "db.execute(\"delete from loads where date = '2026-11-04'\"); db.commit()",
    )
    result = luigi_run("BackfillUsers", *span)
    assert result.returncode == 0, result.stderr
    assert query("select date, inserted, updated from loads order by loaded_at desc limit 1") == [("2026-11-04", 0, 0)]
    assert dump_warehouse() == before


def test_status_shows_what_is_loaded_and_what_is_missing(home):
    """One line a day, the gaps, and which warehouse it is about."""
    luigi_run("BackfillUsers", "--start", "2026-11-01", "--stop", "2026-11-03")
    luigi_run("LoadUsers", "--date", "2026-11-06")
    result = run("python", "-m", "wholeday", "status")
    assert result.returncode == 0, result.stderr
    assert "users in sqlite:///data/warehouse.db: 3 days, 2026-11-01 to 2026-11-06; " in result.stdout
    assert "missing: 2026-11-03..2026-11-05, 2026-11-07.." in result.stdout
    assert "2026-11-02" in result.stdout
    other = run("python", "-m", "wholeday", "status", "--pipeline-database", "sqlite:///other.db")
    assert other.stdout.splitlines() == [
        "users: no day is loaded in sqlite:///other.db",
        "outdated, not loaded: 2026-11-01..2026-11-02, 2026-11-06",
    ]
    assert not (home / "other.db").exists()


def test_a_scheduler_that_is_not_there_is_one_line():
    """With what to do about it, and exit code 40."""
    text = Path("central.cfg").read_text().replace("scheduler_port = 8082", "scheduler_port = 9")
    Path("central.cfg").write_text(text.replace("[core]", "[core]\nrpc_retry_wait = 0"))
    result = luigi_run(*LOAD, LUIGI_CONFIG_PATH="central.cfg")
    assert result.returncode == 40
    (error,) = error_lines(result.stderr)
    assert "is luigid running? Start it with wholeday luigid, or add --local-scheduler" in error
    assert "NoneType" not in result.stderr


def test_the_visualiser_s_failure_is_the_line_of_the_log():
    """The page of luigid shows the line of the log, and says first that the source could not be reached."""
    with start_scheduler() as environment:
        text = Path("central.cfg").read_text()
        Path("central.cfg").write_text(text.replace("keep_alive = true", "keep_alive = false"))
        result = luigi_run(*LOAD, "--users-url", "http://127.0.0.1:9/x", "--users-retries", "0", **environment)
        (failed,) = ask_scheduler("task_list", status="FAILED", upstream_status="")
        shown = ask_scheduler("fetch_error", task_id=failed)
    assert failed.startswith("ExtractUsers")
    assert json.loads(shown["error"]).removeprefix("source unreachable: ") in error_lines(result.stderr)[0]
