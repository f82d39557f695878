"""Run `luigi --module pipeline …` as users do, in its own process."""

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

from pipeline.users import USERS, BackfillUsers
from tests.support.project import (
    ask_scheduler,
    dump_tree,
    dump_warehouse,
    execute,
    luigi_run,
    need,
    query,
    run,
    run_stages,
    start,
    start_alone,
    start_scheduler,
)
from tests.support.reading import make_user
from tests.support.server import Answer, Request, Server

pytestmark = pytest.mark.slow

DAY = "2026-11-20"
LOAD = ("LoadUsers", "--date", DAY)


def error_lines(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("ERROR")]


def test_loaded_day_runs_once():
    """The second run exits 0 and changes no file and no row."""
    first = luigi_run(*LOAD)
    assert first.returncode == 0, first.stderr
    assert query("select dataset, date, mode, extracted from loads") == [("users", DAY, "incremental", 100)]
    files, rows = dump_tree("data/raw") | dump_tree("data/clean"), dump_warehouse()
    second = luigi_run(*LOAD)
    assert second.returncode == 0, second.stderr
    assert second.stdout == "INFO: nothing to do: all requested tasks are complete\n"
    assert (dump_tree("data/raw") | dump_tree("data/clean"), dump_warehouse()) == (files, rows)


def test_complete_day_imports_no_heavy_library():
    """The run costs little more than the imports of Luigi and of the tasks."""
    luigi_run(*LOAD)
    code = (
        "import sys, time, atexit; from luigi.cmdline import luigi_run; import pipeline\n"
        "heavy, imports = {'pandas', 'pyarrow', 'sqlalchemy', 'numpy', 'rich'}, time.process_time()\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), time.process_time() / imports))\n"
        f"luigi_run(['--module', 'pipeline', 'LoadUsers', '--date', '{DAY}'])"
    )
    again = start_alone("python", "-c", code)
    out, err = again.communicate()
    assert again.returncode == 0, err
    modules, ratio = out.splitlines()[-1].split("] ")
    assert modules == "["
    assert float(ratio) < 2


def test_deleted_marker_reloads_clean_files():
    """The run sends no request, writes no file and changes no row."""
    luigi_run(*LOAD)
    files, rows = dump_tree("data/raw") | dump_tree("data/clean"), dump_warehouse()
    execute("delete from loads")
    again = luigi_run(*LOAD, "--users-url", "http://127.0.0.1:9/nobody-listens")
    assert again.returncode == 0, again.stderr
    assert query("select inserted, updated, deleted from loads") == [(0, 0, 0)]
    assert (dump_tree("data/raw") | dump_tree("data/clean"), dump_warehouse()) == (files, rows)


def test_transform_is_reproducible_to_the_byte():
    """The output depends on the raw files only, not on the clock, the machine or chance."""
    day = "2026-11-19"  # this day has a reject
    luigi_run("TransformUsers", "--date", day)
    before = dump_tree("data/clean")
    shutil.rmtree("data/clean")
    again = luigi_run("TransformUsers", "--date", day, "--users-url", "http://127.0.0.1:9/nobody-listens")
    assert again.returncode == 0, again.stderr
    assert dump_tree("data/clean") == before
    names = [Path(name).name for name in before]
    assert names == [".lock", "manifest.json", "part-00000.parquet", "rejects-00000.jsonl.gz"]


def test_default_date_is_last_closed_day():
    """A cron line needs no date."""
    result = luigi_run("LoadUsers")
    assert result.returncode == 0, result.stderr
    now = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=15)
    assert query("select date from loads") == [(str(now.date() - dt.timedelta(days=1)),)]


