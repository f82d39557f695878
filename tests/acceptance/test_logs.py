"""Log lines for people and machines. Standard error stays empty if all is well."""

import json
import threading
import time
from pathlib import Path

import pytest

from tests.support.project import luigi_run, query, run, run_line, start, start_scheduler
from tests.support.reading import make_user
from tests.support.server import Answer, Request, Server

pytestmark = pytest.mark.slow

DAY = "2026-11-19"  # this day has a reject
LOAD = ("LoadUsers", "--date", DAY)
QUIET = {"PYTHONWARNINGS": ""}  # the default outside of tests


def test_loaded_day_prints_one_line_per_stage():
    """Standard error stays empty, so that cron mails only problems. A second run prints one line."""
    first = luigi_run(*LOAD, **QUIET)
    assert first.stdout.splitlines() == [
        f"INFO: users {DAY}: extracted 100 records, 1 page",
        f"INFO: users {DAY}: transformed, 99 rows, 1 reject",
        f"INFO: users {DAY}: loaded, 99 inserted, 1 rejected",
    ]
    again = luigi_run(*LOAD, "--workers", "2", **QUIET)
    assert again.stdout == "INFO: nothing to do: all requested tasks are complete\n"
    assert first.stderr + again.stderr == ""


def test_failed_day_prints_one_line_on_stderr():
    result = luigi_run(*LOAD, "--users-max-reject-ratio", "0", **QUIET)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"ERROR: TransformUsers(date={DAY}) failed: users {DAY}: 1 of 100 records are rejected")
    assert result.stdout == f"INFO: users {DAY}: extracted 100 records, 1 page\n"


@pytest.mark.parametrize(("event", "task"), [("PROGRESS", "TransformUsers"), ("SUCCESS", "LoadUsers")])
def test_files_removed_by_another_process(event, task):
    """`forget` may erase a day before its task ends, or right after. Luigi then raises its own errors."""
    code = f"""
from luigi import Event
from pipeline.users import TransformUsers
from wholeday.commands import cli
run = TransformUsers.run
def run_and_tell(task):
    run(task)
    task.trigger_event(Event.PROGRESS, task)
TransformUsers.run = run_and_tell
TransformUsers.event_handler(Event.{event})(lambda task: task.output().folder.clear())
cli.main(["load", "{DAY}"])
"""
    result = run("python", "-c", code, **QUIET)
    line = "another process removed files of this day during the run: run the day again"
    assert (result.returncode, result.stderr) == (30, f"ERROR: {task}(date={DAY}) failed: {line}\n")


