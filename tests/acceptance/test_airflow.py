"""Run the DAG of examples/airflow in a real Airflow, as docs/how-to/airflow.md describes.

Airflow has its own virtual environment, stores everything in the test's folder, and listens on loopback only. The
fixture ends all of its processes.
"""

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.support import ROOT, find_port
from tests.support.clones import write_forking_python
from tests.support.launcher import launch
from tests.support.pages import Reader
from tests.support.project import dump_tree, dump_warehouse, luigi_run, miss, query
from tests.support.server import Answer, Request
from wholeday.extract.http.demo import DemoAdapter

# One at a time: each test keeps both cores of a small machine busy.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("airflow"), pytest.mark.timeout(600)]

DAG = ROOT / "examples" / "airflow" / "users_etl.py"
PROGRAMS = ROOT / ".venv-airflow" / "bin"
DAY = "2026-11-20"
NUMBER = int(os.environ.get("PIPELINE_AIRFLOW", "1"))  # number of days in the backfill; the oldest fails once

# What its commands import, except the application of the API server
LIBRARIES = (
    *("airflow.__main__", "airflow.api_fastapi.core_api.app", "airflow.api_fastapi.execution_api.app"),
    *("airflow.cli.commands.backfill_command", "airflow.cli.commands.dag_command", "airflow.cli.commands.db_command"),
    *("airflow.cli.commands.scheduler_command", "airflow.cli.commands.variable_command", "airflow.dag_processing"),
    *("airflow.executors.local_executor", "airflow.jobs.scheduler_job_runner", "alembic.autogenerate", "alembic.op"),
)

# Lists the processes of the sessions, or with this AIRFLOW_HOME, and their listening addresses.
LIST_PROCESSES = """
import json, os, psutil, sys
home, *sessions = sys.argv[1:]
found = {}
for process in psutil.process_iter():
    try:
        ours = str(os.getsid(process.pid)) in sessions or process.environ().get("AIRFLOW_HOME") == home
        if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
            sockets = process.net_connections("inet")
            found[process.pid] = [socket.laddr for socket in sockets if socket.status == psutil.CONN_LISTEN]
    except (psutil.Error, ProcessLookupError):
        pass
print(json.dumps(found))
"""