def test_empty_day_is_marked_and_changes_update_once(server, configure):
    """An incremental day does not delete users that it does not list."""
    days = {
        "2026-11-18": [make_user(1, "2026-11-18T09:00:00Z"), make_user(2, "2026-11-18T10:00:00Z")],
        "2026-11-19": [],
        "2026-11-20": [make_user(2, "2026-11-20T08:00:00Z", name="Changed")],
    }
    configure("users", url=server.on("/users", lambda request: Answer(days[request.query["on"]])) + "?on={date}")
    run_stages(USERS, *map(dt.date.fromisoformat, days))
    assert query("select date, extracted, inserted, updated, unchanged, superseded from loads order by date") == [
        ("2026-11-18", 2, 2, 0, 0, 0),
        ("2026-11-19", 0, 0, 0, 0, 0),
        ("2026-11-20", 1, 0, 1, 0, 0),
    ]
    assert query("select user_id, name, email, load_date from users") == [
        (1, "User 1", "u1@example.com", "2026-11-18"),
        (2, "Changed", "u2@example.com", "2026-11-20"),
    ]


def test_window_starts_one_unit_early():
    """A filter with an exclusive lower bound loses nothing. The end of a day is the start of the next."""
    with Server() as server:
        url = server.on("/users", Answer([])) + "?from={day_start}&to={day_stop}&epoch={day_start:epoch}"
        luigi_run(*LOAD, "--users-url", url, "--users-timezone", "Europe/Berlin")
        assert server.requests[0].query == {
            "from": "2026-11-19T22:59:59Z",
            "to": "2026-11-20T23:00:00Z",
            "epoch": "1795129199",
        }


def test_watermark_is_highest_earlier_update_minus_one_unit(server, configure):
    """The first day starts at 1970. An earlier day ignores the updates of later days."""
    days = {
        "2026-11-18": [make_user(1, "2026-11-18T09:00:00.750Z")],
        "2026-11-20": [make_user(1, "2026-11-20T11:00:00Z")],
    }
    url = server.on("/users", lambda request: Answer(days.get(request.query["on"], [])))
    configure("users", url=f"{url}?on={{date}}&since={{watermark}}&ms={{watermark:epoch_ms}}")
    run_stages(USERS, *(dt.date(2026, 11, day) for day in (18, 20, 19)))
    asked = {request.query["on"]: request.query for request in server.requests}
    assert asked["2026-11-18"]["since"] == "1970-01-01T00:00:00Z"
    assert asked["2026-11-20"]["since"] == "2026-11-18T08:59:59Z"
    assert asked["2026-11-20"]["ms"] == str(
        int(dt.datetime.fromisoformat("2026-11-18T09:00:00.749Z").timestamp() * 1000)
    )
    assert asked["2026-11-19"]["since"] == "2026-11-18T08:59:59Z"


def test_watermark_backfill_runs_in_order_with_several_workers():
    """Each day starts from the updates of the day before."""
    with Server() as server:
        server.on("/users", lambda request: Answer([make_user(1, request.query["on"] + "T10:00:00Z")], wait=0.2))
        url = server.url + "/users?on={date}&since={watermark:date}"
        result = luigi_run(
            "BackfillUsers", "--start", "2026-11-10", "--stop", "2026-11-13", "--workers", "2", "--users-url", url
        )
        assert result.returncode == 0, result.stderr
        assert [(request.query["on"], request.query["since"]) for request in server.requests] == [
            ("2026-11-10", "1970-01-01"),
            ("2026-11-11", "2026-11-09"),
            ("2026-11-12", "2026-11-10"),
        ]


def test_single_server_error_is_retried():
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
def test_failing_source_is_one_line_and_changes_nothing(server, configure, answer, line):
    """The line has the task and the cause. Tables and clean files do not change."""
    good = Answer([make_user(1, "2026-11-19T10:00:00Z")])
    url = server.on("/users", good)
    configure("users", url=url)
    run_stages(USERS, dt.date(2026, 11, 19))
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
    if "rejected" in line:  # the raw files of the day exist
        assert luigi_run(*LOAD, "--users-url", url).returncode == 30
    else:
        run_stages(USERS, dt.date(2026, 11, 20))