@pytest.mark.parametrize(
    "line",
    [
        "luigi --module pipeline LoadUsers --date 2026-11-18 2>&-",
        "luigi --module pipeline LoadUsers --date 2026-11-18 >&- 2>&-",
        "python -m wholeday backfill 2026-11-18 2026-11-19 >&-",
    ],
)
def test_closed_streams_do_not_fail_a_day(line):
    """Daemons close them. A file opened later must not take the place of a stream."""
    result = run_line(line)
    assert (result.returncode, "Error" in result.stderr) == (0, False)
    assert query("select date from loads") == [("2026-11-18",)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full, which takes nothing")
def test_full_log_disk_does_not_fail_a_day():
    result = run_line(f"luigi --module pipeline {' '.join(LOAD)} > /dev/full", **QUIET)
    assert (result.returncode, result.stderr) == (0, "ERROR: cannot write to stdout: No space left on device\n")
    assert query("select inserted from loads") == [(99,)]
    piped = run_line(f"luigi --module pipeline {' '.join(LOAD)} | true; exit ${{PIPESTATUS[0]}}", **QUIET)
    assert (piped.returncode, piped.stderr) == (0, "")


def test_debug_level_shows_luigi_messages():
    result = luigi_run("ExtractUsers", *LOAD[1:], "--log-level", "DEBUG", "--pipeline-log-format", "json", **QUIET)
    first, *_, last = map(json.loads, result.stdout.splitlines())
    assert first["message"].startswith("Checking if ExtractUsers")
    assert "Luigi Execution Summary" in last["message"]
    assert first.keys() == last.keys() == {"at", "level", "message"}  # these lines belong to no day


def test_json_lines_have_day_stage_and_load():
    """Every process logs the `as_of` of marker and manifest as the load."""
    result = luigi_run(*LOAD, "--workers", "2", "--pipeline-log-format", "json", **QUIET)
    assert result.stderr == ""
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    ((load,),) = query("select as_of from loads")
    assert [(line["level"], line["dataset"], line["date"], line["stage"], line["load"]) for line in lines] == [
        ("INFO", "users", DAY, stage, load) for stage in ("extract", "transform", "load")
    ]
    assert lines[2]["message"] == f"users {DAY}: loaded, 99 inserted, 1 rejected"
    assert lines[0]["at"] < lines[1]["at"] < lines[2]["at"]
    again = luigi_run(*LOAD, "--pipeline-log-format", "json", **QUIET)
    assert json.loads(again.stdout).keys() == {"at", "level", "message"}


def test_json_failure_is_one_line():
    """The event includes the traceback, because log collectors read one event per line."""
    code = (
        "from luigi.cmdline import luigi_run; from wholeday.tasks import stages\n"
        "def broken(dataset, date): raise ZeroDivisionError('a bug')\n"
        "stages.load = broken\n"
        f"luigi_run(['--module', 'pipeline', 'LoadUsers', '--date', '{DAY}', '--pipeline-log-format', 'json'])"
    )
    result = run("python", "-c", code, **QUIET)
    assert result.returncode == 30
    (line,) = map(json.loads, result.stderr.splitlines())
    assert (line["level"], line["date"], line["stage"]) == ("ERROR", DAY, "load")
    assert line["traceback"].endswith("ZeroDivisionError: a bug")


def test_unusable_log_format_is_reported():
    result = luigi_run(*LOAD, "--pipeline-log-format", "xml", **QUIET)
    assert result.returncode == 35
    (line,) = result.stderr.splitlines()
    assert line.startswith("ERROR: ")
    assert "[pipeline] log_format = 'xml' cannot be used" in line


def test_day_of_another_worker_is_reported():
    """Luigi only exits with a code; our line gives the reason."""
    text = Path("central.cfg").read_text()
    Path("central.cfg").write_text(text.replace("keep_alive = true", "keep_alive = false"))
    with start_scheduler() as environment:
        done = threading.Event()

        def respond(_: Request) -> Answer:
            done.wait(60)
            return Answer([make_user(1)])

        with Server() as server:
            command = ("ExtractUsers", *LOAD[1:], "--users-url", server.on("/users", respond))
            first = start("luigi", "--module", "pipeline", *command, **QUIET, **environment)
            deadline = time.monotonic() + 60
            while not server.requests and time.monotonic() < deadline:
                time.sleep(0.05)
            second = luigi_run(*command, **QUIET, **environment)
            done.set()
            _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert (second.returncode, second.stdout) == (10, "")
    assert second.stderr.startswith("WARNING: unfinished: 1 were left pending, among these; 1 were being run by")


WORDS = "Неверный период 👋"
ENCODINGS = [
    {"PYTHONIOENCODING": "iso-8859-1"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=["latin-1", "locale"])
def test_unprintable_letters_are_escaped(server, encoding):
    """A failure may quote any alphabet. Each command must still print its result."""
    url = server.on("/users", Answer(json.dumps({"message": WORDS}, ensure_ascii=False), status=400))
    good = server.on("/good", Answer({"data": [make_user(1)], "статус": "ok"}))
    days = ("2026-11-18", "2026-11-20")
    results = [
        run("python", "-m", "wholeday", *words, **encoding)
        for words in (("backfill", *days, "--users-url", url), ("status",), ("doctor", good))
    ]
    assert [result.returncode for result in results] == [1, 0, 0]
    assert not [result for result in results if "UnicodeEncodeError" in result.stderr]
    for result in results[:2]:
        assert "\\U0001f44b" in result.stdout + result.stderr
    machine = run("python", "-m", "wholeday", "status", "--json", **encoding)
    assert WORDS in json.loads(machine.stdout)["datasets"][0]["failures"][0]["line"]
    lines = luigi_run(
        "LoadUsers", "--date", DAY, "--pipeline-log-format", "json", "--users-url", url, **QUIET, **encoding
    )
    line = lines.stderr.splitlines()[-1]
    assert WORDS in json.loads(line)["message"]
