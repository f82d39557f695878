"""The DAG of examples/airflow in a real Airflow, which has an environment of its own: what docs/airflow.md promises.

Everything that Airflow keeps is in the folder of the test; it listens on loopback; none of its processes is left.
"""

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.support import ROOT
from tests.support.clones import make_clone
from tests.support.pages import Reader
from tests.support.peers import find_port
from tests.support.project import dump_tree, dump_warehouse, luigi_run, miss, query
from tests.support.server import Answer, Request
from wholeday.extract.http.demo import DemoAdapter

# One at a time: each of these keeps both cores of a small machine busy.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("airflow"), pytest.mark.timeout(600)]

DAG = ROOT / "examples" / "airflow" / "users_etl.py"
PROGRAMS = ROOT / ".venv-airflow" / "bin"
DAY = "2026-11-20"
NUMBER = int(os.environ.get("PIPELINE_AIRFLOW", "4"))  # of days, of which one fails once

# The processes of some sessions, or with a certain AIRFLOW_HOME, and the addresses at which they listen.
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
    """An Airflow with a home of its own in `folder`, whose DAG runs the pipeline of the current folder."""

    def __init__(self, folder: Path) -> None:
        self.home, self.port = folder / "airflow", find_port()
        self.headers: dict[str, str] = {}
        self.servers: list[subprocess.Popen[bytes]] = []
        self.dags = folder / "dags"
        self.dags.mkdir()
        shutil.copy(DAG, self.dags)
        settings = {
            "core__dags_folder": self.dags,
            "core__load_examples": False,
            "core__dags_are_paused_at_creation": False,
            "core__default_task_retry_delay": 1,
            "core__parallelism": 4,
            "core__execution_api_server_url": f"http://127.0.0.1:{self.port}/execution/",
            "core__simple_auth_manager_all_admins": True,
            "api_auth__jwt_secret": "a secret of this test only, which is long enough for a signature of 64 bytes",
            "usage_data_collection__enabled": False,
        }
        self.environment = os.environ | {f"AIRFLOW__{key.upper()}": str(value) for key, value in settings.items()}
        self.environment |= {"AIRFLOW_HOME": str(self.home), "AIRFLOW_VAR_USERS_PIPELINE": str(folder)}

    def run(self, *command: str, code: int = 0) -> str:
        """A program of Airflow's environment, to its end: all that it printed."""
        for _ in range(10):
            result = subprocess.run(
                [PROGRAMS / command[0], *command[1:]],
                cwd=self.dags,
                env=self.environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            if "database is locked" not in result.stdout:  # by the scheduler: what was begun has been taken back
                break
        assert result.returncode == code, result.stdout
        return result.stdout

    def start(self, *command: str) -> None:
        """A program of Airflow that goes on, in a session of its own."""
        with (self.home / f"{command[0]}.log").open("wb") as log:
            server = subprocess.Popen(
                [PROGRAMS / "airflow", *command],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.servers.append(server)

    def wait_for_api(self) -> None:
        """Until the server that every task talks to answers."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise TimeoutError("the API server did not come up")

    def list_processes(self) -> dict[int, list[list[Any]]]:
        """Every process that was started and is there, and where it listens: [address, port]."""
        sessions = [str(server.pid) for server in self.servers]
        found = json.loads(self.run("python", "-c", LIST_PROCESSES, str(self.home), *sessions))
        return {int(pid): sockets for pid, sockets in found.items()}

    def end(self) -> None:
        """End every process: a task has a process group of its own, and would outlive that of its scheduler."""
        deadline = time.monotonic() + 30
        while (pids := self.list_processes()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for server in self.servers:
            server.wait()
        assert not pids

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """What the UI asks too."""
        api = f"http://127.0.0.1:{self.port}"
        token = requests.get(f"{api}/auth/token", timeout=30).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        response = requests.request(
            method, f"{api}/api/v2/dags/users_etl{path}", headers=headers, json=body, timeout=30
        )
        response.raise_for_status()
        return response.json()

    def change(self, *command: str) -> None:
        """A command while the DAG is paused: its scheduler begins nothing before all is told."""
        self.ask("PATCH", "", is_paused=True)
        self.run("airflow", *command)
        self.ask("PATCH", "", is_paused=False)

    def wait(self, number: int) -> dict[tuple[str, str], int]:
        """Until so many tasks have succeeded: the number of tries of each, by day and stage."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            tasks = self.ask("GET", "/dagRuns/~/taskInstances?limit=100")["task_instances"]
            states = [task["state"] for task in tasks]
            assert "failed" not in states, tasks
            if states.count("success") == number:
                return {(task["logical_date"][:10], task["task_id"]): task["try_number"] for task in tasks}
            time.sleep(0.5)
        raise TimeoutError(f"not {number} tasks have succeeded: {tasks}")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of an Airflow in which nothing has happened yet."""
    if not (PROGRAMS / "airflow").exists():
        miss("there is no .venv-airflow: docs/airflow.md says how to make it")
    airflow = Airflow(tmp_path_factory.mktemp("airflow"))
    airflow.run("airflow", "db", "migrate")
    return airflow.home / "airflow.db"


@pytest.fixture
def airflow(database: Path, home: Path) -> Iterator[Airflow]:
    """An Airflow beside a pipeline that has been set up in the current folder."""
    (home / ".venv").symlink_to(sys.prefix)
    airflow = Airflow(home)
    airflow.home.mkdir()
    shutil.copy(database, airflow.home)
    try:
        yield airflow
    finally:
        airflow.end()


def configure_users(**keys: object) -> None:
    """Set keys of the section [users] of luigi.cfg in the current folder, each for good."""
    lines = [line for line in Path("luigi.cfg").read_text().splitlines() if line.partition(" = ")[0] not in keys]
    place = lines.index("[users]") + 1
    Path("luigi.cfg").write_text("\n".join([*lines[:place], *(f"{key} = {keys[key]}" for key in keys), *lines[place:]]))


def dump_all() -> list[Any]:
    """Files and tables of the current folder, with every time at which something was done."""
    return [dump_tree("data/raw"), dump_tree("data/clean"), dump_warehouse(), query("select * from loads")]


def dump_history() -> list[Any]:
    """Who was what, and when."""
    return query("select user_id, name, email, city, valid_from, valid_to from users_history order by 1, 5")


def show_demo(request: Request) -> Answer:
    """What demo://users answers, over HTTP."""
    with requests.Session() as session:
        session.mount("demo://", DemoAdapter())
        response = session.get(f"demo://users?{urlsplit(request.target).query}")
    return Answer(response.content, response.status_code, {"X-Total-Count": response.headers["X-Total-Count"]})


def test_the_dag_is_parsed_without_a_warning(airflow):
    """Daily, no catching up, three retries, tags; extract before transform before load."""
    code = """
import json, users_etl
dag = users_etl.load.dag
print(json.dumps({
    "catchup": dag.catchup,
    "retries": {task.task_id: task.retries for task in dag.tasks},
    "tags": sorted(dag.tags),
    "order": [[task.task_id, sorted(task.downstream_task_ids)] for task in dag.topological_sort()],
}))
"""
    printed = airflow.run("python", "-W", "error", "-c", code)
    assert json.loads(printed) == {
        "catchup": False,
        "retries": {"extract": 3, "transform": 3, "load": 3},
        "tags": ["luigi", "users"],
        "order": [["extract", ["transform"]], ["transform", ["load"]], ["load", []]],
    }


def test_a_day_is_loaded_and_the_same_day_again_changes_nothing(airflow):
    """A loaded day is done, even where its files are gone: it is not read again from the source."""
    assert "users 2026-11-20: loaded, 100 inserted" in airflow.run("airflow", "dags", "test", "users_etl", DAY)
    assert len(query("select * from users where load_date = ?", DAY)) == 100
    shutil.rmtree("data/raw")
    before = dump_all()
    again = airflow.run("airflow", "dags", "test", "users_etl", DAY)
    assert again.count("users 2026-11-20: loaded, nothing to do") == 3
    assert dump_all() == before


def test_page_examples_run(airflow, tmp_path_factory, monkeypatch):
    """The folders of the page are a clean clone. The backfill is created, not run: no scheduler is there."""
    clone, dags = make_clone(tmp_path_factory.mktemp("clone")), airflow.home / "dags"
    dags.mkdir()
    monkeypatch.chdir(clone)
    settings = {name: text for name, text in airflow.environment.items() if name.startswith("AIRFLOW")}
    settings |= {"AIRFLOW__CORE__DAGS_FOLDER": str(dags), "PATH": f"/usr/local/bin:/usr/bin:/bin:{PROGRAMS}"}
    with Reader({"/opt/wholeday": str(clone), "/srv/wholeday": str(clone)}, **settings) as reader:
        reader.follow("docs/airflow.md")
    assert query("select date from loads") == [(DAY,)]


def call(airflow: Airflow, code: str) -> str:
    """Run Python that has what is in the DAG's file, and the `context` of a run of `DAY`; what it prints."""
    setup = f"""
import datetime as dt
from types import SimpleNamespace
from users_etl import *
extract.folder = {str(Path.cwd())!r}
now = dt.datetime.now(dt.UTC)
context = dict(logical_date=now, ds={DAY!r}, data_interval_end=now - dt.timedelta(days=1))
"""
    return airflow.run("python", "-c", setup + code)


def test_a_day_is_waited_for_until_it_is_settled(airflow):
    """Until twenty minutes after its midnight, and not so shortly that Airflow takes the task for lost.

    A run that was triggered without a date takes the last such day.
    """
    code = """
for minutes in (21, 19, 19.99):
    context["data_interval_end"] = now - dt.timedelta(minutes=minutes)
    try:
        print(find_day(context))
    except AirflowRescheduleException as wait:
        print("wait", round((wait.reschedule_date - now).total_seconds(), -1))
for minute in (19, 20):
    print(find_day({"dag_run": SimpleNamespace(run_after=dt.datetime(2026, 11, 21, 0, minute, tzinfo=dt.UTC))}))
"""
    assert call(airflow, code).splitlines() == [DAY, "wait 60.0", "wait 20.0", "2026-11-19", "2026-11-20"]


def test_a_pipeline_that_is_not_there_is_named(airflow):
    """With the next step, in one line."""
    Path(".venv").unlink()
    code = """
try:
    extract.execute(context)
except AirflowException as error:
    print("failed:", error)
"""
    line = "/.venv/bin/python does not exist: run ./run.sh status once in the folder of the project, and set the"
    assert f"failed: {Path.cwd()}{line}" in call(airflow, code)


def test_a_stage_ends_with_its_task(airflow, server):
    """Airflow ends a task that was cleared or takes too long: the process that reads the source is not left behind."""
    asked = threading.Event()

    def hang(_: Request) -> Answer:
        asked.set()
        return Answer([], wait=60)

    def tell_when_asked(_: Request) -> Answer:
        return Answer(status=200 if asked.wait(60) else 504)

    configure_users(url=server.on("/users", hang))
    code = f"""
import threading, urllib.request
def kill():
    urllib.request.urlopen("{server.on("/asked", tell_when_asked)}")
    extract.on_kill()
threading.Thread(target=kill).start()
try:
    extract.execute(context)
except AirflowException as error:
    print("failed:", error)
"""
    started = time.monotonic()
    assert "failed: ExtractUsers of 2026-11-20 ended with exit code -15" in call(airflow, code)
    assert time.monotonic() - started < 60
    assert not airflow.list_processes()


def test_a_backfill_under_the_scheduler_equals_luigis(airflow, server, monkeypatch):
    """Beside the day of the schedule; a gate that fails once is one line, and Airflow's retry completes the day.

    Cleared and run again, nothing changes; and whatever listens does so on loopback only.
    """
    now = dt.datetime.now(dt.UTC)
    present, *past = [str(now.date() - dt.timedelta(days=number)) for number in range(1, NUMBER + 2)]
    newest, failing, oldest = past[0], past[2], past[-1]
    ready = now + dt.timedelta(seconds=15)
    settled = ready - dt.datetime.combine(now, dt.time(), dt.UTC)
    dag = (airflow.dags / DAG.name).read_text()
    (airflow.dags / DAG.name).write_text(
        dag.replace("timedelta(minutes=20)", f"timedelta(seconds={settled.total_seconds()})")
    )
    for day in (present, *past):
        server.on(f"/{day}", *[Answer([])] * (day == failing), show_demo)
    url = server.url + "/{date}?updated_since={day_start}&updated_before={day_stop}"
    configure_users(url=url, settle=0, min_records=50)

    airflow.start("api-server", "--host", "127.0.0.1", "--port", str(airflow.port))
    airflow.run("airflow", "dags", "reserialize")
    airflow.wait_for_api()
    airflow.start("scheduler", "--skip-serve-logs")
    tries = airflow.wait(3)
    assert tries == {(present, stage): 1 for stage in ("extract", "transform", "load")}
    ((started_at,),) = query("select started_at from loads where date = ?", present)
    assert dt.datetime.fromisoformat(started_at) >= ready
    shown = query("select * from users")

    airflow.change("backfill", "create", "--dag-id", "users_etl", "--from-date", oldest, "--to-date", newest)
    tries = airflow.wait(3 + 3 * NUMBER)
    assert {day for day, _ in tries} == {present, *past}
    assert tries[failing, "extract"] == 2
    (log,) = airflow.home.glob(f"logs/*/run_id=backfill__{past[1]}*/task_id=extract/attempt=1.log")
    line = f"ExtractUsers(date={failing}) failed: users {failing}: 0 records came; min_records is 50"
    assert f'"exc_type":"AirflowException","exc_value":"{line}' in log.read_text()
    assert query("select sum(superseded) > 0 from loads") == [(1,)]
    assert set(shown) <= set(query("select * from users"))
    sockets = [tuple(socket) for sockets in airflow.list_processes().values() for socket in sockets]
    assert set(sockets) == {("127.0.0.1", airflow.port)}

    before = dump_all()
    airflow.change("tasks", "clear", "--yes", "--start-date", oldest, "--end-date", newest, "users_etl")
    again = airflow.wait(3 + 3 * NUMBER)
    assert {task for task in tries if again[task] > tries[task]} == {task for task in tries if task[0] in past}
    assert dump_all() == before

    by_airflow = [dump_warehouse(), dump_history()]
    Path("luigi").mkdir()
    shutil.copy(ROOT / "luigi.cfg", "luigi")
    monkeypatch.chdir("luigi")
    by_luigi = luigi_run("RangeDaily", "--of", "LoadUsers", "--start", oldest, "--users-settle", "0")
    assert by_luigi.returncode == 0, by_luigi.stderr
    assert [dump_warehouse(), dump_history()] == by_airflow
