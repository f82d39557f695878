"""Run backfills with failing days, signals, kills, several workers and luigid."""

import contextlib
import datetime as dt
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from luigi.cmdline_parser import CmdlineParser
from luigi.interface import InterfaceLogging
from luigi.util import requires

from pipeline.users import USERS, LoadUsers
from tests.support.project import dump_warehouse, luigi_run, query, run, run_here, start, start_alone, start_scheduler
from tests.support.reading import make_user
from tests.support.server import Answer, Request, Server
from tests.support.terminal import look_at, run_on_terminal
from wholeday.commands.backfill import show_outcome
from wholeday.tasks import stages
from wholeday.tasks.backfill import BackfillRun, OnResult
from wholeday.tasks.day_tasks import DayTask, Load
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.stop import Stop

pytestmark = pytest.mark.slow

SCALE = int(os.environ.get("PIPELINE_BACKFILL", "6"))  # 400 for what is promised
KILLS = int(os.environ.get("PIPELINE_KILLS", "2"))
GROWTH = 4.6 if SCALE >= 100 else 6.0  # of the cost of four times the days: 4 if linear, 16 if quadratic; few are noisy
FIRST = dt.date(2016, 1, 1)
MAIN = "import runpy, sys; sys.argv[0] = 'wholeday'; runpy.run_module('wholeday', run_name='__main__')"
IN_A_GROUP = f"import os; os.setsid(); {MAIN}"
BUG = """
from wholeday.tasks import stages
load_day = stages.load
def load(workspace, date):
    if date.day == 4:
        1 / 0
    load_day(workspace, date)
stages.load = load
"""
TINY = ("--users-url", "demo://users?updated_since={day_start}&updated_before={day_stop}&per_day=1")
TINY = (*TINY, "--users-max-reject-ratio", "1")  # a reject may be the only record of its day