def test_empty_snapshot_fails():
    """An empty snapshot means a broken source, unless min_records is 0."""
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
        ((*LOAD, "--users-url", ""), 40, "the flag --users-url is empty"),
        (("LoadUserz", "--date", DAY), 1, "No task LoadUserz. Did you mean: LoadUsers"),
        ((*LOAD, "--pipeline-part-records", "0"), 35, "[pipeline] part_records = '0' cannot be used"),
        ((*LOAD, "--workers", "x"), 40, "[core] workers cannot be used: invalid literal for int() with base 10: 'x'"),
        ((*LOAD, "--log-level", "LOUD"), 40, "[core] log_level cannot be used: LOUD is not a valid choice"),
        ((*LOAD, "--users-auth", "bearer:NO_SUCH_TOKEN"), 30, "NO_SUCH_TOKEN"),
        ((*LOAD, "--users-mode", "snapshot"), 40, "{day_start}"),
        ((*LOAD, "--pipeline-database", "oracle://me:hunter2@host/db"), 35, "oracle://"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_error_line(arguments, code, line):
    """The line has the setting, the value and the next step. The run writes nothing."""
    result = luigi_run(*arguments)
    assert result.returncode == code, result.stderr
    errors = error_lines(result.stderr)
    assert len(errors) == 1, result.stderr
    assert line in errors[0]
    assert "Traceback" not in result.stderr
    assert "hunter2" not in result.stderr
    assert not Path("data/warehouse.db").exists()


def test_misspelt_key_fails():
    """Otherwise the default would apply silently."""
    text = Path("luigi.cfg").read_text().replace("\n[users]\n", "\n[users]\npaginater = page\n")
    Path("luigi.cfg").write_text(text)
    result = luigi_run(*LOAD)
    assert result.returncode != 0
    assert "has no key 'paginater': did you mean 'paginator'?" in error_lines(result.stderr)[0]


def test_failure_without_luigi_cfg_exits_non_zero():
    """Luigi exits 0 by default, for example in a cron line without its cd."""
    Path("luigi.cfg").unlink()
    result = luigi_run(*LOAD, "--local-scheduler", "--users-url", "http://127.0.0.1:9/x", "--users-retries", "0")
    assert result.returncode == 30


def test_bug_keeps_its_traceback():
    """An unexpected error needs its traceback."""
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


def test_concurrent_processes_load_a_day_once():
    """The second process waits, finds the day complete, and exits 0."""
    with Server() as server:
        url = server.on("/users", Answer([make_user(1)], wait=1.0))
        both = [start("luigi", "--module", "pipeline", *LOAD, "--users-url", url) for _ in range(2)]
        results = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], results
        assert len(server.requests) == 1
    assert query("select date, inserted from loads") == [(DAY, 1)]


def test_concurrent_processes_transform_a_day_once():
    """The second process finds a complete folder."""
    day = ("TransformUsers", "--date", DAY, "--users-url", "demo://users?updated_before={day_stop}&per_day=20")
    luigi_run("ExtractUsers", *day[1:])
    both = [start("luigi", "--module", "pipeline", *day) for _ in range(2)]
    results = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert sum(f"users {DAY}: transformed" in stdout for stdout, _ in results) == 1


def test_flags_reach_a_spawned_process(server):
    """Otherwise a worker would extract the default source into the default folder and exit 0."""
    url = server.on("/mine", Answer([make_user(77)]))
    code = (
        "import multiprocessing; multiprocessing.set_start_method('spawn')\n"
        "from luigi.cmdline import luigi_run\n"
        f"luigi_run(['--module', 'pipeline', 'ExtractUsers', '--date', '{DAY}', '--workers', '2',"
        f" '--users-url', '{url}', '--pipeline-data-dir', 'elsewhere'])"
    )
    result = run("python", "-c", code, PYTHONWARNINGS="ignore")
    assert result.returncode == 0, result.stderr
    assert len(server.requests) == 1
    assert Path(f"elsewhere/raw/users/date={DAY}/manifest.json").exists()
    assert not Path("data").exists()


