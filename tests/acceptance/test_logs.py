"""What is printed where: lines for people or for machines, and silence on standard error when all is well."""

import json
import threading
import time
from pathlib import Path

import pytest

from tests.support.project import luigi_run, query, run, run_line, start, start_scheduler
from tests.support.reading import make_user
from tests.support.server import Answer, Request, Server

pytestmark = pytest.mark.slow

DAY = "2026-11-19"  # it has a reject
LOAD = ("LoadUsers", "--date", DAY)
QUIET = {"PYTHONWARNINGS": ""}  # as everywhere but in tests


def test_a_day_that_is_loaded_is_a_line_a_stage_and_nothing_on_standard_error():
    """So that cron has mail only when something is wrong; again, one line says that nothing was to be done."""
    first = luigi_run(*LOAD, **QUIET)
    assert first.stdout.splitlines() == [
        f"INFO: users {DAY}: extracted 100 records, 1 page",
        f"INFO: users {DAY}: cleaned, 99 rows, 1 reject",
        f"INFO: users {DAY}: loaded, 99 inserted, 1 rejected",
    ]
    again = luigi_run(*LOAD, "--workers", "2", **QUIET)
    assert again.stdout == "INFO: nothing to do: all requested tasks are complete\n"
    assert first.stderr + again.stderr == ""


def test_a_day_that_failed_is_its_one_line_on_standard_error():
    """Nothing of it is lost among what Luigi says of itself."""
    result = luigi_run(*LOAD, "--users-max-reject-ratio", "0", **QUIET)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"ERROR: TransformUsers(date={DAY}) failed: users {DAY}: 1 of 100 records are rejected")
    assert result.stdout == f"INFO: users {DAY}: extracted 100 records, 1 page\n"


@pytest.mark.parametrize(("event", "task"), [("PROGRESS", "TransformUsers"), ("SUCCESS", "LoadUsers")])
def test_files_that_another_process_removed_are_one_line(event, task):
    """As if `forget` swept the day before its task has ended, or behind it. Luigi raises errors of its own."""
    code = f"""
from luigi import Event
from pipeline.users import TransformUsers
from wholeday.commands import cli
run = TransformUsers.run
def run_and_tell(task):
    run(task)
    task.trigger_event(Event.PROGRESS, task)
TransformUsers.run = run_and_tell
TransformUsers.event_handler(Event.{event})(lambda task: task.output().sweep())
cli.main(["load", "{DAY}"])
"""
    result = run("python", "-c", code, **QUIET)
    line = "another process removed files of this day during the run: run the day again"
    assert (result.returncode, result.stderr) == (30, f"ERROR: {task}(date={DAY}) failed: {line}\n")


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_a_day_is_loaded_without_anywhere_to_write_a_line(closed):
    """As a daemon has it; and no file of the day is taken for the one or the other."""
    for number, command in enumerate(
        ("luigi --module pipeline LoadUsers --date {}", "python -m wholeday backfill {} {}")
    ):
        days = [f"2026-11-1{2 * number + n}" for n in range(2)]
        result = run_line(f"{command.format(*days)} {closed}")
        assert (result.returncode, "Error" in result.stderr) == (0, False)
        assert query(f"select count(*) from loads where date = '{days[0]}'") == [(1,)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full, which takes nothing")
def test_a_full_disk_under_the_log_is_one_line_and_the_day_is_loaded():
    """Nobody is shown the insides of the logging."""
    result = run_line(f"luigi --module pipeline {' '.join(LOAD)} > /dev/full", **QUIET)
    assert (result.returncode, result.stderr) == (0, "ERROR: cannot write to stdout: No space left on device\n")
    assert query("select inserted from loads") == [(99,)]
    piped = run_line(f"luigi --module pipeline {' '.join(LOAD)} | true; exit ${{PIPESTATUS[0]}}", **QUIET)
    assert (piped.returncode, piped.stderr) == (0, "")


def test_whoever_wants_to_know_what_luigi_does_is_told():
    """At the level DEBUG."""
    result = luigi_run("ExtractUsers", *LOAD[1:], "--log-level", "DEBUG", "--pipeline-log-format", "json", **QUIET)
    first, *_, last = map(json.loads, result.stdout.splitlines())
    assert first["message"].startswith("Checking if ExtractUsers")
    assert "Luigi Execution Summary" in last["message"]
    assert first.keys() == last.keys() == {"at", "level", "message"}  # they are about no day


def test_json_has_day_stage_and_load_of_every_line():
    """The load is the `as_of` of the marker, and of the manifest; of whichever process the line comes."""
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


def test_json_has_a_failure_and_even_a_traceback_in_one_line():
    """A collector of logs takes a line for an event."""
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


def test_a_configuration_that_cannot_be_read_is_told_all_the_same():
    """Even the key that says how to tell it."""
    result = luigi_run(*LOAD, "--pipeline-log-format", "xml", **QUIET)
    assert result.returncode == 35
    (line,) = result.stderr.splitlines()
    assert line.startswith("ERROR: ")
    assert "[pipeline] log_format = 'xml' cannot be used" in line


def test_a_day_that_another_worker_has_is_told():
    """Luigi smiles at it, and leaves with a code; the line says why."""
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
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "iso-8859-1"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=["ascii", "latin-1", "locale"])
def test_letters_that_the_output_cannot_show_are_escaped(server, encoding):
    """A failure quotes the source in letters of any alphabet; each command still prints what it has to say."""
    url = server.on("/users", Answer(json.dumps({"message": WORDS}, ensure_ascii=False), status=400))
    good = server.on("/good", Answer({"data": [make_user(1)], "статус": "ok"}))
    days = ("2026-11-18", "2026-11-20")
    escaped = "\\U0001f44b"
    results = [
        luigi_run("LoadUsers", "--date", days[0], "--users-url", url, **encoding),
        *(
            run("python", "-m", "wholeday", *words, **encoding)
            for words in (("backfill", *days, "--users-url", url), ("status",), ("plan", *days), ("doctor", good))
        ),
    ]
    assert [result.returncode for result in results] == [30, 1, 0, 0, 0]
    assert not [result for result in results if "UnicodeEncodeError" in result.stderr]
    for result in results[:4]:
        assert escaped in result.stdout + result.stderr
    machine = run("python", "-m", "wholeday", "status", "--json", **encoding)
    assert WORDS in json.loads(machine.stdout)["datasets"][0]["failures"][0]["line"]
    lines = luigi_run(
        "LoadUsers", "--date", DAY, "--pipeline-log-format", "json", "--users-url", url, **QUIET, **encoding
    )
    line = lines.stderr.splitlines()[-1]
    assert WORDS in json.loads(line)["message"]