def backfill(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return run("python", "-m", "wholeday", "backfill", *arguments, **environment)


def span(days: int, first: dt.date = FIRST) -> tuple[str, str]:
    return str(first), str(first + dt.timedelta(days=days))


def rows_of(stdout: str) -> dict[str, str]:
    """Return the rows of the final table by their first word, without padding."""
    table = re.split(r"^what +days +which +why *\n", stdout, flags=re.MULTILINE)[1]
    rows = [re.sub(r" +", " ", line).strip() for line in table.splitlines()]
    return {re.match(r"\D*", row)[0].strip(): row for row in rows}  # type: ignore[index]


def serve_days(server: Server, answers: Callable[[str], Answer | None], wait: float = 0.0) -> str:
    """Serve one user a day, unless `answers` returns another answer for the day."""

    def respond(request: Request) -> Answer:
        day = request.query["on"]
        user = make_user(int(day.replace("-", "")), f"{day}T10:00:00Z")
        return answers(day) or Answer([user], wait=wait)

    return server.on("/users", respond) + "?on={date}"


def asked_for(server: Server) -> list[str]:
    return [request.query["on"] for request in server.requests]


def test_second_backfill_skips_loaded_days():
    """Standard error stays empty. The second run imports no heavy library."""
    first = backfill("2026-10-05", "2026-10-08")
    assert (first.returncode, first.stderr) == (0, "")
    *lines, _, _, said = first.stdout.splitlines()
    assert [line.split(", ")[0] for line in lines if "loaded" in line] == [
        f"INFO: users 2026-10-0{n}: loaded" for n in (5, 6, 7)
    ]
    assert len(lines) == 9  # one line each for extracted, transformed and loaded
    assert re.fullmatch(r"done 3 2026-10-05\.\.2026-10-07 loaded, \d+ inserted,.*", rows_of(first.stdout)["done"])
    assert said == "users: 3 of 3 days are loaded"
    before = dump_warehouse()
    told = "import atexit; atexit.register(lambda: print({'pandas', 'pyarrow', 'sqlalchemy'} & {*sys.modules}))"
    arguments = ("backfill", "2026-10-05", "2026-10-08", "--users-url", "http://127.0.0.1:9/nobody-listens")
    again = start_alone("python", "-c", f"{told}; {MAIN}", *arguments)
    out, err = again.communicate()
    assert (again.returncode, err) == (0, "")
    assert rows_of(out)["skipped"] == "skipped 3 2026-10-05..2026-10-07 loaded before"
    assert out.endswith("users: 3 of 3 days are loaded\nset()\n")
    assert dump_warehouse() == before


def test_only_a_permanently_failing_day_is_missing():
    """The table gives the cause, and the exit code is 1. The next run requests only the missing day."""
    bad, once = "2016-01-03", iter([Answer(status=404)])
    with Server() as server:
        url = serve_days(
            server,
            lambda day: Answer(status=410) if day == bad else next(once, None) if day == "2016-01-05" else None,
        )
        result = backfill(*span(6), "--workers", "2", "--users-url", url)
        assert result.returncode == 1
        rows = rows_of(result.stdout)
        assert rows["done"].startswith("done 5 2016-01-01..2016-01-02, 2016-01-04..2016-01-06 loaded, 5 inserted")
        assert rows["failed"].startswith(f"failed 1 {bad} users {bad}: GET ")
        assert "410 Gone" in " ".join(result.stdout.split())
        assert result.stdout.endswith("users: 5 of 6 days are loaded\n")
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        assert [
            bool(re.match(rf"ERROR: ExtractUsers\(date={bad}\) failed: users {bad}: ", line)) for line in errors
        ] == [
            True,
            False,
            True,
        ]
        assert "WARNING: users: 2 days failed. Trying again, as an outage may be over" in result.stderr
        assert query("select count(*) from users") == [(5,)]
        server.requests.clear()
        again = backfill(*span(6), "--users-url", url)
        assert again.returncode == 1
        assert rows_of(again.stdout)["skipped"].startswith("skipped 5 ")
        assert asked_for(server) == [bad]


def test_open_days_are_reported_and_others_loaded():
    """The range is incomplete, so the exit code is not 0, and standard error says why."""
    today = dt.datetime.now(dt.UTC).date()
    yesterday = today - dt.timedelta(days=1)
    result = backfill(str(yesterday - dt.timedelta(days=1)), str(today + dt.timedelta(days=40)))
    assert result.returncode == 1
    assert "loaded, " in rows_of(result.stdout)["done"]
    assert "failed" not in rows_of(result.stdout)
    last = today + dt.timedelta(days=39)
    said = rf"not closed \d+ {today}\.\.{last} the newest day that can be loaded is {yesterday}"
    assert re.fullmatch(said, rows_of(result.stdout)["not closed"]) or dt.datetime.now(dt.UTC).date() != today
    assert f"ERROR: users: not closed: {today}..{last}: the newest day" in result.stderr
    assert query("select count(*) from loads")[0][0] >= 1


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("2026-11-03", "2026-11-01"), 1, "ERROR: STOP 2026-11-01 is not after START 2026-11-03"),
        (("2026-11-01", "2026-11-01"), 1, "ERROR: STOP 2026-11-01 is not after START 2026-11-01"),
        (("2026-11-01",), 2, "STOP is missing"),
        (("2026-11-01", "tomorrow"), 2, "'tomorrow' is not a day: write it as 2026-11-21"),
        (("1066-10-14", "1066-10-15"), 2, "1066-10-14 is out of range: give a day from 1970 on"),
        (("2026-11-01", "2026-11-02", "--workers", "0"), 2, "--workers=0: Input should be greater than or equal to 1"),
        (
            ("2026-11-01", "2026-11-02", "--users-modes", "snapshot"),
            2,
            "unknown flag --users-modes: did you mean --users-mode?",
        ),
        (("2026-11-01", "2026-11-02", "--users-timezone", "Berlin"), 1, "timezone = 'Berlin' is not a time zone"),
    ],
    ids=" ".join(["reversed empty one-day no-day too-early no-worker no-flag no-zone"]).split(),
)
def test_bad_input_is_one_error_line(capsys, arguments, code, line):
    """The run writes nothing."""
    out, err, exit_code = run_here(capsys, "backfill", *arguments)
    assert (exit_code, out) == (code, "")
    assert line in err.splitlines()[-1]
    assert not Path("data").exists()