def test_luigi_retries_a_killed_extract():
    """A worker under luigid receives SIGKILL during extraction."""
    with start_scheduler() as environment, Server() as server:
        pages = {"1": Answer([make_user(1)], headers={"Link": f'<{server.url}/users?page=2>; rel="next"'})}
        slow = iter([Answer([make_user(2)], wait=30), Answer([make_user(2)])])

        def respond(request: Request) -> Answer:
            return pages.get(request.query.get("page", "1")) or next(slow)

        url = server.on("/users", respond)
        command = start("luigi", "--module", "pipeline", *LOAD, "--workers", "2", "--users-url", url, **environment)
        deadline = time.monotonic() + 60
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
    """Return the running child processes of `pid`."""
    return [int(child) for child in subprocess.check_output([need("pgrep"), "-P", str(pid)]).split()]


def test_range_daily_and_backfill_users_are_equivalent():
    """Both load the oldest day first."""
    span = ("--start", "2026-10-31", "--stop", "2026-11-03")
    first = luigi_run("RangeDaily", "--of", "LoadUsers", *span)
    assert first.returncode == 0, first.stderr
    days = ["2026-10-31", "2026-11-01", "2026-11-02"]
    assert [date for (date,) in query("select date from loads order by loaded_at")] == days
    assert "Warning" not in first.stderr
    by_range = dump_warehouse()
    second = luigi_run("BackfillUsers", *span)
    assert second.returncode == 0
    assert second.stdout == "INFO: nothing to do: all requested tasks are complete\n"
    shutil.rmtree("data")
    assert luigi_run("BackfillUsers", *span, "--workers", "2").returncode == 0
    assert dump_warehouse() == by_range


def test_range_is_never_clipped():
    """Luigi's own ranges stop after a hundred days or fifty tasks and exit 0."""
    first = dt.date(2016, 1, 1)
    tasks = BackfillUsers(start=first, stop=dt.date(2017, 1, 1)).requires()
    assert [task.date for task in tasks] == [first + dt.timedelta(days=n) for n in range(366)]


def test_late_reload_keeps_current_users():
    """The files and the marker of one day were deleted; the day is loaded last."""
    span = ("--start", "2026-11-03", "--stop", "2026-11-06")
    luigi_run("BackfillUsers", *span)
    before = dump_warehouse()
    for stage in ("raw", "clean"):
        shutil.rmtree(f"data/{stage}/users/date=2026-11-04")
    execute("delete from loads where date = '2026-11-04'")
    result = luigi_run("BackfillUsers", *span)
    assert result.returncode == 0, result.stderr
    assert query("select date, inserted, updated from loads order by loaded_at desc limit 1") == [("2026-11-04", 0, 0)]
    assert dump_warehouse() == before


def test_status_shows_loaded_and_missing_days(home):
    """The output names the warehouse."""
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


def test_unreachable_scheduler_is_one_line():
    """The line says how to start luigid."""
    text = Path("central.cfg").read_text().replace("scheduler_port = 8082", "scheduler_port = 9")
    Path("central.cfg").write_text(text.replace("[core]", "[core]\nrpc_retry_wait = 0"))
    result = luigi_run(*LOAD, LUIGI_CONFIG_PATH="central.cfg")
    assert result.returncode == 40
    (error,) = error_lines(result.stderr)
    assert "is luigid running? Start it with wholeday luigid, or add --local-scheduler" in error
    assert "NoneType" not in result.stderr


def test_visualiser_shows_the_logged_error():
    """The visualiser adds the prefix for an unreachable source."""
    with start_scheduler() as environment:
        text = Path("central.cfg").read_text()
        Path("central.cfg").write_text(text.replace("keep_alive = true", "keep_alive = false"))
        result = luigi_run(*LOAD, "--users-url", "http://127.0.0.1:9/x", "--users-retries", "0", **environment)
        (failed,) = ask_scheduler("task_list", status="FAILED", upstream_status="")
        shown = ask_scheduler("fetch_error", task_id=failed)
    assert failed.startswith("ExtractUsers")
    assert json.loads(shown["error"]).removeprefix("source unreachable: ") in error_lines(result.stderr)[0]