class Airflow:
    """An Airflow whose home is in `folder`. `programs`, a folder with a short path, is for its command."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.home, self.port = folder / "airflow", find_port()
        self.programs = programs
        self.servers: list[subprocess.Popen[bytes]] = []
        self.token = ""
        self.dags = self.home / "dags"
        self.dags.mkdir(parents=True)
        settings = {
            "core__dags_folder": self.dags,
            "core__load_examples": False,
            "core__default_task_retry_delay": 1,
            "core__parallelism": 4,
            "workers__execution_api_timeout": 60,
            "core__execution_api_server_url": f"http://127.0.0.1:{self.port}/execution/",
            "core__simple_auth_manager_all_admins": True,
            "api_auth__jwt_secret": "a secret of this test only, which is long enough for a signature of 64 bytes",
            "usage_data_collection__enabled": False,
        }
        self.environment = os.environ | {f"AIRFLOW__{key.upper()}": str(value) for key, value in settings.items()}
        self.environment["AIRFLOW_HOME"] = str(self.home)

    def fork_commands(self) -> None:
        """Let the program `airflow` start as a fork of a process that has imported its libraries."""
        folder, options = self.programs, {"start_new_session": True}
        self.servers.append(launch(PROGRAMS / "python", LIBRARIES, self.environment, str(folder), **options))
        write_forking_python(folder / "python", PROGRAMS / "python", folder, f"{folder}/socket")
        (folder / "airflow").write_text(f"#!{folder}/python\n{(PROGRAMS / 'airflow').read_text()}")
        (folder / "airflow").chmod(0o755)

    def run(self, *command: str | Path) -> str:
        """Run a program of Airflow's environment and return its output."""
        result = subprocess.run(
            command,
            cwd=DAG.parent,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert result.returncode == 0, result.stdout
        return result.stdout

    def start(self, *command: str) -> None:
        """Start a long-running Airflow program in its own session."""
        with (self.home / f"{command[0]}.log").open("wb") as log:
            server = subprocess.Popen(
                [self.programs / "airflow", *command],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.servers.append(server)

    def wait_for_api(self) -> None:
        """Wait until the API server responds."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError):
                self.ask("GET", "")
                return
            time.sleep(0.1)
        raise TimeoutError("the API server did not come up")

    def list_processes(self) -> dict[int, list[list[Any]]]:
        """Return the running processes, each with its listening [address, port] pairs."""
        sessions = [str(server.pid) for server in self.servers]
        found = json.loads(self.run(PROGRAMS / "python", "-c", LIST_PROCESSES, str(self.home), *sessions))
        return {int(pid): sockets for pid, sockets in found.items()}

    def end(self) -> None:
        """Kill every process, including tasks, which have process groups of their own."""
        deadline = time.monotonic() + 60
        while (pids := self.list_processes()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for server in self.servers:
            server.communicate()
        assert not pids

    def clear(self, day: str) -> None:
        """Clear the tasks of a day, as the UI does."""
        tasks = self.ask("GET", "/dagRuns/~/taskInstances?limit=100")["task_instances"]
        (run,) = {task["dag_run_id"] for task in tasks if task["logical_date"][:10] == day}
        self.ask("POST", "/clearTaskInstances", dry_run=False, only_failed=False, dag_run_id=run)

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """Send a request to the REST API."""
        api = f"http://127.0.0.1:{self.port}"
        if not self.token:
            self.token = requests.get(f"{api}/auth/token", timeout=120).json()["access_token"]
        headers = {"Authorization": f"Bearer {self.token}"}
        response = requests.request(
            method, f"{api}/api/v2/dags/users_etl{path}", headers=headers, json=body, timeout=120
        )
        response.raise_for_status()
        return response.json()

    def wait(self, number: int) -> dict[tuple[str, str], int]:
        """Wait until `number` tasks have succeeded. Return the tries of each task by day and stage."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            tasks = self.ask("GET", "/dagRuns/~/taskInstances?limit=100")["task_instances"]
            states = [task["state"] for task in tasks]
            assert "failed" not in states, tasks
            if states.count("success") == number:
                return {(task["logical_date"][:10], task["task_id"]): task["try_number"] for task in tasks}
            time.sleep(1)
        raise TimeoutError(f"not {number} tasks have succeeded: {tasks}")


@pytest.fixture
def airflow(home: Path) -> Iterator[Airflow]:
    """Provide an Airflow next to a pipeline in the current folder."""
    if not (PROGRAMS / "airflow").exists():
        miss("there is no .venv-airflow: docs/how-to/airflow.md says how to make it")
    with tempfile.TemporaryDirectory() as programs:
        airflow = Airflow(home, Path(programs))
        try:
            yield airflow
        finally:
            airflow.end()


def configure_users(**keys: object) -> None:
    """Set keys in the section [users] of luigi.cfg."""
    lines = [line for line in Path("luigi.cfg").read_text().splitlines() if line.partition(" = ")[0] not in keys]
    place = lines.index("[users]") + 1
    Path("luigi.cfg").write_text("\n".join([*lines[:place], *(f"{key} = {keys[key]}" for key in keys), *lines[place:]]))


def dump_all() -> list[Any]:
    """Return all files and tables, including timestamps."""
    return [dump_tree("data/raw"), dump_tree("data/clean"), dump_warehouse(), query("select * from loads")]


def dump_history() -> list[Any]:
    """Return the history of users."""
    return query("select user_id, name, email, city, valid_from, valid_to from users_history order by 1, 5")


def show_demo(request: Request) -> Answer:
    """Serve demo://users over HTTP."""
    with requests.Session() as session:
        session.mount("demo://", DemoAdapter())
        response = session.get(f"demo://users?{urlsplit(request.target).query}")
    return Answer(response.content, response.status_code, {"X-Total-Count": response.headers["X-Total-Count"]})


def test_tasks_wait_fail_and_end_their_process(airflow, server, home):
    """The DAG is parsed without warnings. A day waits for its grace period, and so long that Airflow does not lose it.

    A manual run without a date takes the last closed day. A missing pipeline is one line with the next step. Airflow
    kills a task that was cleared or timed out.
    """
    asked = threading.Event()

    def hang(_: Request) -> Answer:
        asked.set()
        return Answer([], wait=60)

    def tell_when_asked(_: Request) -> Answer:
        return Answer(status=200 if asked.wait(60) else 504)

    (home / ".venv").symlink_to(sys.prefix)
    configure_users(url=server.on("/users", hang))
    code = f"""
import datetime as dt, json, threading, urllib.request
from types import SimpleNamespace
from users_etl import *
dag = load.dag
print("dag", json.dumps({{
    "catchup": dag.catchup,
    "retries": {{task.task_id: task.retries for task in dag.tasks}},
    "tags": sorted(dag.tags),
    "order": [[task.task_id, sorted(task.downstream_task_ids)] for task in dag.topological_sort()],
}}))
now = dt.datetime.now(dt.UTC)
context = dict(logical_date=now, ds={DAY!r})
for minutes in (21, 19, 19.99):
    context["data_interval_end"] = now - dt.timedelta(minutes=minutes)
    try:
        print("day", find_day(context))
    except AirflowRescheduleException as wait:
        print("day waits", round((wait.reschedule_date - now).total_seconds(), -1))
for minute in (19, 20):
    run = SimpleNamespace(run_after=dt.datetime(2026, 11, 21, 0, minute, tzinfo=dt.UTC))
    print("day", find_day({{"dag_run": run}}))
def kill():
    urllib.request.urlopen("{server.on("/asked", tell_when_asked)}")
    extract.on_kill()
context["data_interval_end"] = now - dt.timedelta(days=1)
threading.Thread(target=kill).start()
for folder in ({str(Path.cwd())!r}, "/nowhere"):
    extract.folder = folder
    try:
        extract.execute(context)
    except AirflowException as error:
        print("failed:", error)
"""
    started = time.monotonic()
    lines = airflow.run(PROGRAMS / "python", "-W", "error", "-c", code).splitlines()
    assert time.monotonic() - started < 60
    assert not airflow.list_processes()
    (dag,) = (json.loads(line.removeprefix("dag ")) for line in lines if line.startswith("dag "))
    assert dag == {
        "catchup": False,
        "retries": {"extract": 3, "transform": 3, "load": 3},
        "tags": ["luigi", "users"],
        "order": [["extract", ["transform"]], ["transform", ["load"]], ["load", []]],
    }
    days = [line.removeprefix("day ") for line in lines if line.startswith("day ")]
    assert days == [DAY, "waits 60.0", "waits 20.0", "2026-11-19", "2026-11-20"]
    killed, missing = (line.removeprefix("failed: ") for line in lines if line.startswith("failed: "))
    assert killed == "ExtractUsers of 2026-11-20 ended with exit code -15"
    assert missing.startswith("/nowhere/.venv/bin/python does not exist: make this environment in the folder of the")


def test_page_examples_load_what_luigi_loads(airflow, server, checkout, monkeypatch):
    """The examples of the page run in a clean clone. Then a scheduler runs their backfill next to the scheduled day.

    A failed gate logs one line and Airflow's retry succeeds. A loaded day is complete even without its files: cleared
    tasks run again and change nothing. All sockets listen on loopback.
    """
    now = dt.datetime.now(dt.UTC)
    present, *past, tested = [str(now.date() - dt.timedelta(days=number)) for number in range(1, NUMBER + 3)]
    newest, oldest = past[0], past[-1]
    for day in (present, *past, tested):
        server.on(f"/{day}", *[Answer([])] * (day == oldest), show_demo)
    url = server.url + "/{date}?updated_since={day_start}&updated_before={day_stop}"
    configure_users(url=url, settle=0, min_records=50)
    replace = {
        "/opt/wholeday": str(checkout),
        "/srv/wholeday": str(checkout),
        "users_etl 2026-11-20": f"users_etl {tested}",
        "load 2026-11-20": f"load {tested}",
        "--from-date 2026-11-10 --to-date 2026-11-19": f"--from-date {oldest} --to-date {newest}",
    }
    airflow.fork_commands()
    airflow.run(airflow.programs / "airflow", "db", "migrate")
    settings = {name: text for name, text in airflow.environment.items() if name.startswith("AIRFLOW")}
    with Reader(replace, PATH=f"/usr/local/bin:/usr/bin:/bin:{airflow.programs}", **settings) as reader:
        reader.follow("docs/how-to/airflow.md")
    assert query("select date from loads") == [(tested,)]

    airflow.start("api-server", "--host", "127.0.0.1", "--port", str(airflow.port))
    airflow.wait_for_api()
    ready = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=15)
    settled = ready - dt.datetime.combine(now, dt.time(), dt.UTC)
    dag = airflow.dags / DAG.name
    dag.write_text(dag.read_text().replace("minutes=20", f"seconds={settled.total_seconds()}"))
    airflow.start("scheduler", "--skip-serve-logs")
    tries = airflow.wait(3 + 3 * NUMBER)
    assert {day for day, _ in tries} == {present, *past}
    assert {task for task, number in tries.items() if number > 1} == {(oldest, "extract")}
    assert tries[oldest, "extract"] == 2
    ((started_at,),) = query("select started_at from loads where date = ?", present)
    assert dt.datetime.fromisoformat(started_at) >= ready
    (log,) = airflow.home.glob(f"logs/*/run_id=backfill__{(present, *past)[-2]}*/task_id=extract/attempt=1.log")
    line = f"ExtractUsers(date={oldest}) failed: users {oldest}: 0 records came; min_records is 50"
    assert f'"exc_type":"AirflowException","exc_value":"{line}' in log.read_text()
    sockets = [tuple(socket) for sockets in airflow.list_processes().values() for socket in sockets]
    assert set(sockets) == {("127.0.0.1", airflow.port)}

    shutil.rmtree("data/raw")
    before = dump_all()
    airflow.clear(newest)
    again = airflow.wait(3 + 3 * NUMBER)
    assert {task for task in tries if again[task] > tries[task]} == {task for task in tries if task[0] == newest}
    for stage in ("extract", "transform", "load"):
        last = f"task_id={stage}/attempt={again[newest, stage]}.log"
        (log,) = airflow.home.glob(f"logs/*/run_id=backfill__{present}*/{last}")
        assert "loaded, nothing to do" in log.read_text()
    assert dump_all() == before

    by_airflow = [dump_warehouse(), dump_history()]
    Path("luigi").mkdir()
    shutil.copy(ROOT / "luigi.cfg", "luigi")
    monkeypatch.chdir("luigi")
    by_luigi = luigi_run("RangeDaily", "--of", "LoadUsers", "--start", tested, "--users-settle", "0")
    assert by_luigi.returncode == 0, by_luigi.stderr
    assert [dump_warehouse(), dump_history()] == by_airflow