def test_damaged_manifest_or_bug_fails_only_its_day(configure):
    """Luigi reads the damaged manifest while it schedules. The log keeps the traceback of a bug."""
    with Server() as server:
        url = serve_days(server, lambda _: None)
        configure("users", url=url)
        stages.extract(read_workspace(USERS), dt.date(2016, 1, 2))
        Path("data/raw/users/date=2016-01-02/manifest.json").write_text("{")
        result = run("python", "-c", f"{BUG}{MAIN}", "backfill", *span(5), "--users-url", url)
    assert result.returncode == 1
    text = " ".join(result.stdout.split())
    assert "done 3 2016-01-01, 2016-01-03, 2016-01-05 loaded" in text
    assert "failed 1 2016-01-02 data/raw/users/date=2016-01-02/manifest.json is not a manifest" in text
    assert "failed 1 2016-01-04 ZeroDivisionError: division by zero" in text
    assert "Traceback" in result.stderr


def test_flags_reach_worker_processes_of_a_fork_server():
    """Otherwise a worker would load the default source into the default warehouse."""
    with Server() as server:
        url = serve_days(server, lambda _: None)
        code = f"import multiprocessing; multiprocessing.set_start_method('forkserver'); {MAIN}"
        flags = ("--workers", "2", "--users-url", url, "--pipeline-database", "sqlite:///elsewhere.db")
        result = run("python", "-c", code, "backfill", *span(1), *flags, PYTHONWARNINGS="ignore")
        assert (result.returncode, result.stderr) == (0, "")
        assert asked_for(server) == ["2016-01-01"]
    assert not Path("data/warehouse.db").exists()
    shutil.copy("elsewhere.db", "data/warehouse.db")
    assert query("select count(*) from users") == [(1,)]


def test_watermark_days_run_in_order_across_batches():
    """Each day starts from the updates of the day before, with any number of workers."""
    small = f"from wholeday.tasks import backfill; backfill.BATCH_SIZE = 2; backfill.DAYS_PER_WORKER = 1; {MAIN}"
    with Server() as server:
        url = serve_days(server, lambda _: None) + "&since={watermark:date}"
        result = run("python", "-c", small, "backfill", *span(5), "--workers", "2", "--users-url", url)
        assert result.returncode == 0, result.stderr
        days = [str(FIRST + dt.timedelta(days=n)) for n in range(5)]
        before = ["1970-01-01", "2015-12-31", *days[:-2]]
        assert [(request.query["on"], request.query["since"]) for request in server.requests] == list(
            zip(days, before, strict=True)
        )


@pytest.mark.parametrize(
    ("number", "method", "workers"),
    [
        (signal.SIGINT, "fork", 1),
        (signal.SIGTERM, "fork", 2),
        (signal.SIGINT, "forkserver", 2),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_signal_stops_between_days(number, method, workers):
    """All processes finish their running days. The last line says how to resume."""
    with Server() as server:
        url = serve_days(server, lambda _: None, wait=0.3)
        code = f"import multiprocessing; multiprocessing.set_start_method('{method}'); {IN_A_GROUP}"
        arguments = ("backfill", *span(40), "--workers", str(workers), "--users-url", url)
        command = start("python", "-c", code, *arguments, PYTHONWARNINGS="ignore")
        wait_until(lambda: len(server.requests) > workers)
        os.killpg(command.pid, number)
        stdout, stderr = command.communicate(timeout=60)
        assert command.returncode == 128 + number, stderr
        begun = sorted(set(asked_for(server)))
    assert [date for (date,) in query("select date from loads order by 1")] == begun
    rows = rows_of(stdout)
    assert rows["done"].startswith(f"done {len(begun)} ")
    assert rows["not run"].startswith(f"not run {40 - len(begun)} ")
    assert rows.keys() == {"done", "not run", "users:"}
    *_, stopping, last = stderr.splitlines()
    assert stopping.startswith("stopping: ")
    again = f"wholeday backfill 2016-01-01 2016-02-10 --workers {workers} and the flags of this run"
    assert last == f"stopped by {number.name}: resume with {again}"
    assert "Traceback" not in stderr


def test_stop_starts_no_further_block(monkeypatch):
    """Otherwise Luigi would schedule years of days and retry a failed one."""
    blocks = []

    def run_batch(_: object, days: Sequence[dt.date], __: int, stop: Stop, on_result: OnResult) -> None:
        blocks.append(len(days))
        on_result(days[0], "410 Gone")
        stop.asked = signal.SIGINT

    monkeypatch.setattr("wholeday.tasks.backfill.run_batch", run_batch)
    backfill = BackfillRun(LoadUsers, FIRST, FIRST + dt.timedelta(days=45))
    backfill.run(1, Stop(), lambda *_: None)
    assert (blocks, len(backfill.failed), len(backfill.not_run)) == ([20], 1, 44)


def test_signal_does_not_interrupt_engine_processes():
    """A terminal sends Ctrl-C to the engine processes too."""
    flags = ("--users-url", f"{TINY[1].replace('per_day=1', 'per_day=2000')}", "--pipeline-part-records", "200")
    command = start("python", "-c", IN_A_GROUP, "backfill", *span(3, dt.date(2026, 10, 1)), *flags)
    wait_until(lambda: bool(list(Path("data").glob("clean/*/date=*/part-*"))))
    os.killpg(command.pid, signal.SIGINT)
    stdout, stderr = command.communicate(timeout=60)
    assert command.returncode == 128 + signal.SIGINT, stderr
    assert rows_of(stdout)["done"].startswith("done 1 2026-10-01 loaded, ")


def test_second_signal_aborts_without_loss():
    """The next run resumes."""
    with Server() as server:
        slow = iter([Answer([], wait=100)])
        url = serve_days(server, lambda day: next(slow, None) if day == "2016-01-03" else None)
        command = start("python", "-m", "wholeday", "backfill", *span(5), "--workers", "2", "--users-url", url)
        wait_until(lambda: len(asked_for(server)) >= 3 and len(query_or_none("select * from loads")) == 2)
        command.send_signal(signal.SIGINT)
        time.sleep(0.5)
        command.send_signal(signal.SIGTERM)
        command.communicate(timeout=60)
        assert command.returncode == 128 + signal.SIGTERM
        result = backfill(*span(5), "--users-url", url)
        assert result.returncode == 0, result.stderr
    assert query("select count(*) from users") == [(5,)]


def query_or_none(sql: str) -> list[tuple[Any, ...]]:
    with contextlib.suppress(Exception):
        return query(sql)
    return []


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def dump() -> tuple[object, ...]:
    history = (
        query("select * from users_history order by 1, 2, 3, 4, 5, 6, 7") if Path("data/warehouse.db").exists() else []
    )
    return dump_warehouse(), history


@pytest.mark.sweep
@pytest.mark.timeout(120 + 20 * KILLS)
def test_killed_backfill_is_completed_by_next_run():
    """After repeated SIGKILLs, a plain run gives the warehouse of an undisturbed run."""
    days = span(4 if KILLS < 50 else 24, dt.date(2026, 10, 1))
    began = time.monotonic()
    assert backfill(*days, "--workers", "2").returncode == 0
    length = time.monotonic() - began
    whole = dump()
    shutil.rmtree("data")
    chance, loaded = random.Random(KILLS), []
    for number in range(KILLS):
        command = start("python", "-c", IN_A_GROUP, "backfill", *days, "--workers", "2")
        time.sleep(chance.uniform(0.1 * length, 0.6 * length))
        if number % 2:
            command.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)
        command.communicate()
        loaded.append(len(query_or_none("select * from loads")))
        if loaded[-1] == len(whole[0]["loads"]):
            shutil.rmtree("data", ignore_errors=True)
    print(f"days loaded at each kill: {loaded}")
    result = backfill(*days)
    assert result.returncode == 0, result.stderr
    assert dump() == whole


@pytest.mark.sweep
@pytest.mark.timeout(600)
def test_four_workers_share_luigid_and_warehouse():
    """One process with four workers, or four processes with the same days, give the rows of a serial run."""
    days = span(max(3, SCALE // 4), dt.date(2026, 6, 1))
    assert backfill(*days).returncode == 0
    quiet = dump()
    for processes, workers in ((1, 4), (4, 1)):
        shutil.rmtree("data")
        with start_scheduler() as environment:
            command = ("python", "-m", "wholeday", "backfill", *days, "--workers", str(workers))
            commands = [start(*command, **environment) for _ in range(processes)]
            results = [(*each.communicate(timeout=500), each.returncode) for each in commands]
        for stdout, stderr, code in results:
            assert (code, stderr) == (0, ""), stdout
        assert dump() == quiet


def test_luigid_retries_a_failed_day():
    """central.cfg sets the retries. The log shows the failure."""
    with start_scheduler() as environment, Server() as server:
        once = iter([Answer(status=404)])
        url = serve_days(server, lambda day: next(once, None) if day == "2016-01-02" else None)
        text = Path("central.cfg").read_text().replace("retry_delay = 5", "retry_delay = 1")
        Path("central.cfg").write_text(text)
        result = backfill(*span(3), "--users-url", url, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr.count("404 Not Found") == 1
    assert rows_of(result.stdout)["done"].startswith("done 3 2016-01-01..2016-01-03 loaded")


def test_unreachable_scheduler_is_one_line():
    """The line says how to start luigid."""
    text = Path("central.cfg").read_text().replace("scheduler_port = 8082", "scheduler_port = 9")
    Path("central.cfg").write_text(text.replace("[core]", "[core]\nrpc_retry_wait = 0\nrpc_log_retries = false"))
    result = backfill(*span(3), LUIGI_CONFIG_PATH="central.cfg")
    assert result.returncode == 1
    assert (
        "is luigid running? Start it with wholeday luigid, or add --local-scheduler" in result.stderr.splitlines()[-1]
    )


def test_terminal_shows_progress_then_table():
    """Errors of failed days stay above the transient bar. A retried day counts once."""
    once = iter([Answer(status=404)])

    def answer(day: str) -> Answer | None:
        return next(once, None) if day == "2016-01-05" else Answer(status=404) if day == "2016-01-03" else None

    with Server() as server:
        url = serve_days(server, answer, wait=0.1)
        code, written = run_on_terminal(
            "python", "-m", "wholeday", "backfill", *span(6), "--workers", "2", "--users-url", url
        )
    assert code == 1, written
    bars = re.findall(
        r"━ +(\d+)% (?:\d+:\d\d:\d\d|-:--:--) users, (\d+) of 6 days, (?:(\d) failed, )?[\d.]+ days/(?:s|min)", written
    )
    assert len(bars) > 3
    assert all(int(share) == round(100 * (int(loaded) + int(failed or 0)) / 6) for share, loaded, failed in bars)
    assert bars[-1] == ("100", "5", "1")
    lines = look_at(written)
    assert not [line for line in lines if "━" in line]
    assert [line for line in lines if line.startswith("ERROR: ExtractUsers(date=2016-01-03)")]
    assert not [line for line in lines if line.startswith("users 2016")]
    assert "users: 5 of 6 days are loaded" in lines


def test_slow_day_has_its_own_bar():
    """One worker extracts in the main process. No bar remains at the end."""
    with Server() as server:

        def respond(request: Request) -> Answer:
            page = int(request.query.get("page", 1))
            users = (
                [make_user(10 * page + n, f"{request.query['on']}T10:00:00Z") for n in range(10)] if page < 9 else []
            )
            return Answer(users, headers={"X-Total-Count": "80"}, wait=0.15)

        url = server.on("/users", respond) + "?on={date}"
        flags = ("--users-url", url, "--users-paginator", "page", "--users-total-header", "X-Total-Count")
        flags += ("--users-concurrency", "1")
        code, written = run_on_terminal("python", "-m", "wholeday", "backfill", *span(2), *flags)
    assert code == 0, written
    assert re.search(r"━ +50% [\d:-]+ users, 1 of 2 days, [^\n]*\n━[^\n]* 6 pages, 60 of 80 records", written)
    assert not [line for line in look_at(written) if "━" in line]


class ExtractNothing(DayTask):
    """A task without work, to measure the cost of Luigi itself."""

    dataset = USERS
    done: ClassVar[set[tuple[str, dt.date]]] = set()

    def complete(self) -> bool:
        return (self.task_family, self.date) in self.done

    def run(self) -> None:
        self.done.add((self.task_family, self.date))


@requires(ExtractNothing)
class TransformNothing(ExtractNothing):
    """The second stage of a task without work."""


@requires(TransformNothing)
class LoadNothing(Load):
    """The third stage of a task without work."""

    dataset = USERS
    complete = ExtractNothing.complete
    run = ExtractNothing.run
    done = ExtractNothing.done

    @classmethod
    def bulk_complete(cls, parameter_tuples: Any) -> list[dt.date]:
        return [day for day in parameter_tuples if ("LoadNothing", day) in cls.done]


@pytest.fixture
def quiet(monkeypatch) -> Iterator[None]:
    ExtractNothing.done.clear()
    monkeypatch.setattr(LoadNothing, "_visible_in_registry", True)
    monkeypatch.setattr(InterfaceLogging, "_configured", True)
    with CmdlineParser.global_instance(["LoadNothing", "--local-scheduler"]):
        yield


@pytest.mark.sweep
@pytest.mark.usefixtures("quiet")
def test_scheduling_cost_is_linear_in_days():
    """Scheduling all days at once would be quadratic."""
    seconds = []
    for days in (few := max(SCALE, 40), 4 * few):
        ExtractNothing.done.clear()
        backfill = BackfillRun(LoadNothing, FIRST, FIRST + dt.timedelta(days=days))
        began = time.process_time()
        backfill.run(1, Stop(), lambda _day, _cause: None)
        seconds.append(time.process_time() - began)
        assert (len(backfill.done), backfill.failed, backfill.not_run) == (days, {}, {})
    print(f"{1000 * seconds[0] / few:.1f} and {1000 * seconds[1] / few / 4:.1f} ms a day")
    assert seconds[1] <= GROWTH * seconds[0]


@pytest.mark.usefixtures("quiet")
def test_table_lists_first_fifty_failed_days(capsys):
    """One row summarizes the others, which the log lists."""
    backfill = BackfillRun(LoadNothing, FIRST, FIRST + dt.timedelta(days=60))
    backfill.failed = dict.fromkeys(backfill.todo, "503")
    show_outcome(backfill, Stop())
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert rows[1:51] == [f"failed 1 {day} 503" for day in backfill.todo[:50]]
    assert rows[51:] == [
        "failed 10 2016-02-20..2016-02-29 each is named above",
        "users: 0 of 60 days are loaded",
    ]


@pytest.mark.sweep
@pytest.mark.timeout(7200)
def test_backfill_cost_is_linear_in_days():
    """Finding all days complete costs less than loading a few. PIPELINE_BACKFILL=400 adds ten years.

    The test compares CPU time, because other processes may use the machine.
    """
    cost = []
    for days in (SCALE, 4 * SCALE):
        shutil.rmtree("data", ignore_errors=True)
        cost.append(measure_backfill(days))
    assert cost[1] <= GROWTH * cost[0]
    if SCALE >= 400:
        days = 3652
        measure_backfill(days)
    assert measure_backfill(days) < cost[0]


def measure_backfill(days: int) -> float:
    """Run a backfill, and return the CPU seconds of its processes."""
    told = "import atexit, os; atexit.register(lambda: print(sum(os.times()[:4])))"
    result = run("python", "-c", f"{told}; {MAIN}", "backfill", *span(days), *TINY)
    assert result.returncode == 0, result.stderr
    said, seconds = result.stdout.rstrip().rsplit("\n", 1)
    assert said.endswith(f"users: {days:,} of {days:,} days are loaded")
    print(f"{days} days: {seconds} s of processors")
    return float(seconds)


DEAD = ("--users-timeout", "0.2", "--users-retries", "1")


@pytest.mark.parametrize("workers", [1, 2])
def test_dead_source_costs_one_day(server, workers):
    """The run requests no further day and reports the others with the cause."""
    url = serve_days(server, lambda _: None, wait=5)
    result = backfill(*span(30), "--users-url", url, "--workers", str(workers), *DEAD)
    assert result.returncode == 1
    days = sorted(set(asked_for(server)))
    assert 1 <= len(days) <= workers
    rows = rows_of(result.stdout)
    assert rows["not run"].startswith(f"not run {30 - len(days)} ")
    assert "source unreachable: users 2016-01-0" in rows["not run"]
    assert "users: 0 of 30 days are loaded" in result.stdout


def test_dead_source_costs_one_day_under_luigi(server):
    """The run remembers the outage. A later command requests its day again."""
    url = serve_days(server, lambda _: None, wait=5)
    start, stop = span(8)
    result = luigi_run("BackfillUsers", "--start", start, "--stop", stop, "--users-url", url, *DEAD)
    assert result.returncode == 30
    assert asked_for(server) == [start, start]
    assert result.stderr.count("not run, as the source cannot be reached: users 2016-01-01: GET") == 7
    assert not Path("data/failures/users.jsonl").read_text().count("not run")
    again = luigi_run("LoadUsers", "--date", "2016-01-05", "--users-url", url, *DEAD)
    assert again.returncode == 30
    assert asked_for(server)[2:] == ["2016-01-05"] * 2


def test_single_outage_does_not_end_the_backfill(server):
    """After successful days the run tries the next day, and retries the failed day at the end."""
    url = serve_days(server, lambda day: Answer(wait=60) if day == "2016-01-03" else None)
    result = backfill(*span(6), "--users-url", url, "--users-timeout", "1", "--users-retries", "1")
    assert result.returncode == 1
    rows = rows_of(result.stdout)
    assert rows["failed"].startswith("failed 1 2016-01-03 source unreachable: users 2016-01-03: GET")
    assert "not run" not in rows
    assert asked_for(server).count("2016-01-03") == 4
    assert "users: 5 of 6 days are loaded" in result.stdout


def today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def serve_everybody(server: Server) -> tuple[str, ...]:
    url = server.on("/users", lambda _: Answer([make_user(n, "2016-01-01T10:00:00Z") for n in (1, 2)]))
    return ("--users-url", url, "--users-mode", "snapshot", "--users-settle", "0 seconds")


def test_backfill_refuses_past_snapshots(capsys, server):
    """The run loads yesterday and today. It reports the earlier days, as plan and status do."""
    flags, (start, stop) = serve_everybody(server), span(30, today() - dt.timedelta(days=29))
    planned, _, _ = run_here(capsys, "plan", start, stop, *flags)
    assert re.search(r"^past +28 .*past days cannot be fetched", planned, re.MULTILINE)
    assert re.search(r"^extract +2 ", planned, re.MULTILINE)
    result = backfill(start, stop, *flags)
    assert (result.returncode, len(server.requests)) == (1, 2)
    past = rows_of(result.stdout)["past"]
    assert past.startswith(f"past 28 {start}..{today() - dt.timedelta(days=2)} a snapshot shows all records as of now")
    assert f"ERROR: users: past: {start}..{today() - dt.timedelta(days=2)}: a snapshot shows all" in result.stderr
    assert f"Request {today()}" in re.sub(r"\s+", " ", result.stdout)
    assert "users: 2 of 30 days are loaded" in result.stdout
    past_day = today() - dt.timedelta(days=5)
    alone = luigi_run("LoadUsers", "--date", str(past_day), *flags)
    assert alone.returncode == 0
    assert "The day is stored as of now" in alone.stderr
    status, _, _ = run_here(capsys, "status", *flags)
    assert f"past: {past_day + dt.timedelta(days=1)}.." in status
    assert "past snapshots cannot be fetched again" in status
    assert "missing: " not in status


@pytest.mark.parametrize("task", [("BackfillUsers",), ("RangeDaily", "--of", "LoadUsers")], ids=lambda task: task[0])
def test_luigi_range_refuses_past_snapshots(server, task):
    """The run loads the other days and fails with one line."""
    flags, start, stop = serve_everybody(server), today() - dt.timedelta(days=3), today() + dt.timedelta(days=1)
    for _ in range(2):
        result = luigi_run(*task, "--start", str(start), "--stop", str(stop), *flags)
        assert result.returncode == 30
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR: ")]
        past = f"users {start}..{today() - dt.timedelta(days=2)}"
        why = f"a snapshot shows all records as of now, so past days cannot be fetched. Request {today()}"
        assert lines == [f"ERROR: {past}: {why}"]
        assert query("select count(*) from loads") == [(2,)]
    again = luigi_run(*task, "--start", str(today() - dt.timedelta(days=1)), "--stop", str(stop), *flags)
    assert again.returncode == 0


def test_past_snapshot_with_files_is_loaded(configure, server):
    """The raw files exist, so the run sends no request."""
    flags, past = serve_everybody(server), today() - dt.timedelta(days=5)
    configure("users", url=flags[1], mode="snapshot")
    stages.extract(read_workspace(USERS), past)
    result = backfill(str(past), str(past + dt.timedelta(days=1)), *flags)
    assert result.returncode == 0, result.stdout
